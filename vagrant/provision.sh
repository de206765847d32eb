#!/bin/sh
# Runs as root in each machine: builds Lockstep from the copied checkout and writes the cluster's configuration.
# May be run again (`vagrant provision`); an edited configuration is left alone.
set -eu
SOURCE=/opt/lockstep

"$SOURCE/script/bootstrap" --with-postgresql
for command in rfsmount hactl hactld; do
    ln -sf "$SOURCE/.venv/bin/$command" "/usr/local/bin/$command"
done

mkdir -p /etc/lockstep/modules
if [ ! -e /etc/lockstep/cluster.toml ]; then
    cat >/etc/lockstep/cluster.toml <<'TOML'
name = "vagrant"
policy = "availability"
[[node]]
name = "node1"
addresses = { lan = "10.77.0.11", repl = "10.77.1.11" }
[[node]]
name = "node2"
addresses = { lan = "10.77.0.12", repl = "10.77.1.12" }
TOML
fi
install -d -o postgres -g postgres -m 700 /srv/postgresql/data /srv/postgresql/wal
if [ ! -e /etc/lockstep/modules/pg.toml ]; then
    hactl module add postgresql --name pg --vip 10.77.0.100/24 --dir /srv/postgresql/data --dir /srv/postgresql/wal
fi
hactl config check

# Not enabled at boot: here one wants to watch each start.
install -m 644 "$SOURCE/orchestrator/systemd/hactld.service" "$SOURCE/orchestrator/systemd/lockstep-guard.service" /etc/systemd/system/
systemctl daemon-reload
systemctl enable --quiet lockstep-guard
systemctl restart hactld
