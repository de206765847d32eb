"""The benchmark: a native directory, our mirror, the floor and, with --peers, what people would use instead, in one run on the lab.

Repetitions are interleaved and medians taken, because machines are noisy; ratios carry, absolutes do not. One file, one noun:

    main     options, and the order of things         row      one line of the table: how to measure it, what is asked
    bed      the lab with the programs on it          rows     all of them
    subject  what is measured                         figures  medians, ratios, verdicts (pure)
    mirror   gluster   postgres   floor               table    plot    results for people
    workload.c   floor.c   archive                    memory   a million known inodes
"""
