"""What of the running node counts when its configuration is to change (config_keeper.Facts): of the pairs, the keys and the network."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Mapping, Sequence

import trio

from orchestrator.config import ReplicatedConfig, VipConfig
from orchestrator.config_documents import Documents
from orchestrator.core.states import State
from orchestrator.effects import EffectFailed, links, vip, wire
from orchestrator.effects.rfs import Rfs, added_directories
from orchestrator.runner import Runner
from orchestrator.topology import peers_of
from rfs.control.client import ControlLost
from rfs.errors import SaidNo

CHECK_DEADLINE_S = 10.0


class RunningFacts:
    """Of a hactld that serves; before it does, `runners` is empty: then nothing runs."""

    def __init__(
        self, node: str, runners: Mapping[str, Runner], copies: Mapping[str, Rfs], check_keys: Callable[[Sequence[str]], None]
    ) -> None:
        self.node, self.runners, self.copies, self.check_keys = node, runners, copies, check_keys

    def why_not_stopped(self, module: str) -> str:
        """What it is instead; empty: nothing of it runs here."""
        runner = self.runners.get(module)
        if runner is None:
            return ""
        found = runner.node.modules[module]
        state = found.shown[0]
        if not found.found:
            return "not known yet"
        if state is State.STOP and not found.holds and not found.wanted:
            return ""
        return state.value if state is not State.STOP else "about to start" if found.wanted else "still stopping"

    async def why_not_addresses(self, vips: Sequence[VipConfig]) -> list[str]:
        """What stands against taking these service addresses here: no interface for one, or somebody who answers for it."""
        configs = {ipaddress.ip_interface(config.address): config for config in vips}
        try:
            interfaces = await trio.to_thread.run_sync(links.read_interfaces)
            places = [(address, links.choose_interface(interfaces, address, config.interface)) for address, config in configs.items()]
            for address, interface in places:
                links.check_usable(interface, address)
            answers = await wire.probe_all(places)
        except EffectFailed as failure:
            return [f"{failure} (on {self.node})"]
        except OSError as error:
            return [f"service address: {error.strerror or error} (on {self.node})"]
        foreign = {address: macs for address, macs in answers.items() if macs}
        return [vip.in_use(foreign)] if foreign else []

    async def why_not_directories(self, module: str, added: Sequence[ReplicatedConfig]) -> str:
        """What stands against mirroring these as well: what rfsmount says that has the others. Where none runs, the next start says it."""
        copy = self.copies.get(module)
        if copy is None or not self.why_not_stopped(module):
            return ""
        try:
            with trio.fail_after(CHECK_DEADLINE_S):
                await copy.ask("add_directories", {**added_directories(added), "check": True})
        except (SaidNo, ControlLost) as refusal:
            return str(refusal)
        except trio.TooSlowError:
            return f"rfsmount does not say in {CHECK_DEADLINE_S:.0f} s whether the directory could be added"
        return ""

    def why_not_node(self, documents: Documents) -> str:
        """Could hactld run with that on this node?"""
        try:
            self.check_keys(peers_of(documents.config, documents.configs, self.node))
        except SaidNo as refusal:
            return refusal.sentence
        return ""

    def is_busy(self) -> bool:
        """Is a script, a start, a promotion under way, or a swap that has several of them?"""
        modules = [runner.node.modules[name] for name, runner in self.runners.items()]
        moving = any(module.swapping or module.cycling or module.restarting for module in modules)
        return moving or any(runner.is_busy for runner in self.runners.values())
