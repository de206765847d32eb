"""rfsmount: one node's copy of a module's directories, and its session with the peer's.

From the outside in (each may import what stands below it, never above):

    cli launch daemonize show     the command line; `serve` is the life of the process it starts
    serve                         puts everything below together
    commands status promotion     what the control socket can ask and see (control/: the socket itself)
    session resync in_session     one session with the peer: entering, the way to the mirrored pair, life within
    session_core session_state
    supervisor control_link       finding the peer, one control link to it, and the data links of its sessions
    handshake peer_messages       the bytes of both
    replica                       the state: record, engine, layers, role, and every transition between them
    mount mount_table             the layers over the directories: plain tree, guard, FUSE
    added_directory               one more of them while it runs
    directory_checks state_directory replace_data
    relay operations              pyfuse3 beside the engine, for the cold operations
    engine                        the only importer of the compiled engine (csrc/)
    rules decide record           pure: the durable transitions, who has the data, the record (record_file writes it)
    settings errors exit_codes
"""
