"""MySQL as Oracle, Ubuntu and RHEL package it. A `mysqld` that is MariaDB's is refused: there is a template for that."""

from orchestrator.modules import mysql_family
from orchestrator.modules.machine import Machine
from orchestrator.modules.mysql_family import Kind
from orchestrator.modules.template import Draft, Template, Unfit, Wishes

KIND = Kind(
    title="MySQL",
    programs=("/usr/sbin/mysqld", "/usr/libexec/mysqld"),
    admins=("/usr/bin/mysqladmin",),
    units=("mysql", "mysqld"),
    settings=("/etc/my.cnf", "/etc/my.cnf.d/*.cnf", "/etc/mysql/my.cnf", "/etc/mysql/conf.d/*.cnf", "/etc/mysql/mysql.conf.d/*.cnf"),
    sections=("mysqld", "server"),
    exclude=("*.pid", "*.sock", "*.sock.lock", "*.lower-test", "./ibtmp1", "#innodb_temp/**"),
)


def is_mariadb(machine: Machine) -> bool:
    """Is the `mysqld` of this machine another name of MariaDB's?"""
    return machine.link(machine.program(*KIND.programs)).rpartition("/")[2] == "mariadbd"


def draft(wishes: Wishes, machine: Machine) -> Draft:
    """The module."""
    if is_mariadb(machine):
        raise Unfit("the mysqld of this machine is MariaDB's: use the template mariadb")
    return mysql_family.draft(KIND, wishes, machine)


def found(machine: Machine) -> str:
    """In a few words."""
    return "" if is_mariadb(machine) else mysql_family.found(KIND, machine)


TEMPLATE = Template("mysql", "MySQL: its data directory", draft, found, mysql_family.SETTINGS)
