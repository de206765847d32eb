"""The unix socket STATEDIR/control.sock, through which a running rfsmount is asked and told.

protocol.py  frames and their limits, known to both sides
server.py    rfsmount's side (trio)
client.py    hactld's side (trio)
blocking.py  the command line's side: no trio, because its import would be the slowest part of `rfsmount status`
"""
