"""What Lockstep is made of: pinned with hashes, listed; what is installed is what is pinned; the wheel can be made again."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
LOCKS = ROOT / "requirements"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
WANTED = {
    "build": PROJECT["build-system"]["requires"],
    "run": PROJECT["project"]["dependencies"],
    **{name: PROJECT["project"]["optional-dependencies"][name] for name in ("test", "bench")},
}


def lines_of(lock: str) -> list[str]:
    text = (LOCKS / f"{lock}.txt").read_text().replace("\\\n", " ")
    return [line for line in text.splitlines() if line and not line.startswith("#")]


def pinned(lock: str) -> list[tuple[Requirement, list[str]]]:
    """Each release of a lock, and the SHA-256 of its files."""
    found = []
    for line in lines_of(lock):
        words, *hashes = line.split("--hash=sha256:")
        found.append((Requirement(words.strip()), [each.strip() for each in hashes]))
    return found


def installed() -> dict[str, str]:
    return {canonicalize_name(each.metadata["Name"]): each.version for each in metadata.distributions()}


@pytest.mark.parametrize("lock", WANTED)
def test_everything_is_pinned_with_hashes(lock: str) -> None:
    found = pinned(lock)
    assert len(found) > 5
    for requirement, hashes in found:
        assert re.fullmatch(r"==[^*,]+", str(requirement.specifier)), f"{requirement} is one release"
        assert hashes and all(re.fullmatch(r"[0-9a-f]{64}", each) for each in hashes), f"{requirement.name} has hashes"
    places = [line for line in lines_of(lock) if re.search(r"://|--index|--find-links|--trusted", line)]
    assert places == [], "contents are named, and no place"


def test_a_lock_serves_every_machine_and_every_python() -> None:
    """Of each release of what runs there are the sources or a wheel for all machines, and its markers name none of ours."""
    for requirement, hashes in pinned("run"):
        if requirement.marker is not None:
            assert not re.search("platform_machine|python_version|python_full_version", str(requirement.marker)), requirement
        purely_python = len(hashes) == 2  # a wheel and the sources
        assert purely_python or len(hashes) > 10 or requirement.name == "pyfuse3", f"{requirement}: {len(hashes)} files"
    platforms = [environment for environment in ("aarch64", "riscv64", "x86_64") for _ in "1"]
    wanted = [
        {canonicalize_name(each.name) for each, _ in pinned("run") if each.marker is None or evaluated(each.marker, machine, python)}
        for machine in platforms
        for python in ("3.11", "3.12", "3.13", "3.14")
    ]
    assert all(each == wanted[0] for each in wanted), "the same packages everywhere"


def evaluated(marker: Marker, machine: str, python: str) -> bool:
    return marker.evaluate({"platform_machine": machine, "python_version": python, "python_full_version": f"{python}.1"})


@pytest.mark.parametrize("lock", WANTED)
def test_the_locks_are_what_the_project_wants(lock: str) -> None:
    """Else somebody has changed pyproject.toml and not run script/lock."""
    releases = {canonicalize_name(each.name): each for each, _ in pinned(lock)}
    for text in WANTED[lock]:
        wanted = Requirement(text)
        found = releases.get(canonicalize_name(wanted.name))
        assert found is not None, f"{wanted.name} is not in requirements/{lock}.txt: run script/lock"
        version = str(found.specifier).removeprefix("==")
        assert wanted.specifier.contains(version, prereleases=True), f"{wanted} is not {version}: run script/lock"


def test_the_locks_agree_with_each_other() -> None:
    releases: dict[str, set[str]] = {}
    for lock in ("build", "run", "test"):
        for requirement, _ in pinned(lock):
            releases.setdefault(canonicalize_name(requirement.name), set()).add(str(requirement.specifier))
    assert {name: found for name, found in releases.items() if len(found) > 1} == {}


def test_what_is_installed_is_what_is_pinned() -> None:
    """And nothing besides that Lockstep would import."""
    found, releases = installed(), {}
    for lock in ("build", "run", "test"):
        for requirement, _ in pinned(lock):
            if requirement.marker is None or requirement.marker.evaluate():
                releases[canonicalize_name(requirement.name)] = str(requirement.specifier).removeprefix("==")
    if found.get("pip") != releases["pip"]:
        pytest.skip("this environment was not made by script/bootstrap")
    assert {name: (version, found.get(name)) for name, version in releases.items() if found.get(name) != version} == {}
    besides = {canonicalize_name(requirement.name) for lock in ("bench", "fuzz") for requirement, _ in pinned(lock)}
    assert set(found) - set(releases) - besides == {"lockstep-ha"}


def test_bootstrap_takes_what_is_pinned_and_nothing_else() -> None:
    text = (ROOT / "script" / "bootstrap").read_text()
    installs = [line.strip() for line in text.splitlines() if re.search(r"\bpip install\b|pinned -", line) and not line.startswith("#")]
    assert 'pinned() { pip install --require-hashes "$@"; }' in installs
    others = [line for line in installs if line.startswith("pip install") or "(cd" in line]
    assert len(others) == 1 and "--no-deps --editable ." in others[0] and "--no-build-isolation" in others[0], "but for ourselves"


def test_a_changed_file_is_not_installed(tmp_path: Path) -> None:
    """pip refuses what has another hash; without the network: a wheel of our own, by a lock that names another one."""
    wheel = tmp_path / "harmless-1.0-py3-none-any.whl"
    make_wheel(wheel)
    lock = tmp_path / "lock.txt"
    for content, code in ((wheel.read_bytes(), 0), (wheel.read_bytes() + b"x", 1)):
        lock.write_text(f"harmless==1.0 --hash=sha256:{hashlib.sha256(content).hexdigest()}\n")
        words = ["--no-index", "--find-links", str(tmp_path), "--target", str(tmp_path / f"to{code}"), "--requirement", str(lock)]
        command = [sys.executable, "-m", "pip", "install", "--require-hashes", *words]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert (done.returncode, "DO NOT MATCH" in done.stderr) == (code, code == 1), done.stderr


def make_wheel(path: Path) -> None:
    import zipfile

    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("harmless.py", "")
        archive.writestr("harmless-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: harmless\nVersion: 1.0\n")
        archive.writestr("harmless-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr("harmless-1.0.dist-info/RECORD", "")


def test_the_list_of_parts_is_the_locks() -> None:
    """CycloneDX, with every release once, its hashes, and what only builds or tests told apart."""
    assert subprocess.run([ROOT / "script" / "sbom", "--check"], check=False).returncode == 0
    bill = json.loads((LOCKS / "sbom.json").read_text())
    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.5")
    parts = {part["bom-ref"]: part for part in bill["components"]}
    assert len(parts) == len(bill["components"]), "each once"
    for lock in WANTED:
        for requirement, hashes in pinned(lock):
            part = parts[f"pkg:pypi/{requirement.name}@{str(requirement.specifier).removeprefix('==')}"]
            assert {each["content"] for each in part["hashes"]} == set(hashes)
            assert part["scope"] == ("required" if requirement.name in {each.name for each, _ in pinned("run")} else "excluded")
    linked = re.search(r"libraries=\[(.*?)\]\s*,?\n", (ROOT / "csrc" / "build_engine.py").read_text())
    assert linked is not None and set(re.findall(r'"(\w+)"', linked[1])) == {"ssl", "crypto", "IPSec_MB"}, "what is linked is in the list"
    assert {"system:openssl", "system:intel-ipsec-mb", "system:libfuse3"} <= set(parts)


def test_known_weaknesses() -> None:
    """pip-audit, where there is one and a network that reaches its list of weaknesses."""
    if subprocess.run([sys.executable, "-m", "pip_audit", "--version"], capture_output=True, check=False).returncode != 0:
        pytest.skip("pip-audit is not installed; with a network: pip install pip-audit, then pip-audit -r requirements/run.txt")
    words = ["--requirement", str(LOCKS / "run.txt"), "--require-hashes", "--disable-pip", "--progress-spinner", "off", "--timeout", "15"]
    done = subprocess.run([sys.executable, "-m", "pip_audit", *words], capture_output=True, text=True, check=False)
    if "ConnectionError" in done.stderr or "ServiceError" in done.stderr:
        pytest.skip("pip-audit reaches no list of weaknesses from here")
    assert done.returncode == 0, done.stdout + done.stderr


# ---- the wheel can be made again --------------------------------------------------------------------------------------------------------


@pytest.mark.timeout(400)
def test_two_builds_are_one_wheel(tmp_path: Path) -> None:
    """In other places, at another time, by another umask: the same bytes. Whoever doubts a wheel builds it and compares."""
    wheels = []
    for place, umask in (("one", 0o022), ("somewhere/else", 0o077)):
        source = tmp_path / place
        source.mkdir(parents=True)
        listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
        kept = [name for name in listed if name.partition("/")[0] in ("csrc", "rfs", "orchestrator") or "/" not in name]
        subprocess.run(["cp", "--parents", "--target-directory", str(source), *kept], cwd=ROOT, check=True)
        target = tmp_path / f"wheels-{place.replace('/', '-')}"
        words = ["wheel", "--no-index", "--no-deps", "--no-build-isolation", "--wheel-dir", str(target), str(source)]
        environment = {**os.environ, "SOURCE_DATE_EPOCH": "1700000000", "TMPDIR": str(source.parent)}
        command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *words]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, umask=umask)
        assert done.returncode == 0, done.stderr[-2000:]
        wheels.append(next(target.glob("*.whl")))
    one, other = (each.read_bytes() for each in wheels)
    assert hashlib.sha256(one).hexdigest() == hashlib.sha256(other).hexdigest(), differences(*wheels)
    assert str(tmp_path).encode() not in unzipped(wheels[0]), "no place of ours is in it"


def unzipped(wheel: Path) -> bytes:
    import zipfile

    with zipfile.ZipFile(wheel) as archive:
        return b"".join(archive.read(name) for name in archive.namelist())


def differences(one: Path, other: Path) -> str:
    import zipfile

    with zipfile.ZipFile(one) as first, zipfile.ZipFile(other) as second:
        names = [entry.filename for entry in first.infolist() if entry.filename in second.namelist()]
        unlike = [name for name in names if first.read(name) != second.read(name)]
        heads = [
            entry.filename
            for entry, twin in zip(first.infolist(), second.infolist(), strict=False)
            if (entry.filename, entry.date_time, entry.external_attr) != (twin.filename, twin.date_time, twin.external_attr)
        ]
    return f"contents: {unlike}; names, times and modes: {heads[:5]}"
