"""The first start: who is asked, who is refused, in which order the two nodes are told, and what is shown."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest

from orchestrator.hactl import first_start
from tests.unit.doctor_facts import DIRECTORY as DATA
from tests.unit.doctor_facts import healthy, spoil
from tests.unit.schemas import check
from tests.unit.test_hactl_cli import STATUS, FakeHactld, Hactl, hactl, hactld  # noqa: F401 - two of them are fixtures

CONTENTS = "/v1/modules/pg/contents"
DIRECTORY: dict[str, Any] = {
    "path": "/srv/pg", "exists": True, "files": 969, "bytes": 41_100_000, "newest": "pg_wal/000001", "newest_age_s": 180.0, "whole": True,
    "markers": {"PG_VERSION": "15"}, "lacking": [], "problem": "", "empty": False,
}  # fmt: skip
EMPTY = {**DIRECTORY, "files": 0, "bytes": 0, "newest": "", "newest_age_s": None, "markers": {}, "lacking": ["PG_VERSION"], "empty": True}


def entry(node: str, *directories: dict[str, Any], known: bool | None = False) -> dict[str, Any]:
    return {"node": node, "known": known, "serves": False, "directories": list(directories) or None, "problem": ""}


def contents(*entries: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    return 200, {"schema": "hactl.contents/1", "module": "pg", "nodes": list(entries)}


def stopped(**node1: Any) -> dict[str, Any]:
    document = copy.deepcopy(STATUS)
    for row in document["modules"][0]["nodes"]:
        row.update(state="STOP", readiness="NotReady", data="")
    document["modules"][0]["nodes"][0].update(node1)
    return document


def serving() -> dict[str, Any]:
    return stopped(state="ALONE", readiness="Ready")


@pytest.fixture
def fresh(hactld: FakeHactld) -> FakeHactld:  # noqa: F811
    """Two nodes that have never seen the module; node1 has files."""
    hactld.answers["/v1/status"] = [(200, stopped()), (200, serving())]
    hactld.answers[CONTENTS] = [contents(entry("node1", DIRECTORY), entry("node2", EMPTY))]
    hactld.answers["/v1/doctor"] = [(200, healthy("node1")), (200, healthy("node2"))]
    hactld.answers["/v1"] = [(200, {"schema": "hactl.index/1", "you": {"name": "root", "role": "admin"}})]
    for verb in ("prim", "second", "start"):
        hactld.answers[f"/v1/modules/pg/{verb}"] = [
            (200, {"code": 0, "message": f"pg {verb}", "results": [{"node": "n", "code": 0, "message": verb}]})
        ]
    return hactld


def commands(fake: FakeHactld) -> list[tuple[str, Any]]:
    return [(target, body) for method, target, body in fake.asked if method == "POST"]


def test_a_script_has_to_say_which_node(fresh: FakeHactld, hactl: Hactl) -> None:  # noqa: F811
    code, out, err = hactl("start", "pg")
    assert (code, out, commands(fresh)) == (6, "", [])
    assert (
        "no node is known to have the data of pg" in err
        and "'hactl start pg --data-from node1' or 'hactl start pg --data-from node2'" in err
    )


def test_the_node_with_the_data_first_then_the_other(fresh: FakeHactld, hactl: Hactl) -> None:  # noqa: F811
    code, out, err = hactl("start", "pg", "--data-from", "node1")
    assert code == 0, err
    assert commands(fresh) == [("/v1/modules/pg/prim?node=node1", {}), ("/v1/modules/pg/second?node=node2", {})]
    rows = [line for line in err.splitlines() if "node1 " in line or "node2 " in line]
    assert rows[0].split() == ["/srv/pg", "node1", "39.2", "MiB", "969", "pg_wal/000001", "3m", "PG_VERSION=15"]
    assert rows[1].split()[:3] == ["node2", "empty", "0"]
    assert "there is nothing in its directories" in err and out == ""


def test_an_operator_is_not_left_half_way(fresh: FakeHactld, hactl: Hactl) -> None:  # noqa: F811
    """`second --fullsync` would be refused when the first node serves already."""
    fresh.answers["/v1"] = [(200, {"you": {"name": "ann", "role": "operator"}})]
    fresh.answers[CONTENTS] = [contents(entry("node1", DIRECTORY), entry("node2", DIRECTORY))]
    code, _, err = hactl("start", "pg", "--data-from", "node1")
    assert (code, commands(fresh)) == (8, []) and "needs the role admin, and you have the role operator: nothing was started" in err
    fresh.answers[CONTENTS] = [contents(entry("node1", DIRECTORY), entry("node2", EMPTY))]
    fresh.answers["/v1/status"] = [(200, stopped()), (200, serving())]
    assert hactl("start", "pg", "--data-from", "node1")[0] == 0, "without anything to be replaced an operator may"


def test_programs_get_a_document(fresh: FakeHactld, hactl: Hactl) -> None:  # noqa: F811
    code, out, _ = hactl("start", "pg", "--data-from", "node1", "--json")
    document = json.loads(out)
    assert code == 0 and check(document) == "hactl.answer/1" and [result["message"] for result in document["results"]] == ["prim", "second"]
    fresh.answers["/v1/status"] = [(200, stopped())]
    code, out, _ = hactl("start", "pg", "--data-from", "node1", "--json", "--dry-run")
    assert code == 0 and check(json.loads(out)) == "hactl.answer/1" and "nothing was started" in json.loads(out)["message"]


def test_the_doctor_says_what_stands_against_the_copy(fresh: FakeHactld, hactl: Hactl) -> None:  # noqa: F811
    small = healthy("node2")
    spoil(small, f"directories.by_path.{DATA}.available_bytes", 1 << 20)
    fresh.answers["/v1/doctor"] = [(200, healthy("node1")), (200, small)]
    code, _, err = hactl("start", "pg", "--data-from", "node1")
    told = [line for line in err.splitlines() if line.startswith(("!", "  →"))]
    assert (
        code == 0
        and any(line.startswith("! node1, node2: /srv/data holds") for line in told)
        and any(line.startswith("  →") for line in told)
    ), err
    assert len(commands(fresh)) == 2, "it tells, and decides nothing"


def test_without_a_doctor_it_goes_on_and_says_so(fresh: FakeHactld, hactl: Hactl) -> None:  # noqa: F811
    fresh.answers["/v1/doctor"] = [(502, {"code": 5, "message": "node2 does not answer"})]
    code, _, err = hactl("start", "pg", "--data-from", "node1")
    assert code == 0 and "! the doctor was not asked: node2 does not answer" in err


def test_a_dry_run_shows_and_does_nothing(fresh: FakeHactld, hactl: Hactl) -> None:  # noqa: F811
    code, _, err = hactl("start", "pg", "--data-from", "node1", "--dry-run")
    assert (code, commands(fresh)) == (0, []) and "node1 serves with its data." in err


def test_files_on_the_other_node_are_moved_aside(fresh: FakeHactld, hactl: Hactl) -> None:  # noqa: F811
    fresh.answers[CONTENTS] = [contents(entry("node1", DIRECTORY), entry("node2", {**DIRECTORY, "files": 1, "whole": False}))]
    code, _, err = hactl("start", "pg", "--data-from", "node1")
    assert code == 0 and commands(fresh)[1] == ("/v1/modules/pg/second?node=node2", {"fullsync": True})
    assert "moved to /var/lib/lockstep/modules/pg/kept/ first" in err and "at least 1" in err


def test_subdirectories_alone_are_moved_aside_too(fresh: FakeHactld, hactl: Hactl) -> None:  # noqa: F811
    """rfsmount takes them for content: a plain `second` would wait there for ever."""
    fresh.answers[CONTENTS] = [contents(entry("node1", DIRECTORY), entry("node2", {**EMPTY, "empty": False}))]
    code, _, err = hactl("start", "pg", "--data-from", "node1")
    assert code == 0 and commands(fresh)[1] == ("/v1/modules/pg/second?node=node2", {"fullsync": True})
    assert "no files" in err and "moved to /var/lib/lockstep/modules/pg/kept/ first" in err


def test_a_node_that_cannot_show_what_it_has_is_not_overruled(
    fresh: FakeHactld, hactl: Hactl, monkeypatch: pytest.MonkeyPatch  # noqa: F811
) -> None:
    """It answered that it knows nothing, and not what its directories hold: they may be the ones that count."""
    nothing = {**EMPTY, "lacking": []}
    unseen = contents(entry("node1", nothing), {**entry("node2", known=None), "problem": "node2 did not answer 'contents'"})
    for words in (("start", "pg", "--data-from", "node1"), ("prim", "pg", "-H", "node1")):
        fresh.answers[CONTENTS] = [contents(entry("node1", nothing), entry("node2", EMPTY)), unseen]
        monkeypatch.setattr(first_start, "on_terminal", lambda session: words[0] == "prim")  # noqa: B023 - called within the round
        code, _, err = hactl(*words)
        assert (code, commands(fresh)) == (5, []) and "node2 does not say what its directories hold (node2 did not answer" in err


@pytest.mark.parametrize(
    ("here", "there", "sentence"),
    [
        (EMPTY, EMPTY, "there is no PG_VERSION in it"),
        ({**EMPTY, "lacking": []}, DIRECTORY, "node1 has no files and node2 has"),
        ({**EMPTY, "exists": False, "lacking": []}, EMPTY, "it does not exist"),
        ({**DIRECTORY, "problem": "Permission denied"}, EMPTY, "Permission denied"),
    ],
)
def test_a_node_that_cannot_have_the_data(
    here: dict[str, Any],
    there: dict[str, Any],
    sentence: str,
    fresh: FakeHactld,
    hactl: Hactl,  # noqa: F811
) -> None:
    fresh.answers[CONTENTS] = [contents(entry("node1", here), entry("node2", there))]
    code, _, err = hactl("start", "pg", "--data-from", "node1")
    assert (code, commands(fresh)) == (6, []) and sentence in err and "nothing was started" in err


def test_a_refusal_leaves_the_other_node_alone(fresh: FakeHactld, hactl: Hactl) -> None:  # noqa: F811
    fresh.answers["/v1/modules/pg/prim"] = [(409, {"code": 6, "message": "not now"})]
    assert hactl("start", "pg", "--data-from", "node1")[0] == 6
    assert [target for target, _ in commands(fresh)] == ["/v1/modules/pg/prim?node=node1"]


def test_a_node_that_does_not_come_up_leaves_the_other_alone(fresh: FakeHactld, hactl: Hactl) -> None:  # noqa: F811
    waiting = stopped(state="WAIT", reason="/srv/pg has no PG_VERSION")
    fresh.answers["/v1/status"] = [(200, stopped()), (200, waiting)]
    code, _, err = hactl("start", "pg", "--data-from", "node1", "--timeout", "1ms")
    assert code == 7 and "has no PG_VERSION" in err
    assert [target for target, _ in commands(fresh)] == ["/v1/modules/pg/prim?node=node1"]


def test_an_unknown_node(fresh: FakeHactld, hactl: Hactl) -> None:  # noqa: F811
    code, _, err = hactl("start", "pg", "--data-from", "node3")
    assert (code, commands(fresh)) == (2, []) and "pg runs on node1 and node2" in err


@pytest.mark.parametrize("known", [True, None])
def test_where_a_node_is_known_or_silent_the_records_decide(
    known: bool | None, fresh: FakeHactld, hactl: Hactl, monkeypatch: pytest.MonkeyPatch  # noqa: F811
) -> None:
    monkeypatch.setattr(first_start, "ANSWERS_WITHIN_S", 0.0)
    fresh.answers[CONTENTS] = [contents(entry("node1", DIRECTORY), entry("node2", known=known))]
    code, _, err = hactl("start", "pg", "--data-from", "node1")
    assert (code, commands(fresh)) == (6, []) and "'hactl prim pg' is your word" in err
    assert hactl("start", "pg")[0] == 0 and commands(fresh) == [("/v1/modules/pg/start", {})]


def test_a_node_that_goes_on_with_what_was_just_applied_is_waited_for(
    fresh: FakeHactld, hactl: Hactl, monkeypatch: pytest.MonkeyPatch  # noqa: F811
) -> None:
    monkeypatch.setattr(first_start, "ASK_EVERY_S", 0.0)
    silent = contents(entry("node1", DIRECTORY), entry("node2", known=None))
    fresh.answers[CONTENTS] = [silent, silent, *fresh.answers[CONTENTS]]
    code, _, err = hactl("start", "pg", "--data-from", "node1")
    assert code == 0, err
    assert commands(fresh) == [("/v1/modules/pg/prim?node=node1", {}), ("/v1/modules/pg/second?node=node2", {})]


def test_an_older_hactld_is_not_asked_twice(fresh: FakeHactld, hactl: Hactl) -> None:  # noqa: F811
    fresh.answers[CONTENTS] = [(404, {"code": 2, "message": "there is no GET"})]
    assert hactl("start", "pg")[0] == 0 and commands(fresh) == [("/v1/modules/pg/start", {})]


def test_a_module_that_runs_is_not_asked_about(fresh: FakeHactld, hactl: Hactl) -> None:  # noqa: F811
    fresh.answers["/v1/status"] = [(200, STATUS)]
    assert hactl("start", "pg")[0] == 0
    assert [target for method, target, _ in fresh.asked if "contents" in target] == []


def test_the_words_of_each_kind_of_directory() -> None:
    assert first_start.cells_of({**DIRECTORY, "exists": False}) == ("missing", "", "", "", "")
    assert first_start.cells_of({**DIRECTORY, "problem": "it does not answer"})[0] == "it does not answer"
    assert first_start.cells_of({**DIRECTORY, "whole": False, "markers": {"ibdata1": "there"}})[1::3] == ("at least 969", "ibdata1")
    one = [entry("node1", DIRECTORY), {**entry("node2"), "problem": "node2 does not answer"}]
    assert first_start.rows(one)[1][:3] == ("", "node2", "node2 does not answer")
