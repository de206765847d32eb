"""A snapshot for whoever is asked for help: one file with what both nodes know, and nothing that is nobody's business.

Every node makes its own part (part.py): a child collects it against deadlines, takes out what is secret (redact.py), and hands it over as
a small archive. hactl fetches the parts in pieces, adds what the daemons say and the doctor's findings, replaces names and addresses where
that is asked for (anonymise.py), and writes one .tar.gz with a manifest (bundle.py): what is inside, with hashes, and what was left out and
why. A node that does not answer is a line in the manifest, never the end of the snapshot.
"""
