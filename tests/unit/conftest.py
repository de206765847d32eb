"""The helpers beside the tests (pair.py, fake_engine.py) are importable however pytest is started."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
