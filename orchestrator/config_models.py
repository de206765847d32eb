"""The shape of the two TOML files: which keys there are. What each may hold is said in `config_values.py`, what spans several keys is
checked in `config_files.py`.

A model is lenient about nothing: an unknown key is an error, because a misspelt `exclude` that is silently ignored
copies what it should not. Features that are documented but not built yet are named as such, not as unknown.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, StrictBool, StrictStr

from orchestrator.checkers.models import CheckerModel
from orchestrator.config import CheckerAction
from orchestrator.config_errors import did_you_mean
from orchestrator.config_values import (
    Command,
    Directory,
    Duration,
    HostName,
    Inside,
    Ipv4,
    Listen,
    Model,
    Name,
    Pattern,
    Person,
    Port,
    Restarts,
    RuleName,
    SignalName,
    Value,
    Variable,
    Vip,
    WitnessUrl,
)


class HeartbeatModel(Model):
    interval: Duration = "500ms"
    timeout: Duration = "3s"


class NodeModel(Model):
    name: HostName
    addresses: Annotated[dict[StrictStr, Ipv4], Field(min_length=1)]


class WitnessModel(Model):
    etcd: list[WitnessUrl] = []
    ca: Directory | None = None
    ping: list[Ipv4] = []


class HealthModel(Model):
    listen: Listen


class AccessModel(Model):
    viewer: list[Person] = []
    operator: list[Person] = []
    admin: list[Person] = []


class ClusterModel(Model):
    name: Name
    policy: Literal["availability", "consistency"] = "availability"
    heartbeat: HeartbeatModel = HeartbeatModel()
    node: list[NodeModel]
    witness: WitnessModel = WitnessModel()
    health: HealthModel | None = None
    access: AccessModel = AccessModel()


class ReplicatedModel(Model):
    directory: Directory
    exclude: list[Pattern] = []
    only: list[Pattern] = []
    require: list[Inside] = []


class VipModel(Model):
    address: Vip
    interface: StrictStr | None = None
    source: StrictBool = False
    tcp_reset: StrictBool = True
    check: StrictBool = True


class ServiceModel(Model):
    name: Name | None = None
    unit: StrictStr | None = None
    user: StrictStr | None = None
    start: Command | None = None
    stop: Command | None = None
    stop_signal: SignalName = "SIGTERM"
    stop_timeout: Duration = "30s"
    start_timeout: Duration = "60s"
    ready: Command | None = None
    environment: dict[Variable, Value] = {}
    restart: Literal["all", "alone"] = "all"


class RuleModel(Model):
    name: RuleName
    all: list[StrictStr] = []
    any: list[StrictStr] = []
    action: CheckerAction
    hold: Duration = "0s"
    services: list[StrictStr] = []


class ScriptsModel(Model):
    start_timeout: Duration = "5m"
    stop_timeout: Duration = "60s"
    force_timeout: Duration = "30s"


def _mode(text: str) -> str:
    if text == "farm":
        raise ValueError('this release has no "farm" modules yet; there are "mirror" and "light"')
    if text not in ("mirror", "light"):
        raise ValueError(f'"{text}" is not a mode; there are "mirror" and "light".{did_you_mean(text, ("mirror", "light"))}')
    return text


class ModuleModel(Model):
    mode: Annotated[StrictStr, AfterValidator(_mode)] = "mirror"
    nodes: list[StrictStr] | None = None
    replication_network: StrictStr | None = None
    default_primary: StrictStr = "alone"
    boot: Literal["auto", "on", "off"] = "auto"
    ack: Literal["memory", "disk"] = "memory"
    devices: Literal["allow", "refuse"] = "allow"
    setuid: Literal["allow", "refuse"] = "allow"
    max_restarts: Restarts = "3 per 24h"
    port: Port | None = None
    replicated: list[ReplicatedModel] = []
    vip: list[VipModel] = []
    service: list[ServiceModel] = []
    scripts: ScriptsModel = ScriptsModel()
    rule: list[RuleModel] = []
    checker: list[CheckerModel] = []
