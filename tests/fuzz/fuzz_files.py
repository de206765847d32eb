"""What lies on the disk and is read again: state files, keys, notes. A file that is damaged in any way says so, or counts as none."""

from __future__ import annotations

import json
from pathlib import Path

from orchestrator import statefile
from orchestrator.api.works import head
from orchestrator.core.states import Memory
from orchestrator.effects import cgroups, mount_abort
from orchestrator.effects.notify import line_from
from orchestrator.effects.service_command import Group
from orchestrator.generations import GenerationStore
from rfs import mount_table
from rfs.errors import SaidNo
from rfs.keys import KeyStore
from rfs.record import SLOT_BYTES, Record
from rfs.record_file import RecordDamaged, RecordFile
from rfs.state_directory import read_directories
from tests.fuzz.place import own_place

DIRECTORY = own_place()


def put(name: str, data: bytes) -> Path:
    """A file of root's alone."""
    path = DIRECTORY / name
    path.write_bytes(data)
    path.chmod(0o600)
    return path


def memories(data: bytes) -> None:
    """What hactld remembers. What was understood is understood again."""
    found = statefile.read(put("state.json", data))
    statefile.write(DIRECTORY / "again.json", found)
    assert statefile.read(DIRECTORY / "again.json") == found


def directories(data: bytes) -> None:
    """Which directories a module has."""
    put("directories", data)
    found = read_directories(str(DIRECTORY))
    assert found is None or (found.pending >= 0 and all(isinstance(path, str) for path in found.paths))


def trust(data: bytes) -> None:
    """Whom a node believes."""
    put("trust.json", data)
    try:
        believed = KeyStore(DIRECTORY).trust()
    except SaidNo as refusal:
        assert "trust.json" in refusal.sentence
        return
    for name in believed.peers:
        for pinned in believed.of(name):
            assert isinstance(pinned.pin, str) and isinstance(pinned.certificate, str) and type(pinned.expires) is int


def own_key(data: bytes) -> None:
    """This node's key."""
    put("identity.pem", data)
    try:
        own = KeyStore(DIRECTORY).own()
    except SaidNo:
        return
    assert isinstance(own.node, str) and "BEGIN" in own.private


def record(data: bytes) -> None:
    """Both slots of the record, each half of the input; then one is written, and read again."""
    half = len(data) // 2
    path = put("record", data[:half].ljust(SLOT_BYTES, b"\0")[:SLOT_BYTES] + data[half:].ljust(SLOT_BYTES, b"\0")[:SLOT_BYTES])
    file = RecordFile(str(DIRECTORY))
    try:
        file.read()
    except RecordDamaged as damaged:
        assert str(path) in str(damaged)
    written = file.write(Record(cluster="c", module="m", node="n", node_id=5))
    assert file.read() == written
    file.close()


def history(data: bytes) -> None:
    """A line of it."""
    line = line_from(data.decode(errors="replace"))
    if line is not None:
        json.dumps(line.as_json("n"))


def group(data: bytes) -> None:
    """Where a service's processes are."""
    assert isinstance(Group.read(put("group", data)).mark, str)


def generations(data: bytes) -> None:
    """What was applied and what was promised: the first byte says which of the two files this is."""
    (DIRECTORY / "history.json").unlink(missing_ok=True)
    (DIRECTORY / "prepared.json").unlink(missing_ok=True)
    put("history.json" if data[:1] < b"\x80" else "prepared.json", data[1:])
    try:
        GenerationStore(DIRECTORY).read()
    except SaidNo as refusal:
        assert str(DIRECTORY) in refusal.sentence


def work(data: bytes) -> None:
    """The places in which two copies differ, as rfsmount lists them."""
    try:
        json.dumps(head(put("work", data)))
    except UnicodeDecodeError:
        pass


def mounts(data: bytes) -> None:
    """The kernel's list, of which users make the names."""
    path = data.replace(b"\\", rb"\134").replace(b" ", rb"\040").replace(b"\t", rb"\011").replace(b"\n", rb"\012")
    line = b"36 35 98:0 / %s rw,noatime - ext4 /dev/%s rw,errors=continue" % (path, path)
    text = line.decode(errors="surrogateescape") + "\n"
    (entry,) = mount_table.parse_mount_table(mount_table.lines_of(text))
    mount_abort.connections(text, ["/srv"])
    cgroups.own_groups(text, "0::/a\n")
    assert entry.path.encode(errors="surrogateescape") == data
    mount_table.stack_at(entry.path, [entry])


PARSERS = {
    "memories": memories,
    "directories": directories,
    "trust": trust,
    "own key": own_key,
    "record": record,
    "history": history,
    "group": group,
    "generations": generations,
    "work": work,
    "mounts": mounts,
}


def seeds() -> dict[str, dict[str, bytes]]:
    """By parser."""
    deep = {"deep": b"[" * 2000, "deep but whole": b"[" * 600 + b"]" * 600}
    kept = {"pg": statefile.Kept("boot", Memory(wanted=True, boot="on"))}
    statefile.write(DIRECTORY / "seed.json", kept)
    pinned = {"pin": "ab", "certificate": "-----BEGIN CERTIFICATE-----", "expires": 5}
    believed = {"cluster": "c", "peers": {"n2": [pinned]}, "retired": {"n2": ["cd"]}, "revoked": ["ef"]}
    line = {"number": 5, "wall_s": 1.5, "monotonic_s": 2.5, "module": "pg", "kind": "note", "text": "x", "who": "ann"}
    generation = {"number": 1, "digest": "ab" * 32, "base": "", "transaction": "t", "who": "ann", "wall_s": 1.5, "comment": ""}
    return {
        "memories": {"one": (DIRECTORY / "seed.json").read_bytes(), "first release": b'{"boot":"b","wanted":{"pg":true}}', **deep},
        "directories": {"one": b'{"count":1,"paths":["/srv"],"pending":0}', "infinite": b'{"paths":["/a"],"pending":Infinity}', **deep},
        "trust": {
            "one": json.dumps(believed).encode(),
            "numbers": b'{"cluster":"c","revoked":[],"peers":{"n":[{"pin":1,"certificate":2,"expires":"x"}]}}',
            **deep,
        },
        "own key": {"one": b"node: n1\npin: ab\nexpires: 5\n-----BEGIN PRIVATE KEY-----\n-----BEGIN CERTIFICATE-----\n"},
        "record": {"none": b"\0", "garbled": b"LSTPREC\x01" + bytes(range(100))},
        "history": {
            "one": json.dumps(line).encode(),
            "infinite": b'{"number":Infinity,"wall_s":1,"monotonic_s":1,"module":"","kind":"","text":""}',
            "never": b'{"number":1,"wall_s":Infinity,"monotonic_s":1,"module":"","kind":"","text":""}',
            **deep,
        },
        "group": {"one": b'{"mark":"x","cgroup":"/sys/fs/cgroup/a"}', **deep},
        "generations": {
            "history": b"\0" + json.dumps({"generations": [generation], "laid_out": True}).encode(),
            "prepared": b"\xff" + json.dumps({"generation": generation, "coordinator": "n2", "held": []}).encode(),
            "deep": b"\0" + b"[" * 2000,
        },
        "work": {"two": b'{"path":"/a"}\n{"path":"/b"}\n{"pa', **deep},
        "mounts": {"one": b"/srv/a b", "odd": b"/srv/\\040\n\xff", "ends of lines": b"/a\r\x0b\x0c\x1c\xc2\x85\xe2\x80\xa8b"},
    }
