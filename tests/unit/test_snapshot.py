"""What leaves a node in a snapshot: no secret wherever it was planted, other names where that is asked for, and bounds that hold."""

from __future__ import annotations

import io
import json
import re
import tarfile
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.doctor.judge import judge_all
from orchestrator.doctor.scene import read_scene
from orchestrator.paths import Paths
from orchestrator.snapshot import part
from orchestrator.snapshot.anonymise import Anonymiser, learn_from
from orchestrator.snapshot.bundle import BadPart, Bundle, unpack
from orchestrator.snapshot.redact import REMOVED, Redactor
from tests.unit.doctor_facts import healthy

PLANTED = [
    ("-----BEGIN PRIVATE KEY-----\nS3CRETabc\n-----END PRIVATE KEY-----", "S3CRETabc"),
    ("-----BEGIN EC PRIVATE KEY-----\nS3CRETcut short", "S3CRETcut"),
    ("export PGPASSWORD=S3CRET1", "S3CRET1"),
    ("PGPASSWORD='S3CRET with blanks' psql", "S3CRET with blanks"),
    ('password = "S3CRET2"', "S3CRET2"),
    ('{"password": "S3CRET3", "user": "ann"}', "S3CRET3"),
    ('{"api_key":"S3CRET4"}', "S3CRET4"),
    ("db.password: S3CRET5", "S3CRET5"),
    ("app --password S3CRET6 --verbose", "S3CRET6"),
    ("app --auth-token=S3CRET7", "S3CRET7"),
    ("postgresql://ann:S3CRET8@192.0.2.1/db", "S3CRET8"),
    ("https://S3CRETtokenofnobody@git.example.org/x", "S3CRETtokenofnobody"),
    ("Authorization: Bearer S3CRET9.abc", "S3CRET9"),
    ('curl -H "Authorization: Basic S3CRET10=="', "S3CRET10"),
    ("mysql -u root -pS3CRET11 db", "S3CRET11"),
    ("sshpass -p S3CRET12 ssh x", "S3CRET12"),
    ("curl -u ann:S3CRET13 http://x", "S3CRET13"),
    ("CREATE USER ann IDENTIFIED BY 'S3CRET14'", "S3CRET14"),
    ("ALTER USER ann WITH PASSWORD 'S3CRET15';", "S3CRET15"),
    ("*:5432:db:ann:S3CRET16", "S3CRET16"),
    ("token ghp_S3CRETaaaaaaaaaaaaaaaaaa17", "ghp_S3CRET"),
    ("AWS_SECRET_ACCESS_KEY=S3CRET18", "S3CRET18"),
    ("etcd_token: 'S3CRET19'", "S3CRET19"),
    ("hactl cluster join ABCD-EFGH-JKMN-PQRS-TVWX-YZ01-2345@192.0.2.1", "ABCD-EFGH"),
    ('secret_key_base = "S3CRET\\"20"', "S3CRET"),
    ("MYSQL_PWD=S3CRET21 mysqldump", "S3CRET21"),
    ("DB_PASS=S3CRET22", "S3CRET22"),
    ("export PGPASS='S3CRET 23'", "S3CRET 23"),
    ("db_pass2: S3CRET24", "S3CRET24"),
    ('{"pass":"S3CRET25", "user": "ann"}', "S3CRET25"),
    ("REDIS_AUTH=S3CRET26 app", "S3CRET26"),
    ('{"auth": "S3CRET27"}', "S3CRET27"),
    ("requirepass S3CRET28", "S3CRET28"),
    ("redis-server --requirepass S3CRET29", "S3CRET29"),
    ('masterauth "S3CRET30"', "S3CRET30"),
    ("sentinel auth-pass main S3CRET31", "S3CRET31"),
    ("app --pass S3CRET32 --verbose", "S3CRET32"),
    ("redis-cli -h 192.0.2.1 -a S3CRET33 ping", "S3CRET33"),
    ('start = ["redis-cli", "-a", "S3CRET34"]', "S3CRET34"),
    ('start = ["mysql", "-pS3CRET35", "db"]', "S3CRET35"),
    ("echo root:S3CRET36 | chpasswd", "S3CRET36"),
    ("echo 'root:S3CRET37' | sudo chpasswd -e", "S3CRET37"),
    ("chpasswd <<< root:S3CRET38", "S3CRET38"),
    ("echo S3CRET39 | passwd --stdin ann", "S3CRET39"),
    ("postgresql://ann:S3C/RET40@192.0.2.1/db", "RET40"),
    ("openssl rsa -passin pass:S3CRET41", "S3CRET41"),
]
MODULE = """\
mode = "mirror"
[[replicated]]
directory = "/srv/data"
[[service]]
name = "app"
start = ["/usr/bin/app", "--db-password", "inTheWords9"]
environment = { PLAIN_LOOKING = "hunter2hunter2", "DB_PASS WORD" = "x7", LANG = "en_US.UTF-8", PGPASSWORD = "mnemonic" }
"""


@pytest.mark.parametrize(("text", "secret"), PLANTED)
def test_what_looks_like_a_secret_goes(text: str, secret: str) -> None:
    redactor = Redactor()
    cleaned = redactor.clean(f"before\n{text}\nafter")
    assert secret not in cleaned and REMOVED in cleaned and redactor.removed >= 1
    assert cleaned.startswith("before\n") and (cleaned.endswith("\nafter") or "cut short" in text), "nothing else goes with it"


@pytest.mark.parametrize(
    "text",
    [
        "PWD=/root", "OLDPWD=/srv", "password_file = /etc/x", "auth: md5", "token=$TOKEN", "password: required",
        "12:34:56 state PRIM Ready", '{"generation": "9f3c61d0a2b47e15"}', "http://192.0.2.1:2379/v3/kv", "passwd: files systemd",
        "the password is wrong", "the second pass: 300 files", "BYPASS=always", "auth_method=gss", "PASS_FILE=/etc/x", "UDP 5599",
        "key 1b2c until 2036-01-01",
    ],
)  # fmt: skip
def test_what_is_no_secret_stays(text: str) -> None:
    assert Redactor().clean(text) in (text, text.replace("files", REMOVED)), "the line of nsswitch is lost, and not missed"


def test_a_secret_that_was_told_once_goes_everywhere() -> None:
    redactor = Redactor()
    redactor.learn("export PGPASSWORD=mnemonic")
    assert redactor.clean("connection failed for ann using mnemonic") == f"connection failed for ann using {REMOVED}"


def test_environments_of_services_go_whole() -> None:
    redactor = Redactor()
    redactor.learn(MODULE, name="configuration/modules/pg.toml")
    cleaned = redactor.clean(MODULE, name="configuration/modules/pg.toml")
    for secret in ("hunter2hunter2", "x7", "mnemonic", "inTheWords9", "en_US"):
        assert secret not in cleaned
    variables = ("PLAIN_LOOKING", "DB_PASS WORD", "LANG", "PGPASSWORD")
    assert tomllib.loads(cleaned)["service"][0]["environment"] == dict.fromkeys(variables, REMOVED)
    assert "hunter2hunter2" not in redactor.clean("log: started with hunter2hunter2", name="x.log")
    for kept in ("pg.toml~", "pg.toml.before-apply", "pg.toml.before-join", "pg.toml.bak", ".pg.toml.swp", "pg.old"):
        assert "hunter2" not in Redactor().clean(MODULE, name=f"configuration/modules/{kept}"), kept
    broken = MODULE + "\n[["
    assert "mnemonic" not in Redactor().clean(broken, name="a.toml") and "hunter2" not in Redactor().clean(broken, name="a.toml")


@given(st.text(max_size=200))
def test_cleaning_twice_changes_nothing_more(text: str) -> None:
    redactor = Redactor()
    redactor.learn(text)
    once = redactor.clean(text)
    assert redactor.clean(once) == once


LONG_BYTES = 64 << 10
UNKIND = (
    *("x", "a.", "a-", "a:", "1.", "f:", "://", "x://y", "mysql ", "curl ", "password", "password ", "--token ", "-password-"),
    *('"', "'", "\\", "eyJ", "environment = {", "@", "a@", "password:\t", "passwd::"),
    *("pass:", "auth=", "auth-pass ", "requirepass ", "redis-cli ", "redis-cli -", "echo ", "chpasswd", "a:b|"),
)


@pytest.mark.parametrize("piece", UNKIND)
def test_no_text_is_slow_to_clean(piece: str) -> None:
    text = piece * (LONG_BYTES // len(piece))
    began = time.process_time()
    redactor = Redactor()
    redactor.learn(text, name="a.toml")
    anonymiser().apply(redactor.clean(text, name="a.toml"))
    assert time.process_time() - began < 2.0, "a deadline is not held by a pattern that is tried again at every letter"


# ---- other names ------------------------------------------------------------------------------------------------------------------------


def anonymiser() -> Anonymiser:
    made = Anonymiser()
    facts = healthy()
    facts["accounts"]["users"]["carola"] = 1000
    facts["configuration"] |= {"nodes": ["berlin1", "berlin2"], "cluster": "acme-prod", "modules": {"pg": "mirror", "orders": "mirror"}}
    facts["directories"]["by_path"] = {"/srv/acmedata/main": {}}
    learn_from(made, facts)
    return made


def test_names_are_others_and_the_same_ones_everywhere() -> None:
    made = anonymiser()
    text = made.apply("berlin1 asks berlin2? carola (root) of acme-prod opens /srv/acmedata/main/f; orders; berlin10; /var/lib/postgresql")
    for name in ("berlin1 ", "berlin2", "carola", "acme", "orders"):
        assert name not in text
    assert "root" in text and "/var/lib/postgresql" in text and "berlin10" in text, "others and what every machine has stay"
    assert made.apply("berlin1") == made.catalogue["berlin1"] == "nodeA"
    assert made.apply("on berlin1:/srv/acmedata") == f"on nodeA:/srv/{made.catalogue['acmedata']}"


def test_addresses_keep_equality_and_subnets() -> None:
    made = anonymiser()
    one, other, far = made.apply("10.1.2.3"), made.apply("10.1.2.4:5598"), made.apply("10.9.9.9/24")
    assert one.rpartition(".")[0] == other.rpartition(".")[0] != far.rpartition(".")[0]
    assert made.apply("10.1.2.3") == one and "10." not in one + other + far
    assert made.apply("127.0.0.1 0.0.0.0 255.255.255.0 224.0.0.1") == "127.0.0.1 0.0.0.0 255.255.255.0 224.0.0.1"
    assert made.apply("2001:678::7 fe80::5054:ff:fe12:3456 ::1").split() == ["2001:db8:0:1::1", "fe80::1", "::1"]
    assert made.apply("interface.10.1.2.3 is up, tcp.10.1.2.3:80") == f"interface.{one} is up, tcp.{one}:80", "also in names made of them"
    assert made.apply("ip.2001:678::7 is free.") == "ip.2001:db8:0:1::1 is free."
    assert made.apply("52:54:00:12:34:56") == made.apply("52:54:00:12:34:56") == "02:00:00:00:00:00"
    assert made.apply("12:34:56 1.2.3.4.5 version 6.18.44") == "12:34:56 1.2.3.4.5 version 6.18.44"
    assert made.apply("ann@acme.example") == "mailA"


@given(st.lists(st.ip_addresses(v=4), min_size=1, max_size=20))
def test_the_catalogue_leads_back(addresses: list[object]) -> None:
    made = Anonymiser()
    text = " ".join(map(str, addresses))
    shown = made.apply(text)
    back = {becomes: was for was, becomes in made.catalogue.items()}
    assert len(back) == len(made.catalogue), "two addresses never become one"
    assert " ".join(back.get(word, word) for word in shown.split()) == text


# ---- the part of a node -----------------------------------------------------------------------------------------------------------------


def plant(root: Path) -> tuple[Path, list[str]]:
    """A node's files, with secrets in all of them."""
    config, log, state = root / "etc", root / "var/log/lockstep", root / "var/lib/lockstep/modules/pg"
    scripts = config / "modules" / "pg"
    for directory in (scripts, config / "keys", log / "scripts" / "pg", state):
        directory.mkdir(parents=True)
    (config / "cluster.toml").write_text(
        'name = "plant7"\n[[node]]\nname = "node1"\naddresses = { lan = "192.0.2.11" }\n'
        '[[node]]\nname = "node2"\naddresses = { lan = "192.0.2.12" }\n'
    )
    (config / "modules" / "pg.toml").write_text(MODULE)
    (config / "keys" / "identity.pem").write_text("-----BEGIN PRIVATE KEY-----\nKEYkeyKEYkey\n-----END PRIVATE KEY-----\n")
    (scripts / "start_prim").write_text("#!/bin/sh\nexport API_TOKEN=scriptSecret1\ncurl http://ann:urlSecret22@192.0.2.9/\n")
    (log / "pg.log").write_text("connecting with mnemonic\nAPI says scriptSecret1\npassword=logSecret333\n")
    (log / "pg.rfs.log").write_text("rfsmount: fine\n" + "x" * (part.TEXT_BYTES_MAX + 1000) + "\nlast line logSecret333\n")
    (log / "hactld.log").write_text("command: join ABCD-EFGH-JKMN-PQRS-TVWX-YZ01-2345\n")
    (log / "history.jsonl").write_text(json.dumps({"text": "script says token: histSecret4444"}) + "\n")
    (log / "scripts" / "pg" / "1_start_prim.log").write_text("Authorization: Bearer runSecret55555\n")
    secrets = ["hunter2hunter2", "mnemonic", "inTheWords9", "KEYkeyKEYkey", "scriptSecret1", "urlSecret22", "logSecret333", "ABCD-EFGH"]
    return config, [*secrets, "histSecret4444", "runSecret55555"]


def test_no_secret_leaves_the_node(tmp_path: Path) -> None:
    config, secrets = plant(tmp_path)
    data = part.make(read_scene("node1", config, Paths(tmp_path)), deadline_s=10.0)
    texts, manifest = unpack(data)
    everything = "\n".join(f"{name}\n{text}" for name, text in texts.items()) + json.dumps(manifest)
    for secret in secrets:
        assert secret not in everything, secret
    assert {"configuration/cluster.toml", "configuration/modules/pg.toml", "configuration/modules/pg/start_prim"} <= set(texts)
    assert {"modules/pg/services.log", "modules/pg/scripts/1_start_prim.log", "hactld/history.jsonl", "doctor/facts.json"} <= set(texts)
    assert "identity.pem" in texts["configuration/keys.txt"] and "configuration/keys/identity.pem" not in texts
    assert texts["modules/pg/rfsmount.log"].startswith("last line"), "the tail, from a whole line on"
    assert json.loads(texts["doctor/facts.json"])["configuration"]["cluster"] == "plant7"
    told = {entry["name"]: entry["why"] for entry in manifest["left_out"]}
    assert "no rfsmount answers" in told["modules/pg/status.json"], "what was not to be had is in the list, with the reason"
    assert manifest["removed"] >= len(secrets)


def test_a_part_is_bounded_and_says_what_there_was_no_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(part, "PART_TEXT_BYTES_MAX", 100)
    left_out: list[dict[str, str]] = []
    texts, manifest = unpack(part.pack("node1", {"small": "x" * 60, "large": "y" * 90}, left_out, 0, 0.0))
    assert list(texts) == ["small"] and manifest["left_out"] == [{"name": "large", "why": "90 bytes are more than there is room for"}]


def packed(**files: bytes) -> bytes:
    output = io.BytesIO()
    with tarfile.open(fileobj=output, mode="w:gz") as archive:
        for name, data in files.items():
            part.add(archive, name, data, 0.0)
    return output.getvalue()


@pytest.mark.parametrize(
    "data",
    [
        b"", b"\x1f\x8bgarbage", packed(a=b"x"), packed(**{"../escape": b"x", part.MANIFEST: b"{}"}),
        packed(**{"/etc/passwd": b"x", part.MANIFEST: b"{}"}), packed(**{part.MANIFEST: b"[]"}), packed(**{part.MANIFEST: b"no json"}),
        packed(**{part.MANIFEST: b'{"left_out": [1]}'}),
    ],
)  # fmt: skip
def test_what_is_no_part_is_refused(data: bytes) -> None:
    with pytest.raises(BadPart):
        unpack(data)


def test_the_file(tmp_path: Path) -> None:
    facts = healthy()
    facts["configuration"]["nodes"] = ["berlin1", "berlin2"]
    bundle = Bundle("acme")
    texts = {"doctor/facts.json": json.dumps(facts), "network/addresses.txt": "inet 10.1.2.3/24 on berlin1"}
    bundle.add_part("berlin1", part.pack("berlin1", texts, [{"name": "x", "why": "berlin2 is away"}], 3, 1.0))
    bundle.add_missing("berlin2", "berlin2 did not answer")
    bundle.add_documents({"berlin1/hactld/status.json": '{"who": "password=docSecret1"}'}, {"berlin2/hactld/status.json": "no"})
    catalogue = bundle.anonymise()
    manifest = bundle.manifest(version="0.1.0", began=1.0, anonymised=True)
    target = tmp_path / "help.tar.gz"
    assert bundle.write(target, manifest) == target.stat().st_size
    assert target.stat().st_mode & 0o777 == 0o600 and [path.name for path in tmp_path.iterdir()] == ["help.tar.gz"]
    with tarfile.open(target) as archive:
        found = {entry.name: archive.extractfile(entry).read().decode() for entry in archive}  # type: ignore[union-attr]
    everything = "\n".join([*found, *found.values()])
    assert not re.search("berlin|acme|docSecret1|10\\.1\\.2", everything)
    assert catalogue["berlin1"] == "nodeA" and "help/nodeA/network/addresses.txt" in found
    told = json.loads(found["help/MANIFEST.json"])
    assert told["nodes"][1] == {"node": "nodeB", "took_s": None, "began_s": None, "missing": "nodeB did not answer"}
    assert {entry["name"] for entry in told["left_out"]} == {"nodeA/x", "nodeB/", "nodeB/hactld/status.json"}
    assert {f"help/{entry['name']}" for entry in told["items"]} | {"help/MANIFEST.json"} == set(found)


def test_facts_of_a_node_in_the_wrong_hands_stop_neither_the_doctor_nor_a_snapshot() -> None:
    """Every value of a healthy node's facts replaced by what it is not."""

    def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
            yield (*path, key)
            yield from places(inner, (*path, key))

    for path in places(healthy("node2")):
        for wrong in (None, -1, "x", [], {}, [1], {"a": 1}, float("inf"), [[]], [{}]):
            facts: Any = healthy("node2")
            inside = facts
            for key in path[:-1]:
                inside = inside[key]
            inside[path[-1]] = wrong
            learn_from(Anonymiser(), facts)
            judge_all([healthy("node1"), facts], {})
            judge_all([facts, healthy("node1")], {})
