"""The decisions of hactld, and nothing but decisions.

    states.py          what is known: enums and frozen dataclasses
    events.py          everything that can happen
    actions.py         everything that can be ordered
    detector.py        heartbeats in, "the peer is silent on ..." out
    failover_rules.py  the questions: what is this module's goal, may it take over, may it go on alone
    turn.py            what a step works on
    meanings.py        what each event means for a module
    machine.py         step(node, event) -> (node, actions): the table, and settling

No file here knows a clock, a socket, a process or a log: time arrives in the events, and what must be done leaves as
actions. So two cores in one ordinary test are a whole cluster.
"""
