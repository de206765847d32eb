"""What a doctor would ask of a node, and what he would say: facts, judgements, findings.

Gathering and judging are apart. *Probes* (probe_*.py) look at the machine; each is a function that returns plain data, runs in a thread of
its own in a process of its own (gather.py), and is left behind when it does not answer in time: a file system that hangs costs one fact,
never the doctor. What they find, one document for a node, is *facts*; it crosses the call channel as it is. *Judgements* (judge_*.py) are
pure functions of one node's facts, or of two nodes'; each yields *findings*: ok, warn, bad or unknown, one sentence, and the command that
mends it. What is not among the facts (a probe that was left behind, a peer of another version) is *unknown*, and never a traceback.

    finding.py     the words                  judge.py      every judgement in one table, and the verdict over all
    judge_*.py     pure                       preflight.py  the same judgements before a pair or a first copy exists
    probe_*.py     thin, blocking             gather.py     the process that runs them, against a deadline
"""
