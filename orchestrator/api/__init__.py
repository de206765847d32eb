"""The local interface of hactld: HTTP/1.1 with JSON bodies on the unix socket /run/lockstep/hactld.sock. docs/interfaces.md has the routes.

    server.py     HTTP, and whether who asks may (access.py: who it is; roles.py: what that permits)
    routes.py     which node a question is for: this one (here.py), or a peer, who is asked over the call channel (peer_calls.py: its side)
    commands.py   the verbs of a module and the core's events for them; works.py: long work on its data
    feed.py       the event stream; contents.py, doctor.py, config_calls.py: what directories hold, examinations, the configuration
    schemas.py    the shape of every document; index.py: what there is to ask
    client.py     hactl's side; health.py: where load balancers ask, over TCP

The answer to a command is `hactl.answer/1`: {"code": exit code, "message": sentence, "results": [{"node", "code", "message"}]}. It says
that the command was accepted, not that it is finished: whoever wants to wait reads the status, or the event stream. `code` is the exit
code of hactl for it (the worst of the results). HTTP statuses: 200 done, 400 usage (2), 403 not permitted (8), 404 unknown, 409 refused
for safety (6), 502 peer not reachable (5), 504 timeout (7), 500 failed (1); the body of an error is `hactl.error/1` with code and message
as well.
"""
