"""An application that knows what it was told: a row of numbered operations, each noted elsewhere once it has returned.

    python application.py DIRECTORY LOG FIRST           runs until SIGTERM, or until an operation fails (which is noted as well)
    python application.py DIRECTORY LOG FIRST COUNT     so many operations; goes on with the next group where one fails

`expected` replays what was noted. The one operation that was under way when a run ended may have been done or not: both are right.
"""

import os
import signal
import sys
import time

PACE_S = 0.002
GROUP = 16
JOURNAL = "journal"
Tree = dict[str, bytes | str]


def content(number: int) -> bytes:
    return f"content of {number} ".encode() * (number * 37 % 700 + 1)


def touched(number: int) -> tuple[str, ...]:
    """The names that an operation has to do with. Groups have nothing to do with each other but for the journal."""
    first = number - number % GROUP
    return {
        0: (f"made{first}",), 1: (), 2: (f"directory{first}",), 3: (f"made{first}", f"directory{first}/renamed"),
        4: (), 5: (f"link{first}",), 6: (f"made{first}b",), 7: (f"made{first}b", f"hard{first}"),
        8: (f"made{first}b", f"hard{first}"), 9: (f"made{first}b",),
        10: (f"directory{first}/renamed",), 11: (f"directory{first}/renamed",), 12: (f"directory{first}/renamed",),
        13: (f"directory{first}/renamed",), 14: (f"hard{first}", f"link{first}"), 15: (f"gone{first}",),
    }[number % GROUP]  # fmt: skip


def operate(number: int, journal: int) -> None:
    """One of them, in the current directory."""
    names = touched(number)
    match number % GROUP:
        case 0 | 6:
            with open(names[0], "xb", buffering=0) as file:
                file.write(content(number))
        case 1:
            os.write(journal, f"{number}\n".encode())
        case 2:
            os.mkdir(names[0])
        case 3:
            os.rename(*names)
        case 4:
            os.write(journal, f"{number}\n".encode())
            os.fsync(journal)
        case 5:
            os.symlink(f"target {number}", names[0])
        case 7:
            os.link(*names)
        case 8:
            with open(names[0], "r+b", buffering=0) as file:
                file.write(b"over")
                os.fsync(file.fileno())
        case 9:
            os.unlink(names[0])
        case 10:
            os.setxattr(names[0], "user.number", str(number).encode())
        case 11:
            os.chmod(names[0], 0o640)
        case 12:
            os.truncate(names[0], 5)
        case 13:
            with open(names[0], "r+b", buffering=0) as file:
                os.posix_fallocate(file.fileno(), 0, 3000)
        case 14:
            os.rename(*names)
        case 15:
            os.mkdir(names[0])
            os.rmdir(names[0])


def replay(number: int, tree: Tree, journal: list[int]) -> None:
    names = touched(number)
    match number % GROUP:
        case 0 | 6:
            tree[names[0]] = content(number)
        case 1 | 4:
            journal.append(number)
        case 2:
            tree[names[0]] = "directory"
        case 3:
            tree[names[1]] = tree.pop(names[0])
        case 5:
            tree[names[0]] = f"target {number}"
        case 7:
            tree[names[1]] = tree[names[0]]
        case 8:
            tree[names[0]] = tree[names[1]] = b"over" + content(number - 2)[4:]  # one file
        case 9:
            del tree[names[0]]
        case 12:
            tree[names[0]] = content(number - 12)[:5]
        case 13:
            tree[names[0]] = content(number - 13)[:5].ljust(3000, b"\0")
        case 14:
            tree[names[1]] = tree.pop(names[0])


def noted(log: str) -> tuple[list[int], list[int], list[str]]:
    """The operations that returned, those that were under way when a run ended, and the errors that the runs ended with."""
    done, starts, errors = [], [], []
    with open(log) as file:
        for line in file.read().split("\n")[:-1]:
            word, _, rest = line.partition(" ")
            if word == "done":
                done.append(int(rest))
            elif word == "run":
                starts.append(int(rest))
            else:
                errors.append(rest)
    next_runs = [*starts[1:], 1 << 62]
    last = [max((n for n in done if first <= n < then), default=first - 1) for first, then in zip(starts, next_runs, strict=True)]
    return done, [number + 1 for number in last], errors


def found(directory: str) -> tuple[Tree, list[int]]:
    tree: Tree = {}
    for place, directories, files in os.walk(directory):
        for name in directories + files:
            path = os.path.join(place, name)
            if os.path.islink(path):
                shown: bytes | str = os.readlink(path)
            elif os.path.isdir(path):
                shown = "directory"
            else:
                with open(path, "rb") as file:
                    shown = file.read()
            tree[os.path.relpath(path, directory)] = shown
    lines = tree.pop(JOURNAL, b"")
    assert isinstance(lines, bytes)
    return tree, [int(line) for line in lines.split(b"\n") if line]


def wrong(directory: str, log: str) -> list[str]:
    """What the application was told and the directory does not hold."""
    done, doubtful, _ = noted(log)
    tree: Tree = {}
    journal: list[int] = []
    for number in done:
        replay(number, tree, journal)
    maybe = {name for number in doubtful for name in touched(number)}
    is_tree, is_journal = found(directory)
    names = (tree.keys() | is_tree.keys()) - maybe
    differ = [name for name in sorted(names) if tree.get(name) != is_tree.get(name)]
    out = [f"{name}: should be {str(tree.get(name))[:60]}, is {str(is_tree.get(name))[:60]}" for name in differ]
    certain = [number for number in is_journal if number not in doubtful]
    if certain != journal or len(set(is_journal)) != len(is_journal):
        lost, more = sorted(set(journal) - set(certain)), sorted(set(certain) - set(journal))
        out.append(f"journal: {len(journal)} lines were acknowledged; lost {lost[:9]}, never acknowledged {more[:9]}, or in another order")
    return out


def main(directory: str, log_path: str, first: int) -> None:
    stop = False

    def end(*_: object) -> None:
        nonlocal stop
        stop = True

    signal.signal(signal.SIGTERM, end)
    log = os.open(log_path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(log, f"run {first}\n".encode())
    number = first
    try:
        os.chdir(directory)
        journal = os.open(JOURNAL, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        while not stop:
            operate(number, journal)
            os.write(log, f"done {number}\n".encode())
            number += 1
            time.sleep(PACE_S)
    except OSError as failure:
        os.write(log, f"error {failure.errno} at {number}\n".encode())


def some(directory: str, log_path: str, first: int, count: int) -> None:
    """What follows a failure in its group would fail for no reason but that."""
    log = os.open(log_path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(log, f"run {first}\n".encode())
    number = first
    while number < first + count:
        try:
            os.chdir(directory)
            journal = os.open(JOURNAL, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
            try:
                operate(number, journal)
            finally:
                os.close(journal)
            os.write(log, f"done {number}\n".encode())
            number += 1
        except OSError as failure:
            os.write(log, f"error {failure.errno} at {number}\n".encode())
            number = (number // GROUP + 1) * GROUP
            os.write(log, f"run {number}\n".encode())


if __name__ == "__main__":
    numbers = [int(word) for word in sys.argv[3:]]
    (some if len(numbers) == 2 else main)(*sys.argv[1:3], *numbers)
