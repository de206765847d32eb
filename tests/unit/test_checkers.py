"""The kinds of checkers that need no other machine, against the real thing: processes, listening sockets, web servers, programs."""

from __future__ import annotations

import datetime
import http.server
import os
import signal
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from orchestrator.checkers import script as checkers_script
from orchestrator.checkers.checker import Checker, Finding
from orchestrator.checkers.http import HttpChecker
from orchestrator.checkers.make import Context, make
from orchestrator.checkers.models import KINDS
from orchestrator.checkers.module import ModuleChecker, OtherModule
from orchestrator.checkers.one_thread import OneThread
from orchestrator.checkers.process import ProcessChecker
from orchestrator.checkers.script import ScriptChecker
from orchestrator.checkers.tcp import TcpChecker
from orchestrator.checkers.watch import SAID_BY_OTHERS
from orchestrator.config import CheckerConfig, load_cluster, load_modules
from orchestrator.effects import commands, processes, scripts
from orchestrator.effects.network_news import NetworkNews
from orchestrator.paths import Paths
from tests.unit.test_config import MODULE, write
from tests.unit.test_config_checkers import built


async def look(checker: Checker, within_s: float = 30) -> Finding:
    with trio.fail_after(within_s):
        return await checker.look()


async def tells_at_once(checker: Checker) -> None:
    with trio.fail_after(30):
        await checker.changed()


async def says_nothing(checker: Checker) -> None:
    """For as long as a few turns of the loop and of the kernel take."""
    with trio.move_on_after(0.05) as waited:
        await checker.changed()
    assert waited.cancelled_caught


# ---- process ----------------------------------------------------------------------------------------------------------------


class Sleepers:
    """Processes of a name that nobody else has."""

    def __init__(self, directory: Path) -> None:
        self.program = directory / f"sleeper{os.getpid()}"
        self.program.symlink_to("/bin/sleep")
        self.name = self.program.name
        self.running: list[subprocess.Popen[bytes]] = []

    def start(self, seconds: str = "1000", **more: object) -> subprocess.Popen[bytes]:
        self.running.append(subprocess.Popen([str(self.program), seconds], **more))  # type: ignore[call-overload]
        return self.running[-1]

    def end(self) -> None:
        for process in self.running:
            process.kill()
            process.wait()


@pytest.fixture
def sleepers(tmp_path: Path) -> Iterator[Sleepers]:
    found = Sleepers(tmp_path)
    yield found
    found.end()


async def test_a_process_that_dies_is_seen_at_once(sleepers: Sleepers) -> None:
    checker = ProcessChecker(process=sleepers.name)
    assert await look(checker) == Finding(False, f'no process "{sleepers.name}" runs')
    await says_nothing(checker)
    process = sleepers.start()
    assert await look(checker) == Finding(True, f'1 process "{sleepers.name}"')
    await says_nothing(checker)
    process.kill()
    await tells_at_once(checker)
    assert not (await look(checker)).up, "a zombie is no process"
    process.wait()
    assert not (await look(checker)).up


async def test_how_many_processes(sleepers: Sleepers) -> None:
    two_to_three = ProcessChecker(process=sleepers.name, at_least=2, at_most=3)
    first = sleepers.start()
    assert await look(two_to_three) == Finding(False, f'1 process "{sleepers.name}", of at least 2')
    for _ in range(2):
        sleepers.start()
        assert (await look(two_to_three)).up
    sleepers.running[-1].kill()
    await says_nothing(two_to_three)  # two are left, and the two oldest are all that matter
    sleepers.start()
    sleepers.start()
    assert await look(two_to_three) == Finding(False, f'4 processes "{sleepers.name}", of at most 3')
    first.kill()
    await tells_at_once(two_to_three)
    none = ProcessChecker(process=sleepers.name, at_least=0, at_most=0)
    assert not (await look(none)).up
    sleepers.end()
    assert await look(none) == Finding(True, f'0 processes "{sleepers.name}"')


async def test_processes_by_expressions_and_user(sleepers: Sleepers) -> None:
    mine = sleepers.start("1234.5")
    for checker, up in (
        (ProcessChecker(name_regex=f"^sleeper{os.getpid()}$"), True),
        (ProcessChecker(name_regex="^leeper"), False),
        (ProcessChecker(process=sleepers.name, argument_regex=r"^1234\.5$"), True),
        (ProcessChecker(process=sleepers.name, argument_regex="sleeper"), False),  # the program is no argument
        (ProcessChecker(process=sleepers.name, user=str(os.getuid())), True),
        (ProcessChecker(process=sleepers.name, user="daemon"), False),
    ):
        assert (await look(checker)).up is up, checker.wanted
    with pytest.raises(OSError, match="there is no user nobody-has-this-name on this node"):
        await look(ProcessChecker(process="x", user="nobody-has-this-name"))
    mine.kill()


async def test_a_long_name_is_whole(tmp_path: Path) -> None:
    """The kernel keeps 15 characters of it."""
    program = tmp_path / "a-name-that-is-rather-long"
    program.symlink_to("/bin/sleep")
    with subprocess.Popen([str(program), "1000"]) as process:  # noqa: ASYNC220 - the moment of a fork
        assert (await look(ProcessChecker(process=program.name))).up
        process.kill()


async def test_what_hangs_takes_one_thread() -> None:
    """Looks that are given up leave the thread to itself; the next wait for its place, and no other thread is taken."""
    free, began, ran = threading.Event(), threading.Event(), list[int]()

    def hang() -> None:
        ran.append(1)
        began.set()
        free.wait(30)

    place = OneThread()
    for _ in range(3):
        with trio.move_on_after(0.05) as given_up:
            await place.run(hang)
        assert given_up.cancelled_caught
    assert began.wait(10) and len(ran) == 1
    free.set()
    with trio.fail_after(30):
        assert await place.run(lambda: "free again") == "free again"


# ---- tcp ----------------------------------------------------------------------------------------------------------------------


async def test_a_port_that_closes() -> None:
    for host, family in (("127.0.0.1", socket.AF_INET), ("[::1]", socket.AF_INET6)):
        listener = socket.create_server((host.strip("[]"), 0), family=family)
        to = f"{host}:{listener.getsockname()[1]}"
        checker = TcpChecker(to)
        assert await look(checker) == Finding(True, f"{to} accepts connections")
        connection, _ = listener.accept()
        assert connection.recv(1) == b"", "nothing is sent"
        connection.close()
        listener.close()
        assert await look(checker) == Finding(False, f"{to} refuses connections")
        await says_nothing(checker)


async def test_a_port_whose_server_does_not_accept_any_more() -> None:
    """It stands still, and its backlog is full: the look has no end of its own."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener:
        to = listener.getsockname()
        waiting = [socket.socket() for _ in range(3)]
        for each in waiting:
            each.setblocking(False)
            each.connect_ex(to)
        with trio.move_on_after(0.3) as given_up:
            await TcpChecker(f"127.0.0.1:{to[1]}").look()
        assert given_up.cancelled_caught
        for each in waiting:
            each.close()


async def test_from_where_a_port_is_tried() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        to = f"127.0.0.1:{listener.getsockname()[1]}"
        assert (await look(TcpChecker(to, source="127.0.0.7"))).up
        assert listener.accept()[1][0] == "127.0.0.7"
        assert await look(TcpChecker(to, source="192.0.2.77")) == Finding(
            False, f"{to} cannot be tried: the source address is not on this node"
        )


async def test_a_name_that_nobody_knows() -> None:
    finding = await look(TcpChecker("no-such-host.invalid:80"), 30)
    assert not finding.up and finding.text.startswith("no-such-host.invalid cannot be resolved: ")
    too_long = await look(TcpChecker(f"{'x' * 64}.example:80"))
    assert not too_long.up and "cannot be resolved" in too_long.text


async def test_a_name_server_that_swallows_questions_takes_no_thread_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    """The service address, the starts of services and what is remembered need trio's threads, which are few."""
    free, asked, real = threading.Event(), list[str](), socket.getaddrinfo

    def swallowed(host: str | bytes, *more: Any, flags: int = 0) -> Any:
        name = host.decode() if isinstance(host, bytes) else host
        if name == "db.example" and not flags & socket.AI_NUMERICHOST:
            asked.append(name)
            free.wait(30)
        return real(host, *more, flags=flags)

    monkeypatch.setattr(socket, "getaddrinfo", swallowed)
    tcp, web = TcpChecker("db.example:5432"), HttpChecker("http://db.example/")
    try:
        for checker in (tcp, web, tcp, web):
            with trio.move_on_after(0.05) as given_up:
                await checker.look()
            assert given_up.cancelled_caught
        assert trio.to_thread.current_default_thread_limiter().borrowed_tokens == 0
        assert asked == ["db.example"] * 2, "one of each checker"
        with socket.create_server(("127.0.0.1", 0)) as listener:
            assert (await look(TcpChecker(f"127.0.0.1:{listener.getsockname()[1]}"))).up, "an address needs nobody"
    finally:
        free.set()


# ---- http ---------------------------------------------------------------------------------------------------------------------


class Web(http.server.BaseHTTPRequestHandler):
    """Says what the path says: /STATUS/TEXT."""

    def do_GET(self) -> None:  # noqa: N802
        _, status, text = self.path.partition("?")[0].split("/", 2)
        if status == "0":
            return
        body = (text if text != "host" else self.headers["Host"]).encode()
        self.send_response(int(status))
        if text != "chunked":
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
            return
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self.wfile.write(b"3\r\nchu\r\n4\r\nnked\r\n0\r\n\r\n")

    def log_message(self, format: str, *arguments: object) -> None:
        """Nothing."""


Web.protocol_version = "HTTP/1.1"


@contextmanager
def serving(context: ssl.SSLContext | None = None) -> Iterator[int]:
    """A web server, on this port."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Web) as server:
        if context is not None:
            server.socket = context.wrap_socket(server.socket, server_side=True)
        server.handle_error = lambda *_: None  # type: ignore[method-assign]
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()


def certificate(directory: Path, name: str, days: int) -> tuple[Path, ssl.SSLContext]:
    """A web server's, signed by itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    end = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=days)
    signed = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(end - datetime.timedelta(days=100))
        .not_valid_after(end)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    where = directory / f"{name}.{days}.pem"
    secret = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    where.write_bytes(signed.public_bytes(serialization.Encoding.PEM) + secret)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(where)
    return where, context


async def test_what_a_web_server_answers() -> None:
    with serving() as port:
        at = f"http://127.0.0.1:{port}"
        for checker, finding in (
            (HttpChecker(f"{at}/200/?deep=1"), Finding(True, f"{at}/200/?deep=1 answers 200")),
            (HttpChecker(f"{at}/302/"), Finding(True, f"{at}/302/ answers 302")),
            (HttpChecker(f"{at}/503/"), Finding(False, f"{at}/503/ answers 503, which is not 2xx, 3xx")),
            (HttpChecker(f"{at}/503/", status=("200", "503")), Finding(True, f"{at}/503/ answers 503")),
            (HttpChecker(f"{at}/200/chunked", text="chunked"), Finding(True, f"{at}/200/chunked answers 200")),
            (HttpChecker(f"{at}/200/no", text="yes"), Finding(False, f'{at}/200/no answers 200, without the text "yes"')),
            (HttpChecker(f"{at}/200/host", text=f"127.0.0.1:{port}"), Finding(True, f"{at}/200/host answers 200")),
            (HttpChecker(f"{at}/200/host", text="shop.example", host="shop.example"), Finding(True, f"{at}/200/host answers 200")),
        ):
            assert await look(checker) == finding
        silent = await look(HttpChecker(f"{at}/0/"))
        assert not silent.up and "answers no HTTP" in silent.text
    assert await look(HttpChecker(f"{at}/200/")) == Finding(False, f"127.0.0.1:{port} refuses connections")


async def test_a_server_that_speaks_something_else() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def greet() -> None:
            for _ in range(2):
                connection, _ = listener.accept()
                with connection:
                    connection.sendall(b"220 mail.example ESMTP\r\n")
                    connection.recv(4096)

        thread = threading.Thread(target=greet)
        thread.start()
        port = listener.getsockname()[1]
        plain = await look(HttpChecker(f"http://127.0.0.1:{port}/"))
        secure = await look(HttpChecker(f"https://127.0.0.1:{port}/"))
        thread.join()
    assert not plain.up and "answers no HTTP" in plain.text
    assert not secure.up and "speaks no TLS" in secure.text


async def test_whose_certificate_is_believed(tmp_path: Path) -> None:
    good, context = certificate(tmp_path, "shop.example", 10)
    with serving(context) as port:
        url = f"https://127.0.0.1:{port}/200/"
        assert await look(HttpChecker(url, host="shop.example", ca=str(good))) == Finding(True, f"{url} answers 200")
        for checker, words in (
            (HttpChecker(url, host="shop.example"), "self-signed certificate"),
            (HttpChecker(url, ca=str(good)), "IP address mismatch"),
            (HttpChecker(url, host="other.example", ca=str(good)), "Hostname mismatch"),
            (HttpChecker(url, ca=str(tmp_path / "missing.pem")), "missing.pem cannot be read: No such file"),
        ):
            finding = await look(checker)
            assert not finding.up and words in finding.text, finding
        assert (await look(HttpChecker(url, verify=False))).up
    old, context = certificate(tmp_path, "shop.example", -1)
    with serving(context) as port:
        finding = await look(HttpChecker(f"https://127.0.0.1:{port}/200/", host="shop.example", ca=str(old)))
        assert not finding.up and finding.text.endswith("its certificate is not believed: certificate has expired")


async def test_certificates_on_a_file_system_that_hangs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Whoever gives up waiting is free at once: hactld is loaded anew only when no look is under way."""
    free, came_back = threading.Event(), threading.Event()

    def hang(**more: object) -> None:
        free.wait(10)
        came_back.set()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        monkeypatch.setattr(ssl, "create_default_context", hang)
        with trio.move_on_after(0.3) as given_up:
            await HttpChecker(f"https://127.0.0.1:{listener.getsockname()[1]}/", ca=str(tmp_path / "ca.pem")).look()
        assert given_up.cancelled_caught and not came_back.is_set()
        assert trio.to_thread.current_default_thread_limiter().borrowed_tokens == 0
        free.set()


# ---- script -------------------------------------------------------------------------------------------------------------------


def script(directory: Path, text: str, *arguments: str, **environment: str) -> ScriptChecker:
    program = directory / "check"
    program.write_text(f"#!/bin/sh\n{text}\n")
    program.chmod(0o755)
    return ScriptChecker(program, environment, directory / "checkers" / "log", arguments)


async def test_a_program_says_up_or_down(tmp_path: Path) -> None:
    assert await look(script(tmp_path, 'echo starting; echo "$1: $WHAT orders wait" ; echo', "shop", WHAT="12")) == Finding(
        True, "shop: 12 orders wait"
    )
    assert await look(script(tmp_path, "echo well >&2; printf 'queue is\\tstuck\\033[0m\\n'; exit 3")) == Finding(False, "queue isstuck[0m")
    silent = script(tmp_path, "exit 4")
    assert await look(silent) == Finding(False, f"{tmp_path}/check ended with exit code 4")
    (tmp_path / "check").chmod(0o644)
    assert await look(silent) == Finding(False, f"{tmp_path}/check cannot be started: not executable")
    (tmp_path / "check").unlink()
    assert await look(silent) == Finding(False, f"{tmp_path}/check cannot be started: there is no such program")
    nobody = ScriptChecker(Path("/bin/true"), {}, tmp_path / "log", user="nobody-has-this-name")
    assert await look(nobody) == Finding(False, "there is no user nobody-has-this-name on this node")


async def test_a_program_that_hangs_is_killed_with_all_that_it_started(tmp_path: Path) -> None:
    hanging = script(tmp_path, f"sleep 1000 & echo $! > {tmp_path}/pids; echo $$ >> {tmp_path}/pids; setsid sleep 1000")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(hanging.look)
        with trio.fail_after(30):
            while not (tmp_path / "pids").exists() or len((tmp_path / "pids").read_text().split()) < 2:
                await trio.sleep(0.01)
        started = [processes.find(int(pid)) for pid in (tmp_path / "pids").read_text().split()]
        nursery.cancel_scope.cancel()
    assert len(started) == 2
    with trio.fail_after(30):
        for process in started:
            if process is not None:
                await processes.wait_dead(process)


async def test_a_program_that_hangs_beyond_sigkill_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in the kernel, for a disk: here nobody sends it the signal. A new window, with a checker of its own, starts no second one."""
    kill = processes.send_signal
    monkeypatch.setattr(processes, "send_signal", lambda process, number: None)
    monkeypatch.setattr(commands, "KILL_PATIENCE_S", 0.05)
    monkeypatch.setattr(checkers_script, "DIES_WITHIN_S", 0.05)
    started = tmp_path / "started"
    hanging = f"[ -e {tmp_path}/well ] && exit 0; echo $$ >> {started}; exec sleep 1000"
    async with trio.open_nursery() as nursery:
        nursery.start_soon(script(tmp_path, hanging).look)
        with trio.fail_after(30):
            while not started.exists() or not started.read_text().endswith("\n"):
                await trio.sleep(0.01)
        nursery.cancel_scope.cancel()
    process = processes.find(int(started.read_text()))
    assert process is not None
    try:
        for checker in (script(tmp_path, hanging), script(tmp_path, hanging)):
            finding = await look(checker)
            assert not finding.up and finding.text.startswith(f"{tmp_path}/check still hangs: {process.pid} (sleep) in state "), finding
        assert started.read_text() == f"{process.pid}\n"
    finally:
        kill(process, signal.SIGKILL)
    (tmp_path / "well").touch()
    with trio.fail_after(30):
        await processes.wait_dead(process)
    assert (await look(script(tmp_path, hanging))).up


async def test_a_program_that_prints_without_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    finding = await look(script(tmp_path, "yes talk | head -c 20000000; echo; echo enough"), 60)
    log = tmp_path / "checkers" / "log"
    assert finding.up and log.stat().st_size <= scripts.LOG_BYTES_MAX, finding
    monkeypatch.setattr(scripts, "LOOK_EVERY_S", 0.001)
    cuts: list[int] = []
    monkeypatch.setattr(scripts, "cut", lambda log: cuts.append(log.stat().st_size))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(script(tmp_path, "exec yes talk").look)
        with trio.fail_after(30):
            while not any(size > scripts.LOG_BYTES_MAX for size in cuts):  # it is looked at while the program runs
                await trio.sleep(0.01)
        nursery.cancel_scope.cancel()


# ---- module -------------------------------------------------------------------------------------------------------------------


async def test_another_module(autojump_clock: trio.testing.MockClock) -> None:
    known: list[OtherModule] = []
    here = ModuleChecker("db", "node1", lambda module: known if module == "db" else [])
    anywhere = ModuleChecker("db", "node1", lambda module: known, node="any", states=("ALONE", "PRIM"))
    there = ModuleChecker("db", "node1", lambda module: known, node="node2", states=("SECOND",))
    assert await here.look() == Finding(False, "nothing is known of db on node1")
    assert await anywhere.look() == Finding(False, "nothing is known of db")
    known[:] = [OtherModule("node1", "PRIM", ready=True, run=1), OtherModule("node2", "SECOND", ready=True)]
    assert await here.look() == Finding(True, "db is PRIM on node1")
    assert await there.look() == Finding(True, "db is SECOND on node2")
    known[:] = [OtherModule("node1", "PRIM", ready=False, run=1), OtherModule("node2", "ALONE", ready=True)]
    assert await here.look() == Finding(False, "db is PRIM (not ready) on node1")
    assert await anywhere.look() == Finding(True, "db is ALONE on node2")
    assert await there.look() == Finding(False, "db is ALONE on node2")


async def test_another_module_that_was_started_anew(autojump_clock: trio.testing.MockClock) -> None:
    known = [OtherModule("node1", "UP", ready=True, run=1)]
    checker = ModuleChecker("db", "node1", lambda module: known)
    relaxed = ModuleChecker("db", "node1", lambda module: known, when_restarted="ignore")
    for each in (checker, relaxed):
        assert (await each.look()).up
    async with trio.open_nursery() as nursery:
        nursery.start_soon(checker.changed)
        await trio.sleep(3)
        assert len(nursery.child_tasks) == 1
        known[0] = OtherModule("node1", "UP", ready=True, run=2)
    assert await checker.look() == Finding(False, "db was started anew")
    assert await checker.look() == Finding(True, "db is UP on node1")
    assert (await relaxed.look()).up
    known[0] = OtherModule("node1", "STOP", ready=False)
    assert not (await checker.look()).up
    known[0] = OtherModule("node1", "UP", ready=True, run=3)
    assert await checker.look() == Finding(False, "db was started anew"), (
        "also when the look before was down: one look more, never one less"
    )
    assert (await checker.look()).up


# ---- making them --------------------------------------------------------------------------------------------------------------


def context(tmp_path: Path) -> Context:
    write(tmp_path, pg=MODULE)
    cluster = load_cluster(tmp_path)
    return Context(cluster, load_modules(tmp_path, cluster)["pg"], "node1", Paths(tmp_path), lambda module: [], NetworkNews())


def test_every_kind_is_made(tmp_path: Path) -> None:
    where = context(tmp_path)
    for kind in (kind for kind in KINDS if kind != SAID_BY_OTHERS):
        checker = make(built(kind), where)
        assert type(checker).__module__ == f"orchestrator.checkers.{kind}"
    with pytest.raises(AssertionError, match="x is no kind of checker"):
        make(CheckerConfig("x", "x", "pre", "none"), where)


def test_what_kinds_get(tmp_path: Path) -> None:
    where = context(tmp_path)
    script = make(built("script", program="check_orders", arguments=["-v"], name="orders"), where)
    assert isinstance(script, ScriptChecker)
    assert script.command == [str(tmp_path / "modules" / "pg" / "check_orders"), "-v"]
    assert (script.environment["LOCKSTEP_CHECKER"], script.environment["LOCKSTEP_MODULE"]) == ("script.orders", "pg")
    assert script.log == tmp_path / "run/lockstep/checkers/pg.script.orders.log"
    everything = vars(make(CheckerConfig("disk", "x", "pre", "none"), where))["directories"]
    assert everything == ("/var/lib/postgresql/15/main", "/srv/pg_wal", str(tmp_path / "var/lib/lockstep"))
    assert vars(make(built("disk", directories=["/srv"]), where))["directories"] == ("/srv",)
    assert vars(make(CheckerConfig("write", "x", "prim", "none"), where))["directories"] == where.directories
    automatic = vars(make(CheckerConfig("interface", "x", "pre", "wait", options={"address": "192.0.2.100"}), where))
    assert str(automatic["service"]) == "192.0.2.100/24"
    assert str(vars(make(built("interface", network="repl"), where))["own"]) == "198.51.100.11"
    assert [str(peer) for peer in vars(make(built("ip"), where))["peers"]] == ["192.0.2.12", "198.51.100.12"]
    assert vars(make(built("ping", timeout="2s"), where))["patience_s"] == 1.8
