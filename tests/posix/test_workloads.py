"""Programs that people run, on the mount; `pair` compares both copies at the end. What is not installed is installed by script/test;
where it cannot be, its test skips and says so."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.posix.conftest import Pair

pytestmark = [pytest.mark.mount, pytest.mark.timeout(180)]


@pytest.fixture
def here(pair: Pair, request: pytest.FixtureRequest) -> Iterator[Path]:
    path = pair.root / request.node.name.replace("[", "-").strip("]")
    path.mkdir()
    yield path


def needs(program: str) -> str:
    found = shutil.which(program)
    if found is None:
        pytest.skip(f"{program} is not installed")
    return found


def run(*command: str | Path, cwd: Path | None = None, timeout_s: float = 150, **environment: str) -> str:
    done = subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
        env=os.environ | environment,
    )
    assert done.returncode == 0, f"{command[0]}: {done.returncode}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done.stdout


@pytest.mark.parametrize(
    "suite",
    [
        "test_os test_posix test_stat test_fcntl",
        "test_shutil test_glob test_pathlib",
        "test_mmap test_fileio test_tempfile",
        "test_tarfile test_zipfile",
    ],
)
def test_pythons_own_tests(here: Path, suite: str) -> None:
    if not Path("/usr/lib/python3.11/test/test_os.py").exists():
        pytest.skip("libpython3.11-testsuite is not installed")
    run("/usr/bin/python3", "-m", "test", *suite.split(), cwd=here, TMPDIR=str(here))


@pytest.mark.parametrize(
    "job",
    [
        "--rw=randwrite --bs=4k --size=24m --numjobs=2",
        "--rw=write --bs=1m --size=64m",
        "--rw=randwrite --bs=4k --size=16m --direct=1 --ioengine=libaio --iodepth=16",
        "--rw=randwrite --bs=8k --size=16m --ioengine=mmap",
        "--rw=randwrite --bsrange=512-64k --size=24m --fsync=32",
    ],
)
def test_fio_verifies_what_it_wrote(pair: Pair, tmp_path: Path, job: str) -> None:
    needs("fio")
    path = pair.root / "fio"
    path.mkdir(exist_ok=True)
    run("fio", "--name=job", f"--directory={path}", "--verify=crc32c", "--verify_fatal=1", "--do_verify=1", *job.split(), cwd=tmp_path)
    shutil.rmtree(path)


def test_stress_ng(here: Path, tmp_path: Path) -> None:
    needs("stress-ng")
    stressors = (
        "access chmod chown copy-file dentry dir dirdeep dup fallocate filename flock fpunch fstat hdd link lockf mknod msync open rename "
        "seek symlink touch utime xattr"
    )
    words = [word for name in stressors.split() for word in (f"--{name}", "1")]
    run("stress-ng", "--temp-path", here, "--verify", "--timeout", "5s", "--oomable", *words, cwd=tmp_path)


def test_sqlite(here: Path) -> None:
    for mode in ("DELETE", "WAL"):
        connection = sqlite3.connect(here / f"{mode}.db", isolation_level=None)
        connection.execute(f"PRAGMA journal_mode={mode}")
        connection.execute("CREATE TABLE t (n INTEGER PRIMARY KEY, v TEXT)")
        for batch in range(20):
            connection.execute("BEGIN")
            connection.executemany("INSERT INTO t (v) VALUES (?)", ((f"{batch}" * 50,) for _ in range(50)))
            connection.execute("COMMIT" if batch % 4 else "ROLLBACK")
        connection.execute("VACUUM")
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert connection.execute("SELECT count(*) FROM t").fetchone() == (750,)
        connection.close()


def test_git(here: Path) -> None:
    needs("git")
    who = {"GIT_AUTHOR_NAME": "t", "GIT_AUTHOR_EMAIL": "t@t", "GIT_COMMITTER_NAME": "t", "GIT_COMMITTER_EMAIL": "t@t", "HOME": str(here)}
    first = here / "first"
    run("git", "init", "-q", first, **who)
    for number in range(5):
        for file in range(40):
            (first / f"file{file}").write_text(f"{number} {file}\n" * 30)
        run("git", "add", "-A", cwd=first, **who)
        run("git", "commit", "-qm", f"{number}", cwd=first, **who)
    run("git", "clone", "-q", "--no-hardlinks", first, here / "second", **who)
    run("git", "gc", "-q", "--aggressive", cwd=here / "second", **who)
    run("git", "fsck", "--strict", cwd=here / "second", **who)
    run("git", "checkout", "-q", "HEAD~3", cwd=here / "second", **who)


def test_untar_rsync_and_remove(here: Path, tmp_path: Path) -> None:
    needs("rsync")
    archive = tmp_path / "some.tar"
    with tarfile.open(archive, "w") as tar:
        tar.add(
            "/usr/lib/python3/dist-packages" if Path("/usr/lib/python3/dist-packages").exists() else os.path.dirname(os.__file__),
            "packages",
        )
    run("tar", "xf", archive, cwd=here)
    run("rsync", "-aHAX", f"{here}/packages/", f"{here}/again")
    changed = run("rsync", "-aHAXnic", "--delete", f"{here}/packages/", f"{here}/again")
    assert changed == ""
    shutil.rmtree(here / "packages")


def test_save_by_rename_and_rotation_under_readers(here: Path) -> None:
    """Whoever reads sees the old or the new file, whole; a log that is rotated loses no line."""
    stop, torn = threading.Event(), []

    def read() -> None:
        while not stop.is_set():
            text = (here / "settings").read_text()
            if len(set(text)) != 1 or len(text) != 10_000:
                torn.append(text[:20])

    (here / "settings").write_text("0" * 10_000)
    reader = threading.Thread(target=read)
    reader.start()
    try:
        for number in range(200):
            (here / "settings.new").write_text(str(number % 10) * 10_000)
            os.rename(here / "settings.new", here / "settings")
    finally:
        stop.set()
        reader.join()
    assert not torn
    with open(here / "log", "a", buffering=1) as log:
        for number in range(300):
            log.write(f"{number}\n")
            if number == 150:
                os.rename(here / "log", here / "log.1")
                (here / "log").touch()
    assert (here / "log.1").read_text().split() == [str(number) for number in range(300)]


def test_dpkg_into_a_root_of_its_own(here: Path, tmp_path: Path) -> None:
    needs("dpkg-deb")
    package = tmp_path / "package"
    (package / "DEBIAN").mkdir(parents=True)
    (package / "DEBIAN" / "control").write_text(
        "Package: lockstep-trial\nVersion: 1\nArchitecture: all\nMaintainer: t <t@t>\nDescription: t\n"
    )
    for number in range(300):
        (package / f"usr/share/trial/{number % 10}").mkdir(parents=True, exist_ok=True)
        (package / f"usr/share/trial/{number % 10}/{number}").write_text(f"{number}" * 100)
    os.chmod(package, 0o755)
    run("dpkg-deb", "--build", "--root-owner-group", package, tmp_path / "trial.deb")
    (here / "var/lib/dpkg/updates").mkdir(parents=True)
    (here / "var/lib/dpkg/info").mkdir()
    (here / "var/lib/dpkg/status").touch()
    for _ in range(2):  # the second time it replaces every file by rename
        run("dpkg", f"--root={here}", "--force-not-root", "--force-depends", "-i", tmp_path / "trial.deb")
    assert len(list((here / "usr/share/trial").rglob("*"))) == 310


def test_an_image_with_a_file_system_of_its_own(here: Path, tmp_path: Path) -> None:
    needs("mkfs.ext4")
    image, mount = here / "disk.img", tmp_path / "mnt"
    mount.mkdir()
    with open(image, "wb") as file:
        file.truncate(96 << 20)
    run("mkfs.ext4", "-q", "-F", image)
    run("mount", "-o", "loop", image, mount)
    try:
        for number in range(200):
            (mount / f"file{number}").write_bytes(os.urandom(20_000))
        (mount / "big").write_bytes(os.urandom(10 << 20))
        os.sync()
    finally:
        run("umount", mount)
    run("fsck.ext4", "-f", "-n", image)


def test_a_virtual_machines_disk(here: Path) -> None:
    needs("qemu-img")
    for kind, options in (("raw", []), ("qcow2", ["-o", "preallocation=metadata"])):
        disk = here / f"disk.{kind}"
        run("qemu-img", "create", "-q", "-f", kind, *options, disk, "64M")
        run(
            "qemu-img",
            "bench",
            "-q",
            "-f",
            kind,
            "-t",
            "none",
            "-n",
            "-w",
            "-c",
            "2000",
            "-d",
            "16",
            "-s",
            "4096",
            "-S",
            "65536",
            "--flush-interval",
            "100",
            disk,
        )
        run("qemu-img", "check", "-q", disk) if kind == "qcow2" else None


def test_the_last_close_of_a_large_file_stalls_nobody(pair: Pair) -> None:
    """Its blocks are freed beside the ordered path, on both nodes."""
    path = pair.root / "large"
    with open(path, "wb") as file:
        os.posix_fallocate(file.fileno(), 0, 2 << 30)
        path.unlink()
        began = time.monotonic()
        os.close(os.dup(file.fileno()))
    slowest = 0.0
    for number in range(50):
        started = time.monotonic()
        (pair.root / "beside").write_text(str(number))
        slowest = max(slowest, time.monotonic() - started)
    assert slowest < 2.0 and time.monotonic() - began < 20


def test_many_names_in_one_directory(here: Path) -> None:
    script = "import os,sys\nfor n in range(20000): os.close(os.open(f'{sys.argv[1]}/{n:06}', os.O_CREAT | os.O_WRONLY, 0o644))"
    run(sys.executable, "-c", script, here)
    assert len(os.listdir(here)) == 20_000
    assert sum(1 for entry in os.scandir(here) if entry.stat().st_size == 0) == 20_000
    shutil.rmtree(here)
    here.mkdir()
