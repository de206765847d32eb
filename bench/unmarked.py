"""rfsmount as it would be without marks: the engine is opened without its intent log. For the comparison alone; takes rfsmount's own words.

python bench/unmarked.py mount ...
"""

import sys

from rfs.cli import main
from rfs.engine import Engine


async def _leave_closed(_engine: Engine, _directory: str) -> bool:
    return False


if __name__ == "__main__":
    Engine.open_marks = _leave_closed  # type: ignore[method-assign, assignment]
    sys.exit(main(sys.argv[1:]))
