"""A plugin of pytest's that comes before everything: `rfs` is the package of the build that LOCKSTEP_HOSTILE_ENGINE names."""

import os
import sys

sys.path.insert(0, os.environ["LOCKSTEP_HOSTILE_ENGINE"])
