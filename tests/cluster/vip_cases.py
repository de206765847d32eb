"""What test_vip.py runs in network namespaces: `python -m tests.cluster.vip_cases CASE`. Each case is a machine's whole life."""

from __future__ import annotations

import errno
import re
import socket
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from pathlib import Path

import trio

from orchestrator.config import VipConfig
from orchestrator.effects import EffectFailed, links
from orchestrator.effects.vip import Vip
from tests.cluster.netns import Outside, ip, mac_of, outside

FOUR, SIX = "10.9.0.100/24", "fd77::100/64"
LISTEN = """
import socket
listener = socket.create_server(("::", 7000), family=socket.AF_INET6, dualstack_ipv6=True)
print("listening")
while True:
    print(listener.accept()[1][0].removeprefix("::ffff:"))
"""
CLIENT = """
import socket, time
s = socket.create_connection(("HOST", PORT), 5)
s.settimeout(5)
s.sendall(b"hello")
assert s.recv(5) == b"hello"
print("connected")
try:
    print("end of file" if s.recv(1) == b"" else "data")
except ConnectionResetError:
    print("reset", time.monotonic())
except TimeoutError:
    print("nothing")
"""


class Machine:
    """This node's module, and what it said."""

    def __init__(self, *configs: VipConfig) -> None:
        self.lost: list[str] = []
        self.log: list[str] = []
        self.vip = Vip(configs, ["10.9.0.2"], self.lost.append, lambda kind, text: self.log.append(text))

    async def renew(self) -> None:
        """Now."""
        self.vip._renewed_at = float("-inf")
        await self.vip.keep()

    async def refused(self, granted: bool = False) -> str:
        """Why the addresses are not taken; none of them may be left behind then."""
        before = shown(ip("addr"))
        try:
            await self.vip.up(granted)
        except EffectFailed as failure:
            assert set(shown(ip("addr"))) <= set(before), "something was left behind"
            return str(failure)
        raise AssertionError("they were taken")


def shown(addresses: str) -> list[str]:
    """A listing without what changes by itself."""
    return re.findall(r"inet6? (\S+)", addresses)


def stable(routes: str) -> str:
    return re.sub(r" expires \d+sec", "", routes)


async def until(true: Callable[[], bool], timeout_s: float = 10) -> None:
    with trio.fail_after(timeout_s):
        while not true():
            await trio.sleep(0.02)


async def the_whole_life(other: Outside) -> None:
    machine = Machine(VipConfig(FOUR), VipConfig(SIX))
    vip = machine.vip
    before = ip("-6 route"), ip("route")
    assert not await vip.held()
    await vip.down()
    await vip.up(granted=False)
    listing = ip("addr show left")
    assert {FOUR, SIX} < set(shown(listing)) and listing.count("valid_lft 1") == 2, listing
    assert "tentative" not in "".join(line for line in listing.splitlines() if SIX in line), "it works from the first moment"
    assert all("noprefixroute" in line for line in listing.splitlines() if SIX in line), "the subnet's route is the node's own"
    assert "src fd77::1 " in ip("-6 route get fd77::180"), "an alias is never the source, though it is nearer"
    assert await vip.held() and await Machine(VipConfig(FOUR), VipConfig(SIX)).vip.held()
    await vip.up(granted=False)
    await machine.renew()
    await machine.renew()
    assert machine.lost == [] and (ip("-6 route"), ip("route")) == before, "the node's own routes got no lifetime"
    ip("addr del", SIX, "dev left")
    await machine.renew()
    assert machine.lost == ["the service address fd77::100 is gone from this machine"]
    await vip.down()
    await vip.down()
    assert not {FOUR, SIX} & set(shown(ip("addr"))) and (ip("-6 route"), ip("route")) == before


async def lifetimes_end(other: Outside) -> None:
    """hactld is dead: nobody renews."""
    links.LIFETIME_S = 2
    machine = Machine(VipConfig(FOUR, source=True), VipConfig(SIX, source=True))
    ip("route add default via 10.9.0.254 dev left")
    ip("-6 route add default via fd77::fe dev left")
    before = ip("-6 route"), ip("route")
    await machine.vip.up(granted=False)
    assert (ip("-6 route"), ip("route")) != before
    await until(lambda: not {FOUR, SIX} & set(shown(ip("addr"))))
    await until(lambda: ip("route") == before[1])
    # An IPv6 route that has expired counts no more, but is listed until the kernel sweeps.
    await until(lambda: "src fd77::1 " in ip("-6 route get 2001:db8::1") and "metric 1024" in ip("-6 route get 2001:db8::1"))
    assert "src fd77::1 " in ip("-6 route get fd77::5")


async def who_else_has_it(other: Outside) -> None:
    mac = mac_of(other.ip("link show right"))
    for taken in (FOUR, SIX):
        machine = Machine(VipConfig(FOUR), VipConfig(SIX))
        prefix = "/32" if taken == FOUR else "/128"
        other.ip("addr add", taken.partition("/")[0] + prefix, "dev right", "" if taken == FOUR else "nodad")
        for granted in (False, True):
            refusal = await machine.refused(granted)
            assert "in use by another machine" in refusal and mac.hex(":") in refusal and taken.partition("/")[0] in refusal
        machine.vip.peer_macs.add(mac)  # it is the peer
        await machine.refused(granted=False)
        await machine.vip.up(granted=True)
        assert {FOUR, SIX} < set(shown(ip("addr show left")))
        await machine.vip.down()
        other.ip("addr del", taken.partition("/")[0] + prefix, "dev right")


async def the_peer_is_known_by_heart(other: Outside) -> None:
    """Its hardware address is learnt from its node address, and counts for both families."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.sendto(b"heartbeat", ("10.9.0.2", 5599))
    machine = Machine(VipConfig(FOUR), VipConfig(SIX))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(machine.vip.learn_for_ever)
        await until(lambda: machine.vip.peer_macs == {mac_of(other.ip("link show right"))})
        nursery.cancel_scope.cancel()
    other.ip("addr add fd77::100/128 dev right nodad")
    assert "in use" in await machine.refused(granted=False)
    await machine.vip.up(granted=True)


async def the_neighbours_believe_it(other: Outside) -> None:
    """They have the old primary's hardware address in their tables, and packets go to the new one at once."""
    for address in ("10.9.0.100", "fd77::100"):
        other.ip(f"neigh replace {address} lladdr 02:00:00:00:00:99 dev right nud reachable")
    machine = Machine(VipConfig(FOUR), VipConfig(SIX))
    await machine.vip.up(granted=False)
    mine = mac_of(ip("link show left")).hex(":")
    for address in ("10.9.0.100", "fd77::100"):
        await until(lambda address=address: mine in other.ip(f"neigh show {address}"), 1)  # type: ignore[misc]


async def several_cost_the_time_of_one(other: Outside) -> None:
    other.cable("left2", "right2", "10.8.0", "fd78")
    machine = Machine(VipConfig(FOUR), VipConfig(SIX), VipConfig("10.8.0.100/24"), VipConfig("fd78::100/64"))
    began = time.monotonic()
    await machine.vip.up(granted=False)
    took_s = time.monotonic() - began
    assert {FOUR, SIX} < set(shown(ip("addr show left"))) and {"10.8.0.100/24", "fd78::100/64"} < set(shown(ip("addr show left2")))
    assert took_s < 0.45, took_s  # 0.2 s on an idle machine; one after the other would be 0.6 s and more
    other.ip("addr add fd78::100/128 dev right2 nodad")
    await machine.vip.down()
    assert "fd78::100" in await machine.refused()


async def which_interface(other: Outside) -> None:
    other.cable("left2", "right2", "10.8.0", "fd78")
    for address, name in (("10.8.0.100/24", "left2"), ("fd78::100/64", "left2"), ("10.9.0.100/24", "left"), ("fd77::100/64", "left")):
        by_subnet = Machine(VipConfig(address)).vip
        await by_subnet.up(granted=False)
        assert address in shown(ip("addr show", name))
        await by_subnet.down()
        elsewhere = "left" if name == "left2" else "left2"
        by_name = Machine(VipConfig(address, interface=elsewhere)).vip
        await by_name.up(granted=False)
        assert address in shown(ip("addr show", elsewhere)) and address not in shown(ip("addr show", name))
        await by_name.down()
        assert address not in shown(ip("addr"))
    for address in ("10.10.0.1/24", "fd79::1/64"):
        refusal = await Machine(VipConfig(address)).refused()
        assert "no interface of this node has an address in" in refusal and "name one with 'interface'" in refusal
        named = Machine(VipConfig(address, interface="left")).vip
        await named.up(granted=False)
        network = address.replace("1/", "0/").replace("fd79::0", "fd79::")
        assert f"{network} dev left" in ip("-6 route" if ":" in address else "route"), "its subnet can be reached"
        await named.down()
        left_over = [line for line in ip("-6 route" if ":" in address else "route").splitlines() if line.startswith(network)]
        assert all("expires" in line for line in left_over), left_over  # IPv6: it ends by itself, with the address's lifetime
    assert "there is no interface eth9" in await Machine(VipConfig(SIX, interface="eth9")).refused()
    ip("tuntap add dev tunnel mode tun")
    assert "tunnel is no Ethernet" in await Machine(VipConfig(FOUR, interface="tunnel")).refused()


def switch_ipv6(off: bool) -> None:
    Path("/proc/sys/net/ipv6/conf/left/disable_ipv6").write_text("1" if off else "0")


async def one_of_them_is_refused(other: Outside) -> None:
    """All or none."""
    machine = Machine(VipConfig(FOUR, source=True), VipConfig(SIX, interface="left"))
    routes = ip("route")
    hold = links.hold_address

    def then_shrink(interface: links.Interface, address: links.Address, as_source: bool) -> None:
        hold(interface, address, as_source)
        ip("link set left mtu 1200")  # too small for IPv6, which is gone then

    links.hold_address = then_shrink
    assert "the kernel refuses it" in await machine.refused(), "the second one, when the first was there already"
    links.hold_address = hold
    assert ip("route") == routes
    assert "no IPv6 on left" in await machine.refused()
    ip("link set left mtu 1500")
    switch_ipv6(off=True)
    machine = Machine(VipConfig(FOUR), VipConfig(SIX, interface="left"))
    refusal = await machine.refused()
    assert refusal == (
        f"service address {SIX}: IPv6 is switched off on left; set net.ipv6.conf.left.disable_ipv6 to 0, or remove the address"
    )
    switch_ipv6(off=False)
    await machine.vip.up(granted=False)
    switch_ipv6(off=True)
    await machine.renew()
    assert machine.lost == ["the service address fd77::100 is gone from this machine"]
    await machine.vip.down()
    assert FOUR not in shown(ip("addr"))


async def what_the_outside_sees(other: Outside) -> None:
    other.ip("addr add 192.0.2.1/32 dev lo")  # hosts behind gateways
    other.ip("addr add 2001:db8::1/128 dev lo nodad")
    other.cable("left2", "right2", "10.8.0", "fd78")
    ip("route add default via 10.9.0.2 dev left mtu 1400")
    ip("-6 route add default via fd77::2 dev left")
    before = stable(ip("-6 route")), ip("route")
    everywhere = ("10.9.0.2", "fd77::2", "192.0.2.1", "2001:db8::1", "10.8.0.2", "fd78::2")
    machine = Machine(VipConfig(FOUR, source=True), VipConfig(SIX, source=True))
    with other.python(LISTEN) as listener:
        assert listener.stdout is not None and listener.stdout.readline() == "listening\n"

        def seen() -> list[str]:
            found = []
            for host in everywhere:
                with socket.create_connection((host, 7000), 5):
                    assert listener.stdout is not None
                    found.append(listener.stdout.readline().strip())
            return found

        own, service = ["10.9.0.1", "fd77::1"] * 2 + ["10.8.0.1", "fd78::1"], ["10.9.0.100", "fd77::100"] * 2 + ["10.8.0.1", "fd78::1"]
        assert seen() == own
        await machine.vip.up(granted=False)
        assert seen() == service, "over the other interface nothing has changed"
        assert "mtu 1400" in ip("route get 192.0.2.1"), "what the node's route says counts still"
        with socket.create_connection(("10.9.0.2", 7000), 5, source_address=("10.9.0.1", 0)):
            assert listener.stdout.readline() == "10.9.0.1\n", "who names a source keeps it"
        ip("addr del", SIX, "dev left")  # which leaves the routes in front, without their source
        await machine.renew()
        assert machine.lost
        await machine.vip.up(granted=False)
        assert seen() == service
        restarted = Machine(VipConfig(FOUR, source=True), VipConfig(SIX, source=True))
        assert await restarted.vip.held()
        await restarted.renew()
        assert seen() == service

        ip("route replace default via 10.8.0.2 dev left2")  # the gateway is another one: as an administrator would write it
        ip("-6 route replace default via fd78::2 dev left2")
        await restarted.renew()
        assert seen()[2:4] == ["10.8.0.1", "fd78::1"], "which way packets go is not ours to change"
        ip("route flush exact 0.0.0.0/0")
        ip("-6 route flush exact ::/0")
        ip("route add default via 10.9.0.2 dev left mtu 1400")
        ip("-6 route add default via fd77::2 dev left")
        ip("link set left down")
        ip("link set left up")  # which loses all routes of the interface but the kernel's, and all IPv6 addresses
        for words in ("route add default via 10.9.0.2 dev left mtu 1400", "-6 addr add fd77::1/64 dev left nodad"):
            ip(words)
        ip("-6 route replace default via fd77::2 dev left")
        await restarted.renew()
        assert restarted.lost, "a link that was down has lost its IPv6 addresses"
        await restarted.vip.up(granted=False)
        assert seen() == service
        await restarted.vip.down()
        assert seen() == own
        after = stable(ip("-6 route")), ip("route")
        assert [sorted(routes.splitlines()) for routes in after] == [sorted(routes.splitlines()) for routes in before], (before, after)


async def echo(listener: trio.SocketListener) -> None:
    async def serve(stream: trio.SocketStream) -> None:
        await stream.send_all(await stream.receive_some(5))
        await trio.sleep_forever()  # and says no more: the connection lingers

    await trio.serve_listeners(serve, [listener])


async def hanging_connections(other: Outside) -> None:
    machine = Machine(VipConfig(FOUR), VipConfig(SIX))
    await machine.vip.up(granted=False)
    bound = socket.create_server(("10.9.0.100", 0))
    async with trio.open_nursery() as nursery:
        ports: dict[str, int] = {}
        for name, host in (("plain", "0.0.0.0"), ("both", "::")):
            sock = trio.socket.socket(socket.AF_INET6 if host == "::" else socket.AF_INET)
            await sock.bind((host, 0))
            sock.listen(600)
            ports[name] = sock.getsockname()[1]
            nursery.start_soon(echo, trio.SocketListener(sock))
        places = [("10.9.0.100", ports["plain"]), ("10.9.0.100", ports["both"]), ("fd77::100", ports["both"])]
        await clients_hear(other, machine, places, "reset")
        assert machine.log[-3:][0] == "3 open connections broken", machine.log
        await machine.vip.up(granted=False)  # the listeners have survived
        await clients_hear(other, machine, [("10.9.0.100", ports["plain"]), ("fd77::100", ports["both"])], "reset")
        await machine.vip.up(granted=False)
        with other.python(CLIENT.replace("HOST", "10.9.0.100").replace("PORT", str(bound.getsockname()[1]))):
            await trio.to_thread.run_sync(bound.accept)  # one that is bound to the very address, too
        await machine.vip.up(granted=False)
        await clients_hear(other, machine, [("10.9.0.1", ports["plain"]), ("fd77::1", ports["both"])], "alive")
        spared = Machine(VipConfig(FOUR, tcp_reset=False), VipConfig(SIX))
        await spared.vip.up(granted=False)
        await clients_hear(other, spared, [("10.9.0.100", ports["plain"])], "alive")
        nursery.cancel_scope.cancel()


async def clients_hear(other: Outside, machine: Machine, places: list[tuple[str, int]], what: str) -> None:
    """Connect from outside, give the addresses back, and see what the clients hear of it, and how soon."""
    with ExitStack() as stack:
        clients = [stack.enter_context(other.python(CLIENT.replace("HOST", host).replace("PORT", str(port)))) for host, port in places]
        for client in clients:
            assert client.stdout is not None
            assert (await trio.to_thread.run_sync(client.stdout.readline)) == "connected\n"
        began = time.monotonic()
        await machine.vip.down()
        took_s = time.monotonic() - began
        assert took_s < 0.3, took_s
        if what == "alive":
            with trio.move_on_after(0.5):
                await trio.to_thread.run_sync(clients[0].wait, abandon_on_cancel=True)
            assert all(client.poll() is None for client in clients)
            return
        for client in clients:
            assert client.stdout is not None
            word, *when = (await trio.to_thread.run_sync(client.stdout.readline)).split()
            assert word == what and float(when[0]) - began < 0.5, (word, when, began)


async def very_many_connections(other: Outside) -> None:
    """The release is not held up by them."""
    machine = Machine(VipConfig(FOUR))
    await machine.vip.up(granted=False)
    listener = socket.create_server(("10.9.0.100", 7000), backlog=2000)
    many = 1000
    script = f"""
import resource, socket
resource.setrlimit(resource.RLIMIT_NOFILE, (4096, 4096))
kept = [socket.create_connection(("10.9.0.100", 7000)) for _ in range({many})]
print("connected")
reset = 0
for s in kept:
    s.settimeout(5)
    try:
        s.recv(1)
    except ConnectionResetError:
        reset += 1
print(reset)
"""
    with other.python(script) as client:
        assert client.stdout is not None
        accepted = [await trio.to_thread.run_sync(listener.accept) for _ in range(many)]
        assert client.stdout.readline() == "connected\n"
        began = time.monotonic()
        await machine.vip.down()
        took_s = time.monotonic() - began
        assert took_s < 0.5 and FOUR not in shown(ip("addr")), took_s
        assert int(client.stdout.readline()) == many
        for conn, _ in accepted:
            try:
                assert conn.recv(1) == b""
            except OSError as error:
                assert error.errno == errno.ECONNABORTED
            conn.close()
    listener.close()


CASES: dict[str, Callable[[Outside], Awaitable[None]]] = {
    case.__name__: case
    for case in (
        the_whole_life, lifetimes_end, who_else_has_it, the_peer_is_known_by_heart, the_neighbours_believe_it,
        several_cost_the_time_of_one, which_interface, one_of_them_is_refused, what_the_outside_sees, hanging_connections,
        very_many_connections,
    )
}  # fmt: skip

if __name__ == "__main__":
    with outside() as elsewhere:
        trio.run(CASES[sys.argv[1]], elsewhere)
