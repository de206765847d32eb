"""The security checklist: each item, and the tests that hold it. One table; docs/security-checklist.md is made of it
(`python -m tests.security.checklist`), and test_checklist.py finds every test that is named here.

The items are those of a review of what went wrong elsewhere, by subject. A test is named as pytest names it, `file.py::function`; `file.py`
alone means all of it; `native: NAME` is one of tests/native (`make -C csrc check`); `fuzz: NAME` is a fuzzer (`script/fuzz`).
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

PAGE: Final = Path(__file__).resolve().parents[2] / "docs" / "security-checklist.md"

LINK, SCAN = "tests/unit/test_link_security.py", "tests/security/test_scan.py"
BEATS, SEAL, PAIRING = "tests/unit/test_heartbeat.py", "tests/unit/test_seal.py", "tests/unit/test_pairing.py"
ROLES, LOCAL, HEALTH = "tests/unit/test_api_roles.py", "tests/security/test_local_api.py", "tests/unit/test_health.py"
LIFE, TEXT, PARTS = "tests/cluster/test_security.py", "tests/security/test_hostile_text.py", "tests/security/test_supply_chain.py"
BYTES, DOORS, FILES = "tests/unit/test_handshake_bad_bytes.py", "tests/unit/test_doors.py", "tests/security/test_files.py"
REPLAY, PACKAGES, ARCHIVE = "tests/security/test_replay.py", "tests/security/test_packages.py", "tests/unit/test_module_archive.py"
SNAPSHOT, KEYS = "tests/unit/test_snapshot.py", "tests/unit/test_keys.py"

Table = Mapping[str, Mapping[str, tuple[str, ...]]]

CHECKLIST: Final[Table] = {
    "Links": {
        "plain text is refused, counted, logged once; there is no falling back": (
            f"{LINK}::test_plain_text_is_not_taken",
            f"{SCAN}::test_before_tls",
            f"{SCAN}::test_the_data_link",
            "tests/posix/test_keys.py::test_plain_text_and_keys_do_not_mix",
            f"{BEATS}::test_with_keys_only_the_peer_is_heard",
        ),
        "a wrong certificate; the right name with a wrong key; another cluster's key": (
            f"{LINK}::test_a_key_that_is_not_paired",
            f"{SCAN}::test_the_control_link",
            f"{SCAN}::test_the_data_link",
            "tests/posix/test_keys.py::test_who_is_not_paired_is_told_and_nothing_is_lost",
            f"{BEATS}::test_calls_with_keys",
            "native: tls refusals",
        ),
        "another node's valid key; a node that calls itself otherwise": (
            f"{SCAN}::test_the_control_link",
            f"{LINK}::test_a_node_that_calls_itself_otherwise",
            f"{DOORS}::test_no_peer_can_speak_for_another",
            f"{DOORS}::test_a_call_is_answered_by_the_server_of_its_peer",
        ),
        "an expired key is an alarm, and no refusal": (
            f"{SCAN}::test_expired_and_revoked",
            f"{LINK}::test_an_expired_key_is_an_alarm_and_a_revoked_one_ends_the_session",
            f"{KEYS}::test_expiry_is_an_alarm",
            "native: tls pins",
        ),
        "a revoked key is out, also of a session that runs": (
            f"{SCAN}::test_expired_and_revoked",
            f"{LINK}::test_an_expired_key_is_an_alarm_and_a_revoked_one_ends_the_session",
            f"{BEATS}::test_a_key_that_is_revoked_meanwhile_asks_nothing",
            f"{BEATS}::test_keys_are_replaced_and_revoked_under_the_pulse",
            f"{KEYS}::test_a_revoked_key_stays_revoked",
            "tests/cluster/test_keys.py::test_a_revoked_node_is_out_until_it_is_paired_with_a_new_key",
        ),
        "keys are replaced with an overlap, without an interruption": (
            f"{LINK}::test_a_key_is_replaced_under_an_established_session",
            f"{KEYS}::test_a_rotation_has_two_keys_for_a_while",
            "tests/cluster/test_keys.py::test_keys_are_replaced_without_an_interruption",
        ),
        "nothing older than TLS 1.3 (so no renegotiation), no compression, no weak suite": (
            f"{LINK}::test_tls_1_2_is_not_taken",
            f"{SCAN}::test_the_control_link",
            f"{SCAN}::test_the_data_link",
            f"{LIFE}::test_the_doors_of_hactld_and_rfsmount",
            "native: tls refusals",
        ),
        "no session resumption, no tickets, no 0-RTT": (
            f"{SCAN}::test_the_control_link",
            f"{SCAN}::test_the_data_link",
            f"{LIFE}::test_the_doors_of_hactld_and_rfsmount",
        ),
        "before authentication: few bytes, five seconds, eight places for each address": (
            f"{SCAN}::test_before_tls",
            f"{LINK}::test_those_who_say_nothing_are_few_and_go_after_a_while",
            f"{BYTES}::test_a_silent_stranger_is_dropped_after_the_deadline",
            f"{BYTES}::test_random_bytes_are_no_preamble",
            f"{BYTES}::test_garbage_is_dropped_and_counted_and_the_peer_still_gets_in",
            f"{DOORS}::test_a_flood_at_one_peers_server_keeps_no_other_out",
            f"{BEATS}::test_a_few_silent_callers_do_not_keep_the_peer_out_for_long",
            f"{PAIRING}::test_silent_strangers_keep_nobody_out",
        ),
        "each refusal is counted by kind and logged once": (
            f"{SCAN}::test_the_control_link",
            f"{LIFE}::test_the_doors_of_hactld_and_rfsmount",
            "tests/cluster/test_keys.py::test_strangers_are_counted_and_change_nothing",
            f"{BEATS}::test_a_flood_from_forged_addresses_is_one_line",
            f"{DOORS}::test_strangers_at_the_pulse_door",
        ),
        "a scan of our own, of every door, in a real life": (
            f"{SCAN}::test_the_control_link",
            f"{SCAN}::test_the_data_link",
            f"{LIFE}::test_the_doors_of_hactld_and_rfsmount",
            f"{LIFE}::test_nothing_else_listens",
        ),
        "pairing: one code, once, for ten minutes and five attempts; nobody in between": (
            f"{PAIRING}::test_wrong_codes_are_counted_and_void_the_right_one",
            f"{PAIRING}::test_a_code_is_void_after_its_time",
            f"{PAIRING}::test_somebody_in_between_learns_nothing_and_pairs_with_nobody",
            f"{PAIRING}::test_only_the_peers_addresses_may_try",
            "tests/posix/test_keys.py::test_two_commands_pair_two_nodes",
        ),
        "data is authenticated record by record; a changed or repeated one ends the link": (
            "native: tls meddling",
            "native: tls with OpenSSL",
        ),
        "the witness' certificate is checked": (
            "tests/unit/test_etcd.py::test_https_with_a_ca_of_ones_own",
            "tests/unit/test_etcd.py::test_a_certificate_of_somebody_else_is_refused",
        ),
    },
    "Replay": {
        "a frame": ("native: tls meddling",),
        "a session, a call": (
            f"{REPLAY}::test_a_session_of_rfsmount",
            f"{REPLAY}::test_a_call_of_hactld",
            f"{REPLAY}::test_the_number_of_a_data_connection",
        ),
        "a heartbeat: of yesterday, of another process, held back": (
            f"{BEATS}::test_with_keys_only_the_peer_is_heard",
            f"{SEAL}::test_a_run_is_believed_after_an_echo_that_nobody_can_have_recorded",
            f"{SEAL}::test_what_is_sealed_is_opened_once_and_on_its_network_alone",
            f"{SEAL}::test_many_recorded_runs_use_up_nothing",
            f"{BEATS}::test_a_pulse_that_was_held_back_stands_for_the_time_when_it_was_said",
        ),
        "a witness' answer, a request that comes late, a register that has lost its memory": (
            "tests/unit/test_etcd.py::test_compare_and_swap",
            "tests/unit/test_arbiter.py::test_a_lost_answer_blocks_nobody",
            "tests/unit/test_arbiter.py::test_an_emptied_register_is_armed_by_a_person",
            "tests/unit/test_witness.py::test_what_a_compare_and_swap_may_start_from",
        ),
    },
    "The apply path": {
        "a hostile peer with a valid key: sixty cases and more": (
            "tests/hostile/test_target.py",
            "tests/hostile/test_source.py",
            "tests/hostile/test_control.py",
            "tests/hostile/test_limits.py",
        ),
        "no suid bits, no device nodes, where the module says so": ("tests/posix/test_policy.py",),
        "a resync that removes much waits for a person": ("tests/posix/test_brake.py",),
        "a hostile peer brings no configuration, and so no code, where that is wanted": (
            "tests/unit/test_config_rounds.py::test_a_node_that_takes_up_its_own_files_only",
        ),
        "a local user who races names and links in the tree": ("tests/hostile_user/test_races.py",),
        "hostile bytes: frames, records, requests, and everything else that is parsed": (
            "fuzz: frames",
            "fuzz: apply",
            "fuzz: records",
            "fuzz: requests",
            f"{BYTES}::test_random_bytes_are_no_message",
            f"{BEATS}::test_flipped_bytes_never_escape_as_anything_else",
        ),
    },
    "Privileges and files": {
        "each process has the least that it needs": ("tests/posix/test_privileges.py", "tests/unit/test_privileges.py"),
        "what runs as root is root's alone to change": ("tests/unit/test_ownership.py",),
        "nothing is left world-writable or with a suid bit; everything is root's": (
            f"{LIFE}::test_nothing_is_left_that_others_may_change",
        ),
        "secrets 0600 in 0700, sockets 0600 or 0660, of hactld and rfsmount": (
            f"{LIFE}::test_secrets_and_sockets_have_their_modes",
            f"{KEYS}::test_nobody_else_can_read_them",
            f"{KEYS}::test_a_file_that_others_can_read_is_refused",
            "tests/unit/test_control.py::test_the_socket_is_for_root_alone",
            f"{ROLES}::test_the_door_by_groups",
            "tests/unit/test_sockets.py",
        ),
        "nothing is made with a wider mode and narrowed later; secrets with O_EXCL": (
            f"{FILES}::test_keys",
            f"{FILES}::test_a_life_of_rfsmount",
            f"{LIFE}::test_hactld_makes_its_files_as_they_stay",
            f"{FILES}::test_a_link_that_somebody_has_planted_is_not_followed",
        ),
        "state files survive a cut": ("tests/unit/test_state_files.py", "tests/unit/test_record.py", "tests/powercut/test_powercut.py"),
    },
    "Secrets": {
        "keys, codes and passwords are in no log, status, history, answer, list of processes or environment": (
            f"{LIFE}::test_no_secret_is_to_be_seen",
            f"{LIFE}::test_the_service_has_its_secret_and_nobody_else",
            "tests/cluster/test_keys.py::test_the_links_are_protected_and_nothing_secret_is_to_be_seen",
            "tests/posix/test_keys.py::test_two_commands_pair_two_nodes",
        ),
        "nor in a snapshot": (
            f"{SNAPSHOT}::test_no_secret_leaves_the_node",
            f"{SNAPSHOT}::test_what_looks_like_a_secret_goes",
            "tests/cluster/test_doctor.py::test_a_snapshot_has_both_nodes_and_no_secret",
        ),
        "nor, unasked, in a package of a module": ("tests/unit/test_module_commands.py", f"{ARCHIVE}::test_there_and_back"),
    },
    "The API": {
        "role × verb × interface, every cell": (
            f"{ROLES}::test_the_matrix_at_the_unix_socket",
            f"{ROLES}::test_the_matrix_at_the_call_channel",
            f"{ROLES}::test_every_route_of_the_daemon_has_a_role",
            f"{ROLES}::test_every_call_of_a_peer_has_a_role",
            f"{ROLES}::test_what_is_not_in_the_table_is_refused",
            f"{ROLES}::test_an_option_may_be_more_than_its_verb",
        ),
        "no role, no door; who goes past the front is asked again": (
            f"{ROLES}::test_who_has_no_role_cannot_connect",
            f"{LIFE}::test_an_inner_socket_asks_again",
            "tests/unit/test_control.py::test_the_socket_is_for_root_alone",
        ),
        "sizes and time of a request": (
            f"{LOCAL}::test_a_body_has_a_size",
            f"{LOCAL}::test_a_head_has_a_size",
            f"{LOCAL}::test_json_that_is_too_deep_or_none",
            f"{LOCAL}::test_a_request_that_does_not_end_is_not_waited_for",
            f"{LOCAL}::test_requests_without_end_on_one_connection",
            f"{ROLES}::test_a_body_is_not_waited_for_when_it_may_not_be_sent",
        ),
        "nobody uses hactld up: connections and streams of each user, room for root": (
            f"{LOCAL}::test_one_user_cannot_use_hactld_up",
            f"{LOCAL}::test_event_streams_are_bounded_for_each_user",
            f"{LOCAL}::test_all_users_together_leave_room_for_root",
            f"{ROLES}::test_root_finds_room_when_others_hold_connections",
            "tests/unit/test_api_feed.py::test_too_many_streams",
        ),
        "no GET changes anything; a browser gets no leave": (
            f"{LOCAL}::test_no_get_changes_anything",
            f"{LOCAL}::test_a_browser_gets_no_leave",
            f"{LOCAL}::test_nothing_can_be_ordered_at_the_health_address",
        ),
        "the health address: small requests, little time, a bounded number": (
            f"{HEALTH}::test_who_says_nothing_is_not_waited_for",
            f"{HEALTH}::test_many_idle_connections_keep_nobody_out",
            f"{HEALTH}::test_nonsense_is_answered_and_ends",
            f"{HEALTH}::test_no_target_ends_hactld",
        ),
        "what gives data up is an admin's, and is said by typing the module's name": (
            "tests/unit/test_hactl_cli.py::test_what_is_dangerous_is_said_by_the_modules_name",
            f"{ROLES}::test_an_option_may_be_more_than_its_verb",
        ),
        "who did what is in the history of the node": (
            "tests/unit/test_api_routes.py::test_who_asked_is_in_the_history",
            f"{ROLES}::test_the_matrix_at_the_call_channel",
            f"{LIFE}::test_no_secret_is_to_be_seen",
        ),
        "hostile text: no command to a terminal, no forged line, valid JSON": (
            f"{TEXT}::test_no_table_of_hactl_shows_it",
            f"{TEXT}::test_json_stays_json",
            f"{TEXT}::test_rfsmount_shows_none_of_it",
            f"{TEXT}::test_no_line_of_a_log_is_forged",
            f"{TEXT}::test_there_is_one_way_to_print",
            f"{TEXT}::test_no_option_is_hostile_enough",
            f"{TEXT}::test_our_own_colours_stay_and_no_others",
        ),
        "a package of a module is code, and can bring nothing else along": (
            f"{PACKAGES}::test_it_says_that_it_is_code_before_anything_is_written",
            f"{PACKAGES}::test_bits_and_owners_stay_behind",
            f"{ARCHIVE}::test_a_hostile_file_is_refused_with_its_reason",
            f"{ARCHIVE}::test_damage_is_refused_or_harmless",
            f"{TEXT}::test_a_package_cannot_speak_to_the_terminal",
        ),
    },
    "What it is made of": {
        "pinned with hashes, for every machine and Python; a changed file is not installed": (
            f"{PARTS}::test_everything_is_pinned_with_hashes",
            f"{PARTS}::test_a_lock_serves_every_machine_and_every_python",
            f"{PARTS}::test_a_changed_file_is_not_installed",
            f"{PARTS}::test_bootstrap_takes_what_is_pinned_and_nothing_else",
        ),
        "lock, project and what is installed agree": (
            f"{PARTS}::test_the_locks_are_what_the_project_wants",
            f"{PARTS}::test_the_locks_agree_with_each_other",
            f"{PARTS}::test_what_is_installed_is_what_is_pinned",
        ),
        "a list of parts; known weaknesses, where there is a network": (
            f"{PARTS}::test_the_list_of_parts_is_the_locks",
            f"{PARTS}::test_known_weaknesses",
        ),
        "the wheel can be made again, byte for byte": (f"{PARTS}::test_two_builds_are_one_wheel",),
        "how units are hardened, in figures": ("tests/cluster/test_units.py",),
        "how the engine's binary is hardened": ("tests/unit/test_hardening.py",),
        "SECURITY.md: every file and test that it names is there": (
            "tests/security/test_checklist.py::test_what_security_md_names_is_there",
        ),
    },
}

INTRODUCTION: Final = (
    "Each item, and the tests that hold it. What is protected against whom, and what is not: [SECURITY.md](../SECURITY.md). A console for\n"
    "browsers is not there yet, so what only concerns one (sessions, CSRF, passwords) is not here either."
)


def named() -> list[str]:
    """Every test of the table, once."""
    return sorted({test for items in CHECKLIST.values() for tests in items.values() for test in tests})


def page() -> str:
    """The page's text."""
    lines = ["# The security checklist", "", "<!-- Written by `python -m tests.security.checklist`; not by hand. -->", ""]
    lines += [f"{INTRODUCTION}\n"]
    for subject, items in CHECKLIST.items():
        lines += [f"## {subject}", "", "| item | held by |", "|---|---|"]
        lines += [f"| {item} | {', '.join(f'`{shown(test)}`' for test in tests)} |" for item, tests in items.items()]
        lines.append("")
    return "\n".join(lines)


def shown(test: str) -> str:
    """Without what can be guessed."""
    return test.removeprefix("tests/")


if __name__ == "__main__":
    PAGE.write_text(page())
    sys.exit(0)
