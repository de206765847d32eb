"""script/fuzz: what it takes, what it makes of libFuzzer's words, and that nothing is left out of the corpus."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import pytest

from tests.fuzz import main
from tests.fuzz.main import Ended, Fuzzer, Limits
from tests.fuzz.python_driver import TooSlow, chooser

DONE = "INFO: Seed: 77\n#9 DONE cov: 5\nDone 1000 runs in 3 second(s)\n"


def ended(status: int, log: str) -> Ended:
    return Ended(Fuzzer("frames", True), status, log, 2.0, "abc")


def test_every_fuzzer_has_seeds_for_each_of_its_parsers() -> None:
    found = main.fuzzers()
    assert {"frames", "apply", "requests", "peer", "hactld"} <= {fuzzer.name for fuzzer in found}
    for fuzzer in found:
        kept = {path.name for path in fuzzer.corpus.iterdir()}
        assert any(name.startswith("seed-") for name in kept), fuzzer.name
        if not fuzzer.is_native:
            module = importlib.import_module(f"tests.fuzz.fuzz_{fuzzer.name}")
            assert set(module.seeds()) == set(module.PARSERS)
            for place, (parser, seeds) in enumerate((name, module.seeds()[name]) for name in module.PARSERS):
                for name, content in seeds.items():
                    path = fuzzer.corpus / f"seed-{parser} {name}".replace(" ", "-")
                    assert path.read_bytes() == bytes([place]) + content, f"{path}: run tests/fuzz/seeds.py"


def test_the_corpus_is_small() -> None:
    assert sum(path.stat().st_size for path in (main.HERE / "corpus").rglob("*") if path.is_file()) < 1 << 20


@pytest.mark.parametrize(
    "words", [["nobody"], ["--seconds", "0"], ["--seconds", "²"], ["--runs", "-1"], ["--runs", "5", "--replay"], ["--record"], ["--odd"]]
)
def test_what_it_does_not_take(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main.parse(words)
    assert left.value.code == 2 and "script/fuzz" in capsys.readouterr().err


def test_how_long_each_runs() -> None:
    frames, peer = Fuzzer("frames", True), Fuzzer("peer", False)
    assert Limits(main.parse(["--runs", "7"]), 1).of(frames) == ["-runs=7"]
    assert Limits(main.parse([]), 1).of(peer) == ["-max_total_time=20"]
    limits = Limits(main.parse(["--in-all", "60"]), 12)
    assert limits.of(frames) in (["-max_total_time=9"], ["-max_total_time=10"])
    assert limits.of(peer) in (["-max_total_time=6"], ["-max_total_time=7"]), "the time in which Python begins is not its own"


def test_what_is_said() -> None:
    assert main.tell(ended(0, DONE)) == "fuzz: frames: 1000 executions, 500 a second"
    assert main.tell(ended(0, "Executed a in 1 ms\nExecuted b in 0 ms\n")) == "fuzz: frames: 2 inputs replayed"
    assert main.tell(ended(3, "skipped: no tmpfs (x)\n")) == "fuzz: frames: SKIPPED, no tmpfs (x)"
    told = main.tell(ended(77, "#1 INITED\nRunning: corpus/x\na.c:3: FAILED: it is so\n#2 more\n")).splitlines()
    assert told[0] == "a.c:3: FAILED: it is so" and told[1].startswith("fuzz: frames: FAILED; the input is ")


def test_a_parser_that_lets_something_out_or_is_slow_fails() -> None:
    def raises(data: bytes) -> None:
        raise RecursionError

    def turns(data: bytes) -> None:
        for _ in range(10**9):
            if len(str(_)) > 7:
                return

    one = chooser({"fine": lambda data: None, "raises": raises, "turns": turns})
    one(b"")
    one(b"\x00x")
    one(b"\x03x")
    with pytest.raises(RecursionError):
        one(b"\x01x")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tests.fuzz.python_driver.CPU_S_MAX", 0.001)
        with pytest.raises(TooSlow):
            one(b"\x02x")


def test_the_figure_of_the_frame_decoder_is_kept() -> None:
    figure = json.loads(Path(main.RESULTS).read_text())["fuzzers"]["frames"]
    assert figure["executions"] >= 10**8 and figure["found"] == 0 and figure["sanitizers"] == ["address", "undefined"]
