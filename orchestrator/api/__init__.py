"""The local interface of hactld: HTTP/1.1 with JSON bodies on the unix socket /run/lockstep/hactld.sock, for root only.

    GET  /v1/status                      hactl.status/1: this node's knowledge and the peer's last heartbeat
    GET  /v1/status?node=NAME            the same, as that node sees it
    GET  /v1/status?node=all             both: the peer's lines come from the peer itself when it answers, else "partial": true
    POST /v1/modules/NAME/VERB           VERB: start stop restart swap prim second; body {"force": bool, "fullsync": bool} or nothing
         ...?node=NAME|all               there instead of here. `swap` finds the primary by itself
    GET  /v1/modules/NAME/logs?lines=N   {"node", "module", "lines": [services and scripts], "rfs_lines": [rfsmount]}; ?node=NAME
    GET  /v1/modules/NAME/contents       hactl.contents/1, see contents.py; ?node=NAME|all
    GET  /v1/events?after=N              {"node", "events": [{"number", "time", "wall_s", "module", "kind", "text"}], "last": N}; ?node=NAME
    GET  /v1/doctor?what=…               facts, clock, snapshot: see doctor.py; ?node=NAME

The answer to a command: {"code": exit code, "message": sentence, "results": [{"node", "code", "message"}]}. It says that the
command was accepted, not that it is finished: whoever wants to wait reads the status. `code` is the exit code of hactl for it
(the worst of the results). HTTP statuses: 200 done, 400 usage (2), 403 not permitted (8), 404 unknown, 409 refused for safety
(6), 502 peer not reachable (5), 504 timeout (7), 500 failed (1); the body of an error is {"code", "message"} as well.
"""
