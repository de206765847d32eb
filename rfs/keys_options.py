"""The command line of `rfsmount keys`."""

import argparse


def add_keys(parser: argparse.ArgumentParser) -> None:
    """Its verbs and their options."""
    verbs = parser.add_subparsers(dest="keys_verb", required=True, metavar="VERB", parser_class=type(parser))
    init = verbs.add_parser("init", help="make this node's key, show a one-time code and wait for the peer to join", allow_abbrev=False)
    init.add_argument("--listen", default="0.0.0.0", metavar="ADDR[:PORT]", help="where to wait (default: every address, port 5597)")
    init.add_argument("--timeout", type=float, default=600.0, metavar="S", help="how long the code is good (default and most: 600)")
    join = verbs.add_parser("join", help="pair with the node that shows the code", allow_abbrev=False)
    join.add_argument("invitation", metavar="CODE@ADDRESS", help="as shown there; '-' reads it from standard input")
    show = verbs.add_parser("show", help="this node's key, its peers' and the fingerprint words", allow_abbrev=False)
    show.add_argument("--json", action="store_true")
    forget = verbs.add_parser("forget", help="revoke the keys of a peer, for good", allow_abbrev=False)
    forget.add_argument("peer", metavar="NODE")
    for verb in (init, join, show, forget):
        verb.add_argument("--state", metavar="STATEDIR", help="of the mirror; its keys are in STATEDIR/keys")
        verb.add_argument("--keys", metavar="DIR", help="instead of STATEDIR/keys")
    for verb in (init, join):
        verb.add_argument(
            "--new-key", action="store_true", help="replace this node's key: the old one counts until the peer knows the new one"
        )
        verb.add_argument("--node", metavar="NAME", help="this node's name (default: the host's)")
