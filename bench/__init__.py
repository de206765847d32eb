"""The benchmark: a native directory, our mirror, the floor and, with --peers, what people would use instead, in one run on the lab.

Repetitions are interleaved and medians taken, because machines are noisy; ratios carry, absolutes do not. One file, one noun:

    main     options, and the order of things         row      one line of the table: how to measure it, what is asked
    bed      the lab with the programs on it          rows     all of them
    subject  what is measured                         figures  medians, ratios, verdicts (pure)
    mirror   gluster   postgres   floor               table    plot    results for people
    workload.c   floor.c   archive                    memory   a million known inodes

bench/run --resync measures instead what it costs that a node was away; each value stands beside what is asked of it:

    resync   the run, its table          resync_row   one kind of return, medians, verdicts
    pair     a mirror that is cut, killed, booted     resync_rows  all of them
    stage    pairs and sizes that rows share          resync_plot  the picture
    unmarked rfsmount without its intent log, for the price of marks

bench/run --cli measures how long `hactl status` takes to start: cli.

bench/run --failover measures for how long nobody answers at the service address when something dies or is moved; the worst of many counts:

    failover the run, its rows, its table             prober       a client that looks closely

A return is timed from the mended cable (or the started rfsmount) to both nodes in sync, durably. What is read is what /proc counts of both
rfsmounts, what travels is all that passes the cable of node1: TLS, TCP and the control link included.
"""
