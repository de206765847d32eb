"""For all tests: machines are noisy, so no example of hypothesis has a deadline (each test as a whole has one)."""

from hypothesis import settings

settings.register_profile("lockstep", deadline=None)
settings.load_profile("lockstep")
