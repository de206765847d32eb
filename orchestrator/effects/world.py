"""All effects of one pair's modules behind the one door that the runner knows (runner.Effects)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import trio

from orchestrator import statefile
from orchestrator.config import ClusterConfig, ModuleConfig
from orchestrator.core import actions as act
from orchestrator.core import events as ev
from orchestrator.core.states import Memory, RfsView
from orchestrator.effects import EffectFailed
from orchestrator.effects.network_news import NetworkNews
from orchestrator.effects.notify import History
from orchestrator.effects.rfs import Rfs
from orchestrator.effects.scripts import Scripts
from orchestrator.effects.services import Services
from orchestrator.effects.vip import Vip
from orchestrator.paths import Paths
from orchestrator.peer import PeerClient, PeerRefused, PeerUnreachable
from rfs import exit_codes
from rfs.keys import KeyStore

ROLE_DEADLINE_S = 30.0
DEMOTE_DEADLINE_S = 90.0  # both sides sync everything first
OUTDATE_DEADLINE_S = 5.0
TELL_DEADLINE_S = 2.0


class World:
    """Carries out what the core orders, module by module."""

    def __init__(
        self,
        cluster: ClusterConfig,
        modules: Mapping[str, ModuleConfig],
        node: str,
        paths: Paths,
        memories: statefile.Memories,
        peer: PeerClient,
        history: History,
        nursery: trio.Nursery,
        keys: KeyStore | None,
        news: NetworkNews,
    ) -> None:
        self.keys, self.news = keys, news
        self.cluster, self.node, self.paths, self.memories, self.peer, self.history = cluster, node, paths, memories, peer, history
        self.nursery = nursery
        self.deliver: Callable[[ev.Event], None] = lambda event: None
        self.pulse: Callable[[], None] = lambda: None
        self.pulses: Callable[[], int] = lambda: 0
        self.say: Callable[[], dict[str, Any]] = dict
        self.state_of: Callable[[str], str] = lambda module: ""
        self.rfs = {name: self._make_rfs(config) for name, config in modules.items()}
        self.vip = {name: self._make_vip(config) for name, config in modules.items()}
        self.services = {name: self._make_services(config) for name, config in modules.items()}
        self.scripts = {name: Scripts(config, node, paths, self._log_of(name)) for name, config in modules.items()}
        self.configs = modules

    # ---- one set of effects per module --------------------------------------------------------------------------------

    def _log_of(self, module: str) -> Callable[[str, str], None]:
        return lambda kind, text: self.history.add(module, kind, text)

    def _make_rfs(self, config: ModuleConfig) -> Rfs:
        name = config.name

        def status(session: int, view: RfsView) -> None:
            self.deliver(ev.RfsStatus(trio.current_time(), name, session, view))

        def gone(session: int, reason: str) -> None:
            rfs = self.rfs[name]
            self.deliver(ev.RfsGone(trio.current_time(), name, session, reason, rfs.has_record(), rfs.holds_files()))

        return Rfs(config, self.cluster, self.node, self.paths, keys=self.keys, status=status, gone=gone, log=self._log_of(name))

    def _make_vip(self, config: ModuleConfig) -> Vip:
        peer = self.cluster.nodes[self.peer.peer]

        def lost(reason: str) -> None:
            self.deliver(ev.AddressLost(trio.current_time(), config.name, reason))

        vip = Vip(config.vips, list(peer.addresses.values()), lost, self._log_of(config.name), self.news)
        self.nursery.start_soon(vip.learn_for_ever)
        return vip

    def _make_services(self, config: ModuleConfig) -> Services:
        def died(service: str, reason: str) -> None:
            self.deliver(ev.ServiceDied(trio.current_time(), config.name, service, reason))

        return Services(config, self.node, self.paths, died, self._log_of(config.name), abandon=self.rfs[config.name].abandon)

    async def find(self, module: str) -> ev.Found:
        """What is there now, when hactld starts."""
        rfs, services = self.rfs[module], self.services[module]
        kept = self.memories.of(module)
        wanted = statefile.wanted_at_start(kept, self.configs[module].boot, self.memories.boot_id) and not self.paths.is_open(module)
        memory = kept.memory if kept is not None else Memory()
        services_run = await services.running()
        entered, announced = self.scripts[module].found()
        return ev.Found(
            trio.current_time(),
            module,
            wanted=wanted,
            has_record=rfs.has_record(),
            holds_files=rfs.holds_files(),
            rfs_runs=await rfs.runs(),
            services_run=services_run,
            address_held=await self.vip[module].held(),
            paused=memory.paused,
            led=memory.led,
            boot=memory.boot,
            unchecked=memory.unchecked,
            entered=entered,
            announced=announced,
        )

    def adopt(self, found: ev.Found) -> None:
        """Watch what runs already; called once the core knows that it does."""
        if found.services_run:
            self.services[found.module].adopt(self.nursery)

    # ---- runner.Effects -----------------------------------------------------------------------------------------------

    async def perform(self, action: act.Ticketed) -> None:
        """Carry it out; EffectFailed says no."""
        name = action.module
        rfs, vip, services = self.rfs[name], self.vip[name], self.services[name]
        match action:
            case act.StartRfs():
                self.nursery.start_soon(services.prepare)
                await rfs.start(self.nursery, action.session, action.role, action.replace_data)
            case act.StopRfs():
                await rfs.stop()
            case act.PromoteRfs():
                parameters = {"force": action.force, "granted": action.granted, "reason": action.reason}
                await rfs.call("promote", parameters, ROLE_DEADLINE_S)
            case act.DemoteRfs():
                await rfs.call("demote", {"alone": action.alone}, DEMOTE_DEADLINE_S)
            case act.RecopyRfs():
                await rfs.call("recopy", {}, ROLE_DEADLINE_S)
            case act.GrantRfs():
                await rfs.call("grant", {"reason": action.reason, "peer_outdated": action.peer_outdated}, ROLE_DEADLINE_S)
            case act.OutdateRfs():
                await rfs.call("outdate", {"reason": action.reason}, OUTDATE_DEADLINE_S)
            case act.FenceRfs():
                await rfs.call("fence", {"reason": action.reason}, ROLE_DEADLINE_S)
            case act.AskPeerPromote():
                await self._ask_peer("promote", {"module": name, "force": action.force}, ROLE_DEADLINE_S + 5.0)
            case act.AskPeerOutdate():
                await self._ask_peer("outdate", {"module": name}, OUTDATE_DEADLINE_S + 2.0)
            case act.VipUp():
                await vip.up(action.granted, action.handed)
                if action.handed or action.granted:
                    self.nursery.start_soon(vip.look_afterwards)
            case act.VipDown():
                await vip.down()
            case act.StartServices():
                await services.start(self.nursery, self.state_of(name))
            case act.StopServices():
                await services.stop(action.kill, self.state_of(name))
            case act.RestartServices():
                await services.restart(action.services, self.nursery, self.state_of(name))
            case act.RunScript():
                await self.scripts[name].run(action)
            case _:
                raise AssertionError(f"nobody performs {type(action).__name__}")

    async def keep_address(self, module: str) -> None:
        """Renew the lifetime of the address."""
        await self.vip[module].keep()

    async def probe_address(self, module: str) -> None:
        """Ask whether a foreign machine has the addresses."""
        await self.vip[module].look_ahead()

    async def refresh_rfs(self, module: str) -> None:
        """Ask rfsmount for its status."""
        await self.rfs[module].refresh()

    def remember(self, module: str, memory: Memory) -> None:
        """From now on; `write_down` makes it durable."""
        self.memories.remember(module, memory)

    async def write_down(self) -> None:
        """Durable when it returns."""
        await self.memories.write_down()

    def notify(self, module: str, kind: str, text: str, inputs: Mapping[str, Any] | None) -> None:
        """A line for people."""
        self.history.add(module, kind, text, inputs=inputs)

    def pulse_now(self) -> None:
        """Send heartbeats at once."""
        self.pulse()

    async def tell_peer(self) -> None:
        """Say over the call channel what the heartbeats say."""
        try:
            await self.peer.call("tell", self.say(), TELL_DEADLINE_S)
        except (PeerUnreachable, PeerRefused) as failure:
            self.history.add("", "peer", f"{failure}; the heartbeats say the same")

    # ---- helpers ------------------------------------------------------------------------------------------------------

    async def _ask_peer(self, method: str, parameters: dict[str, Any], deadline_s: float) -> None:
        try:
            await self.peer.call(method, parameters, deadline_s)
        except PeerUnreachable as failure:
            raise EffectFailed(str(failure)) from failure
        except PeerRefused as refusal:
            raise EffectFailed(f"{self.peer.peer} refused '{method}': {refusal}", refused=refusal.code == exit_codes.REFUSED) from refusal
