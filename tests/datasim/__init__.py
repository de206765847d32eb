"""Two data sides and a witness in one process, driven by the real rules and the real marks; see world.py."""
