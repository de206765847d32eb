"""script/fuzz: everything that reads bytes somebody else wrote, under any bytes. May be run at any time.

  script/fuzz [--seconds N] [NAME...]      each fuzzer for N seconds (default 20), two at a time
  script/fuzz --in-all N [NAME...]         all of them in about N seconds
  script/fuzz --runs N [--record] [NAME...]   each for N executions; --record: the figures go into bench/results/fuzz.json
  script/fuzz --replay [NAME...]           only the inputs of tests/fuzz/corpus
  script/fuzz --keep [NAME...]             adds what was learned and reaches more to tests/fuzz/corpus

Names are those of tests/fuzz/fuzz_*.c (the engine, by clang's libFuzzer under ASan and UBSan) and fuzz_*.py (by atheris). What is found
lies in csrc/build/fuzz/found; what was learned is kept beside it, and goes on the next time.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tests.fuzz.place import GIVEN, IN_MEMORY

ROOT = Path(__file__).resolve().parents[2]
HERE = ROOT / "tests" / "fuzz"
BUILT = ROOT / "csrc" / "build" / "fuzz"
RESULTS = ROOT / "bench" / "results" / "fuzz.json"
AT_A_TIME = 2
STARTING_S = 3.0  # of Python, whose modules are instrumented first
CANNOT = 3  # the exit code of a fuzzer that cannot run here; it says why
KEPT_BYTES_MAX = 2048  # of an input that is kept: what reaches more and is larger is found again
SANITIZERS = {
    # A small quarantine: what is freed is used at once or never, and pages that are new each time cost more than the rest.
    "ASAN_OPTIONS": "detect_leaks=1:allocator_may_return_null=1:quarantine_size_mb=16:malloc_context_size=12",
    "UBSAN_OPTIONS": "print_stacktrace=1",
}


@dataclass(frozen=True, slots=True)
class Fuzzer:
    """One file tests/fuzz/fuzz_NAME.c or .py."""

    name: str
    is_native: bool

    @property
    def command(self) -> list[str]:
        """What takes libFuzzer's options."""
        return [str(BUILT / self.name)] if self.is_native else [sys.executable, "-m", "tests.fuzz.python_driver", self.name]

    @property
    def corpus(self) -> Path:
        """What is kept."""
        return HERE / "corpus" / self.name

    @property
    def kept(self) -> int:
        """How many inputs."""
        return len(os.listdir(self.corpus)) if self.corpus.is_dir() else 0

    @property
    def learned(self) -> Path:
        """What earlier runs here found worth keeping."""
        return BUILT / "learned" / self.name


@dataclass(frozen=True, slots=True)
class Ended:
    """A fuzzer's run."""

    fuzzer: Fuzzer
    status: int
    log: str
    seconds: float
    commit: str  # when it began

    @property
    def executions(self) -> int:
        """As libFuzzer counts them: calls of the decoder on an input."""
        found = re.search(r"Done (\d+) (?:runs )?in", self.log) or re.search(r"number_of_executed_units: *(\d+)", self.log)
        return int(found[1]) if found else 0

    @property
    def seed(self) -> int:
        """Of libFuzzer's choices."""
        found = re.search(r"INFO: Seed: (\d+)", self.log)
        return int(found[1]) if found else 0


def fuzzers() -> list[Fuzzer]:
    """All there are."""
    files = sorted(HERE.glob("fuzz_*.[cp]*"))
    return [Fuzzer(path.stem.removeprefix("fuzz_"), path.suffix == ".c") for path in files if path.suffix in (".c", ".py")]


# ---- one fuzzer -----------------------------------------------------------------------------------------------------------------


def run(fuzzer: Fuzzer, options: list[str]) -> Ended:
    """With libFuzzer's options; its output is kept beside it."""
    (BUILT / "found").mkdir(parents=True, exist_ok=True)
    fuzzer.learned.mkdir(parents=True, exist_ok=True)
    fuzzer.corpus.mkdir(parents=True, exist_ok=True)
    for old in (BUILT / "found").glob(f"{fuzzer.name}-*"):
        old.unlink()
    fixed = ["-timeout=10", "-rss_limit_mb=1024", "-max_len=4096", "-print_final_stats=1", f"-artifact_prefix={BUILT}/found/{fuzzer.name}-"]
    began, commit = time.monotonic(), output_of("git", "describe", "--always", "--dirty", "--abbrev=10")
    log = BUILT / f"{fuzzer.name}.log"
    with log.open("wb") as file, tempfile.TemporaryDirectory(dir=IN_MEMORY if IN_MEMORY.is_dir() else None) as place:
        words, around = [*fuzzer.command, *fixed, *options], {**os.environ, **SANITIZERS, GIVEN: place}
        done = subprocess.run(words, stdout=file, stderr=subprocess.STDOUT, env=around, cwd=ROOT, check=False)
    return Ended(fuzzer, done.returncode, log.read_text(errors="replace"), time.monotonic() - began, commit)


def fuzz(fuzzer: Fuzzer, limit: list[str]) -> Ended:
    """From what is kept and was learned."""
    return run(fuzzer, [*limit, f"-dict={HERE / 'dictionary'}", str(fuzzer.learned), str(fuzzer.corpus)])


def replay(fuzzer: Fuzzer) -> Ended:
    """What is kept, once."""
    return run(fuzzer, [str(path) for path in sorted(fuzzer.corpus.iterdir())] if fuzzer.corpus.is_dir() else [])


def keep(fuzzer: Fuzzer) -> tuple[int, str]:
    """Adds to the corpus what was learned, is small, and reaches what the corpus does not; the exit code, and what is said of it."""
    with tempfile.TemporaryDirectory() as merged, tempfile.TemporaryDirectory() as small:
        for path in fuzzer.learned.iterdir():
            if path.stat().st_size <= KEPT_BYTES_MAX:
                (Path(small) / path.name).write_bytes(path.read_bytes())
        known = {path.read_bytes() for path in fuzzer.corpus.iterdir()}
        for content in known:
            (Path(merged) / f"{len(os.listdir(merged))}").write_bytes(content)
        ended = run(fuzzer, ["-set_cover_merge=1", merged, small])
        if ended.status:
            return ended.status, tell(ended)
        new = [path for path in Path(merged).iterdir() if path.read_bytes() not in known]
        for path in new:
            (fuzzer.corpus / f"learned-{path.name[:16]}").write_bytes(path.read_bytes())
        return 0, f"fuzz: {fuzzer.name}: {len(new)} inputs more are kept, {sum(path.stat().st_size for path in new)} bytes"


# ---- what is said of it ---------------------------------------------------------------------------------------------------------


def tell(ended: Ended) -> str:
    """One line, or the reason and what to do."""
    name = ended.fuzzer.name
    if ended.status == CANNOT:
        found = re.search(r"^skipped: (.*)", ended.log, re.MULTILINE)
        return f"fuzz: {name}: SKIPPED, {found[1] if found else 'it does not say why'}"
    if ended.status:
        return "\n".join([*reason(ended.log), *where(ended)])
    if replayed := len(re.findall(r"^Executed", ended.log, re.MULTILINE)):
        return f"fuzz: {name}: {replayed} inputs replayed"
    return f"fuzz: {name}: {ended.executions} executions, {round(ended.executions / max(ended.seconds, 0.1))} a second"


def reason(log: str) -> Iterator[str]:
    """The part of a log that says what was wrong."""
    lines = [line for line in log.splitlines() if not line.startswith("#")]
    starts = [
        at for at, line in enumerate(lines) if re.search(r"FAILED: |runtime error: |ERROR: |Uncaught Python exception|Traceback", line)
    ]
    yield from lines[starts[0] :][:40] if starts else lines[-10:]


def where(ended: Ended) -> Iterator[str]:
    """The input, and where it belongs."""
    name = ended.fuzzer.name
    found = sorted((BUILT / "found").glob(f"{name}-*"), key=lambda path: path.stat().st_mtime)
    replayed = re.findall(r"^Running: (.*)", ended.log, re.MULTILINE)  # such an input is there already
    path = str(found[-1]) if found else replayed[-1] if replayed else "(none)"
    yield f"fuzz: {name}: FAILED; the input is {path}"
    yield f"fuzz: replay it with: (cd '{ROOT}' && {' '.join(ended.fuzzer.command)} '{path}')"
    yield f"fuzz: once it is fixed it belongs into tests/fuzz/corpus/{name}/, as regression-WHAT-IT-WAS"


def record(ended: Ended) -> None:
    """Into bench/results/fuzz.json, in place of what was there of this fuzzer."""
    document = json.loads(RESULTS.read_text()) if RESULTS.exists() else {"schema": "lockstep.bench.fuzz/1", "fuzzers": {}}
    document["fuzzers"][ended.fuzzer.name] = {
        "executions": ended.executions,
        "seconds": round(ended.seconds),
        "executions_per_s": round(ended.executions / ended.seconds),
        "seed": ended.seed,
        "found": 0,
        "sanitizers": ["address", "undefined"] if ended.fuzzer.is_native else [],
        "edges_covered": max((int(count) for count in re.findall(r" cov: (\d+)", ended.log)), default=0),
        "commit": ended.commit,
        "compiler": output_of("clang", "--version").partition("\n")[0] if ended.fuzzer.is_native else f"Python {platform.python_version()}",
        "ended": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "command": f"script/fuzz --runs {ended.executions} --record {ended.fuzzer.name}",
    }
    RESULTS.write_text(json.dumps(document, indent=2, sort_keys=True) + "\n")


def output_of(*command: str) -> str:
    """What a program says."""
    return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd=ROOT, text=True, check=False).stdout.strip()


# ---- all of them ----------------------------------------------------------------------------------------------------------------


def parse(arguments: list[str]) -> argparse.Namespace:
    """The command line; exits with 2 and a sentence."""
    parser = argparse.ArgumentParser(
        prog="script/fuzz", usage="script/fuzz [--seconds N | --in-all N | --runs N | --replay | --keep] [NAME...]"
    )
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--seconds", type=whole, default=20)
    how.add_argument("--in-all", type=whole)
    how.add_argument("--runs", type=whole)
    how.add_argument("--replay", action="store_true")
    how.add_argument("--keep", action="store_true")
    parser.add_argument("--record", action="store_true")
    parser.add_argument("names", nargs="*", metavar="NAME")
    given = parser.parse_args(arguments)
    known = {fuzzer.name: fuzzer for fuzzer in fuzzers()}
    for name in given.names:
        if name not in known:
            parser.error(f'there is no fuzzer "{name}"; there are {" ".join(known)}.')
    if given.record and given.runs is None:
        parser.error("--record is of --runs N.")
    given.fuzzers = [known[name] for name in given.names] or list(known.values())
    return given


def whole(text: str) -> int:
    """A number that libFuzzer takes, where 0 and -1 mean for ever."""
    if not text.isascii() or not text.isdigit() or not 0 < int(text) < 1 << 31:
        raise argparse.ArgumentTypeError(f'a whole number from 1 on, not "{text}".')
    return int(text)


class Limits:
    """How long each of them runs; `--in-all` is shared out anew whenever one begins, for those in Python take long to begin."""

    def __init__(self, given: argparse.Namespace, count: int) -> None:
        self._given, self._left, self._end = given, count, time.monotonic() + (given.in_all or 0)

    def of(self, fuzzer: Fuzzer) -> list[str]:
        """Of the next one."""
        if self._given.runs:
            return [f"-runs={self._given.runs}"]
        seconds = self._given.seconds
        if self._given.in_all:
            share = (self._end - time.monotonic()) * AT_A_TIME / max(self._left, AT_A_TIME)
            seconds = int(share - (0 if fuzzer.is_native else STARTING_S))
        self._left -= 1
        return [f"-max_total_time={max(seconds, 1)}"]


def main(arguments: list[str]) -> int:
    """1 when something was found."""
    given = parse(arguments)
    ready = set(os.environ.get("LOCKSTEP_FUZZ_READY", "native python").split())  # script/fuzz says what it could install
    able = [fuzzer for fuzzer in given.fuzzers if not fuzzer.is_native or "native" in ready]
    able.sort(key=lambda fuzzer: (fuzzer.is_native, -fuzzer.kept))  # those first whose time is less sure: the later ones get what is left
    one_at_a_time, limits = threading.Lock(), Limits(given, len(able))

    def one(fuzzer: Fuzzer) -> bool:
        with one_at_a_time:
            limit = limits.of(fuzzer)
        if given.keep:
            status, line = keep(fuzzer)
        else:
            only_replayed = given.replay or not (fuzzer.is_native or "python" in ready)  # which needs no atheris
            ended = replay(fuzzer) if only_replayed else fuzz(fuzzer, limit)
            status, line = ended.status, tell(ended)
        with one_at_a_time:
            print(line, flush=True)
            if given.record and status == 0:
                record(ended)
        return status in (0, CANNOT)

    with ThreadPoolExecutor(AT_A_TIME) as executor:
        return int(not all(list(executor.map(one, able))))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
