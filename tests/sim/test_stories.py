"""Every failover story of the manual, told to two real cores."""

from orchestrator.core import events as ev
from tests.sim.cluster import Cluster, paired, settle


def test_first_start_waits_for_the_word() -> None:
    cluster = Cluster(1)
    for name in ("node1", "node2"):
        cluster.boot(name)
        cluster.command(name, ev.Start)
    cluster.run(10.0)
    assert cluster.shown("node1") == "WAIT NotReady"
    assert "hactl prim pg" in cluster.reason("node1")
    cluster.command("node2", ev.Prim)
    cluster.wait(20.0, node2="PRIM Ready", node1="SECOND Ready")


def test_power_loss_of_the_primary() -> None:
    cluster = paired(2)
    cluster.power_off("node1")
    assert cluster.wait(6.0, node2="ALONE Ready") >= 2.5
    cluster.boot("node1")
    cluster.wait(20.0, node1="SECOND Ready", node2="PRIM Ready")


def test_power_loss_of_the_secondary() -> None:
    cluster = paired(3)
    cluster.power_off("node2")
    cluster.wait(6.0, node1="ALONE Ready")
    assert cluster.machines["node1"].services
    cluster.boot("node2")
    cluster.wait(20.0, node1="PRIM Ready", node2="SECOND Ready")


def test_rfsmount_killed_on_the_primary_hands_over_at_once() -> None:
    cluster = paired(4)
    cluster.kill_rfs("node1")
    cluster.run(2.0)
    assert cluster.machines["node2"].services and not cluster.machines["node1"].services
    cluster.wait(30.0, node1="SECOND Ready", node2="PRIM Ready")


def test_rfsmount_killed_without_a_second_restarts_in_place() -> None:
    cluster = paired(5)
    cluster.power_off("node2")
    cluster.wait(6.0, node1="ALONE Ready")
    cluster.kill_rfs("node1")
    cluster.run(1.0)
    cluster.wait(10.0, node1="ALONE Ready")


def test_swap() -> None:
    cluster = paired(6)
    cluster.command("node1", ev.Swap)
    cluster.wait(10.0, node1="SECOND Ready", node2="PRIM Ready")
    cluster.command("node2", ev.Swap)
    cluster.wait(10.0, node2="SECOND Ready", node1="PRIM Ready")


def test_stop_of_the_primary_hands_over() -> None:
    cluster = paired(7)
    cluster.command("node1", ev.Stop)
    cluster.wait(10.0, node1="STOP NotReady", node2="ALONE Ready")
    cluster.command("node1", ev.Start)
    cluster.wait(20.0, node1="SECOND Ready", node2="PRIM Ready")


def test_old_data_wait() -> None:
    cluster = paired(8)
    cluster.command("node2", ev.Stop)
    cluster.wait(10.0, node1="ALONE Ready", node2="STOP NotReady")
    cluster.run(5.0)
    cluster.power_off("node1")
    cluster.command("node2", ev.Start)
    cluster.run(30.0)
    assert cluster.shown("node2") == "WAIT NotReady", cluster.shown("node2")
    assert not cluster.machines["node2"].services
    cluster.boot("node1")
    cluster.wait(20.0, node1="PRIM Ready", node2="SECOND Ready")


def test_data_link_cut_only() -> None:
    cluster = paired(9)
    cluster.cut_network("repl")
    cluster.wait(10.0, node1="ALONE Ready")
    assert not cluster.machines["node2"].services
    cluster.run(20.0)
    cluster.heal()
    cluster.wait(20.0, node1="PRIM Ready", node2="SECOND Ready")


def test_primary_cut_off_from_everything() -> None:
    primary_cut_off_from_everything(10)


def primary_cut_off_from_everything(seed: int) -> None:
    cluster = paired(seed)
    cluster.cut_network("lan", "repl", isolated="node1")
    cluster.wait(8.0, node2="ALONE Ready")
    assert cluster.shown("node1") == "ALONE NotReady"
    assert "cut off" in cluster.reason("node1")
    cluster.run(20.0)
    cluster.heal()
    cluster.wait(20.0, node2="PRIM Ready", node1="SECOND Ready")


def test_secondary_cut_off_from_everything() -> None:
    cluster = paired(11)
    cluster.cut_network("lan", "repl", isolated="node2")
    cluster.wait(8.0, node1="ALONE Ready")
    cluster.run(20.0)
    assert not cluster.machines["node2"].services
    cluster.heal()
    cluster.wait(20.0, node1="PRIM Ready", node2="SECOND Ready")


def test_consistency_never_promotes_a_secondary() -> None:
    cluster = paired(12, policy="consistency")
    cluster.power_off("node1")
    cluster.run(30.0)
    assert cluster.shown("node2") == "SECOND Transient"
    assert "hactl prim" in cluster.reason("node2")
    cluster.command("node2", ev.Prim)
    cluster.wait(5.0, node2="ALONE Ready")


def test_frozen_primary_wakes_up_after_the_takeover() -> None:
    cluster = paired(13)
    cluster.freeze("node1")
    cluster.wait(8.0, node2="ALONE Ready")
    cluster.run(10.0)
    cluster.thaw("node1")
    cluster.run(2.0)
    assert not cluster.machines["node1"].services
    cluster.wait(20.0, node2="PRIM Ready", node1="SECOND Ready")


def test_short_freeze_changes_nothing() -> None:
    cluster = paired(14)
    cluster.freeze("node1")
    cluster.run(1.8)
    cluster.thaw("node1")
    cluster.wait(10.0, node1="PRIM Ready", node2="SECOND Ready")
    assert cluster.machines["node1"].services


def test_hactld_restart_is_not_noticed() -> None:
    cluster = paired(15)
    for name in ("node1", "node2"):
        cluster.kill_hactld(name)
        cluster.run(2.0)
        cluster.start_hactld(name)
        before = len(cluster.trace)
        cluster.wait(5.0, node1="PRIM Ready", node2="SECOND Ready")
        assert not any("StopServices" in line or "VipDown" in line or "Start" + "Services" in line for line in cluster.trace[before:])


def test_dead_hactld_alone_is_no_reason_to_take_over() -> None:
    cluster = paired(16)
    cluster.kill_hactld("node1")
    cluster.run(20.0)
    assert cluster.shown("node2") == "SECOND Ready"
    assert cluster.acknowledges(cluster.machines["node1"])


def test_service_dies_and_restarts_in_place() -> None:
    cluster = paired(17)
    cluster.service_dies(cluster.machines["node1"])
    cluster.run(0.2)
    cluster.wait(8.0, node1="PRIM Ready", node2="SECOND Ready")


def test_service_that_dies_while_the_start_has_not_ended_is_not_taken_for_up() -> None:
    cluster = paired(13)
    node1 = cluster.machines["node1"]
    cluster.service_dies(node1)
    for _ in range(100):
        cluster.run(0.02)
        if node1.services:  # started, and nobody has heard of it yet
            break
    cluster.service_dies(node1)
    cluster.run(5.0)
    cluster.wait(10.0, node1="PRIM Ready", node2="SECOND Ready")
    assert node1.services


def test_service_that_fails_too_often_moves() -> None:
    cluster = paired(18)
    core = cluster.machines["node1"].core
    assert core is not None
    for _ in range(51):
        cluster.service_dies(cluster.machines["node1"])
        cluster.run(3.0)
    cluster.wait(10.0, node2="PRIM Ready", node1="SECOND Ready")


def test_swap_is_refused_without_a_ready_second() -> None:
    cluster = paired(19)
    cluster.power_off("node2")
    cluster.wait(6.0, node1="ALONE Ready")
    cluster.command("node1", ev.Swap)
    assert cluster.replies[-1][0] == 6


def old_primary_restarts_behind_a_cut_data_link() -> Cluster:
    """Every start of a primary raises its term, also of one with old data: the node that serves must not yield to it."""
    cluster = paired(20)
    cluster.power_off("node1")
    cluster.wait(6.0, node2="ALONE Ready")
    cluster.cut_network("repl")
    cluster.boot("node1")
    for _ in range(4):
        cluster.run(4.0)
        cluster.kill_rfs("node1")
    cluster.run(6.0)
    old, new = cluster.machines["node1"].rfs.record, cluster.machines["node2"].rfs.record
    assert old is not None
    assert new is not None
    assert old.term > new.term
    assert cluster.shown("node2") == "ALONE Ready", "\n".join(cluster.trace[-40:])
    assert cluster.shown("node1") == "WAIT NotReady"
    return cluster


def test_an_old_primary_with_a_higher_term_waits() -> None:
    cluster = old_primary_restarts_behind_a_cut_data_link()
    cluster.heal()
    cluster.wait(20.0, node2="PRIM Ready", node1="SECOND Ready")


def test_a_late_answer_is_not_taken_for_a_newer_loss() -> None:
    """The peer wrote OUTDATED for the first loss; by the second one it is up to date again and may take over."""
    cluster = paired(21)
    for number in range(40):
        cluster.answer_within_s = 6.5
        cluster.cut_network("repl")
        cluster.run(0.5)
        cluster.heal()
        cluster.run(cluster.random.uniform(2.3, 4.0))
        cluster.cut_network("repl")
        for _ in range(200):
            cluster.run(0.05)
            one, two = (machine.rfs.record for machine in cluster.machines.values())
            assert one is not None and two is not None
            alone = cluster.machines["node1"].rfs.mode == "alone"
            assert not (alone and two.data == "UPTODATE"), f"round {number}\n" + "\n".join(cluster.trace[-40:])
        cluster.answer_within_s = 0.05
        cluster.heal()
        cluster.wait(30.0, node1="PRIM Ready", node2="SECOND Ready")


def test_with_a_witness_a_partition_leaves_one_writer_without_any_ping() -> None:
    for seed in range(20):
        cluster = paired(100 + seed, policy="consistency", ping=False, witness=True)
        cluster.cut_network("lan", "repl")
        cluster.run(15.0)
        serving = [name for name, machine in cluster.machines.items() if cluster.acknowledges(machine)]
        assert len(serving) == 1
        (other,) = set(cluster.machines) - set(serving)
        assert not cluster.machines[other].services
        cluster.heal()
        cluster.wait(20.0, **{serving[0]: "PRIM Ready", other: "SECOND Ready"})


def test_a_primary_cut_off_from_peer_and_witness_gives_the_address_back() -> None:
    cluster = paired(130, ping=False, witness=True)
    cluster.cut_network("lan", "repl", isolated="node1")
    cluster.wait(8.0, node2="ALONE Ready")
    cluster.run(1.0)
    assert cluster.machines["node1"].address_until < cluster.now
    cluster.heal()
    cluster.wait(20.0, node2="PRIM Ready", node1="SECOND Ready")


def test_a_witness_that_is_away_when_the_peer_dies_is_waited_for() -> None:
    cluster = paired(131, ping=False, witness=True)
    assert cluster.witness is not None
    cluster.witness.out_of_reach = {"node1", "node2"}
    cluster.power_off("node1")
    cluster.run(30.0)
    assert cluster.shown("node2") == "SECOND Transient" and "witness" in cluster.reason("node2")
    cluster.witness.out_of_reach.clear()
    cluster.wait(10.0, node2="ALONE Ready")


# ---- switches, stopstart, the default primary -------------------------------------------------------------------------------------


def pause(cluster: Cluster) -> None:
    for name in ("node1", "node2"):
        cluster.command(name, ev.Switch, switch="failover", value="off")


def test_paused_failover_waits_for_the_word() -> None:
    cluster = paired(40)
    pause(cluster)
    cluster.power_off("node1")
    cluster.run(20.0)
    assert cluster.shown("node2") == "WAIT NotReady"
    assert "automatic failover is paused: 'hactl prim pg'" in cluster.reason("node2")
    cluster.command("node2", ev.Prim)
    cluster.wait(10.0, node2="ALONE Ready")


def test_resumed_failover_acts_on_what_is_still_so() -> None:
    cluster = paired(41)
    pause(cluster)
    cluster.power_off("node1")
    cluster.run(20.0)
    cluster.command("node2", ev.Switch, switch="failover", value="on")
    cluster.wait(5.0, node2="ALONE Ready")


def test_paused_and_rfsmount_dies_starts_again_in_its_place() -> None:
    cluster = paired(42)
    pause(cluster)
    cluster.kill_rfs("node1")
    cluster.wait(20.0, node1="PRIM Ready", node2="SECOND Ready")


def test_paused_and_stopped_leaves_the_second_waiting() -> None:
    cluster = paired(43)
    pause(cluster)
    cluster.command("node1", ev.Stop)
    cluster.run(15.0)
    assert cluster.shown("node1").startswith("STOP")
    assert cluster.shown("node2").startswith("WAIT") and "paused" in cluster.reason("node2")
    cluster.command("node1", ev.Start)
    cluster.wait(20.0, node1="PRIM Ready", node2="SECOND Ready")  # the roles of before


def test_a_swap_is_a_word_also_when_paused() -> None:
    cluster = paired(44)
    pause(cluster)
    cluster.command("node1", ev.Swap)
    cluster.wait(10.0, node1="SECOND Ready", node2="PRIM Ready")


def test_the_pause_survives_hactld_and_the_machine() -> None:
    cluster = paired(45)
    pause(cluster)
    cluster.kill_hactld("node2")
    cluster.start_hactld("node2")
    cluster.wait(10.0, node2="SECOND Ready")
    cluster.power_off("node2")
    cluster.run(5.0)
    cluster.boot("node2")
    cluster.wait(20.0, node2="SECOND Ready")
    cluster.power_off("node1")
    cluster.run(10.0)
    assert cluster.shown("node2") == "WAIT NotReady"


def test_stopstart_of_the_primary_moves_the_role() -> None:
    cluster = paired(46)
    cluster.command("node1", ev.StopStart)
    cluster.wait(20.0, node1="SECOND Ready", node2="PRIM Ready")
    assert cluster.machines["node1"].memory.wanted


def test_stopstart_alone_comes_up_again() -> None:
    cluster = paired(47)
    cluster.power_off("node2")
    cluster.wait(6.0, node1="ALONE Ready")
    starts = sum("StartServices" in line for line in cluster.trace)
    cluster.command("node1", ev.StopStart)
    cluster.run(1.5)
    cluster.wait(15.0, node1="ALONE Ready")
    assert sum("StartServices" in line for line in cluster.trace) == starts + 1


def test_stopstart_of_the_secondary_disturbs_nobody() -> None:
    cluster = paired(48)
    cluster.command("node2", ev.StopStart)
    cluster.run(1.5)
    cluster.wait(20.0, node1="PRIM Ready", node2="SECOND Ready")


def test_the_role_returns_to_the_default_primary() -> None:
    cluster = paired(49, default_primary="node1")
    cluster.power_off("node1")
    cluster.wait(6.0, node2="ALONE Ready")
    cluster.boot("node1")
    cluster.wait(40.0, node1="PRIM Ready", node2="SECOND Ready")


def test_lastprim_gets_its_role_back_and_a_swap_is_not_undone() -> None:
    cluster = paired(50, default_primary="lastprim")
    cluster.power_off("node1")
    cluster.wait(6.0, node2="ALONE Ready")
    cluster.boot("node1")
    cluster.wait(40.0, node1="PRIM Ready", node2="SECOND Ready")
    cluster.command("node1", ev.Swap)
    cluster.wait(10.0, node1="SECOND Ready", node2="PRIM Ready")
    cluster.run(30.0)
    assert cluster.shown("node2") == "PRIM Ready"


def test_a_default_primary_that_dies_again_and_again_gets_the_role_back_only_so_often() -> None:
    cluster = Cluster(51)
    cluster.default_primary, cluster.max_restarts = "node1", 2
    settle(cluster)
    returned = []
    for _ in range(4):
        cluster.power_off("node1")
        cluster.wait(10.0, node2="ALONE Ready")
        cluster.boot("node1")
        cluster.wait(20.0, node1="SECOND Ready", node2="PRIM Ready")
        cluster.run(15.0)
        returned.append(cluster.shown("node1") == "PRIM Ready")
        if not returned[-1]:
            break
    assert returned == [True, True, False], "as often as the services may be restarted"
    cluster.command("node2", ev.Swap)  # a person's word: counted anew
    cluster.wait(10.0, node1="PRIM Ready", node2="SECOND Ready")


def test_paused_failover_pauses_the_way_back_too() -> None:
    cluster = paired(52, default_primary="node1")
    cluster.power_off("node1")
    cluster.wait(6.0, node2="ALONE Ready")
    cluster.command("node2", ev.Switch, switch="failover", value="off")
    cluster.boot("node1")
    cluster.wait(20.0, node1="SECOND Ready", node2="PRIM Ready")
    cluster.run(30.0)
    assert cluster.shown("node2") == "PRIM Ready"
