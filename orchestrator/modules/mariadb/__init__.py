"""MariaDB as Debian and RHEL package it."""

from functools import partial

from orchestrator.modules import mysql_family
from orchestrator.modules.mysql_family import Kind
from orchestrator.modules.template import Template

KIND = Kind(
    title="MariaDB",
    programs=("/usr/sbin/mariadbd", "/usr/libexec/mariadbd"),
    admins=("/usr/bin/mariadb-admin", "/usr/bin/mysqladmin"),
    units=("mariadb",),
    settings=(
        *("/etc/my.cnf", "/etc/my.cnf.d/*.cnf", "/etc/mysql/my.cnf", "/etc/mysql/mariadb.cnf"),
        *("/etc/mysql/conf.d/*.cnf", "/etc/mysql/mariadb.conf.d/*.cnf"),
    ),
    sections=("mysqld", "server", "mariadb", "mariadbd"),
    exclude=("*.pid", "*.sock", "*.lower-test", "./ibtmp1"),
)
TEMPLATE = Template(
    "mariadb", "MariaDB: its data directory", partial(mysql_family.draft, KIND), partial(mysql_family.found, KIND), mysql_family.SETTINGS
)
