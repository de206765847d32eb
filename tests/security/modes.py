"""What a program's system calls say of the files that it makes: nothing is made with a wider mode and narrowed later, because in between
somebody may have opened it. From strace's words, whatever the program is written in."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

CALLS = "open,openat,creat,mkdir,mkdirat,mknod,mknodat,chmod,fchmod,fchmodat,bind,listen,umask,rename,renameat,renameat2,close"
LINE = re.compile(r"^(?P<pid>\d+)\s+(?P<call>\w+)\((?P<words>.*)\)\s+= (?P<result>-?\d+)(?P<more>.*)$")
PIECES = re.compile(r"^(?P<pid>\d+)\s+(?:(?P<call>\w+)\((?P<begun>.*) <unfinished \.\.\.>|<\.\.\. (?P<resumed>\w+) resumed>(?P<rest>.*))$")
USUAL_UMASK = 0o022


@dataclass(frozen=True, slots=True)
class Made:
    """A file, directory or socket, as it was when it came to be."""

    path: str
    mode: int
    exclusively: bool
    line: str


def whole(lines: list[str]) -> Iterator[str]:
    """Calls that were interrupted by others' lines, put together."""
    waiting: dict[str, str] = {}
    for line in lines:
        found = PIECES.match(line)
        if found is None:
            yield line
        elif found["call"]:
            waiting[found["pid"]] = f"{found['pid']} {found['call']}({found['begun']}"
        else:
            yield waiting.pop(found["pid"], f"{found['pid']} {found['resumed']}(") + found["rest"]


def path_in(words: str) -> str:
    found = re.findall(r'"((?:[^"\\]|\\.)*)"', words)
    return found[0] if found else ""


class Judge:
    """Reads a trace made with `strace -f -y -e trace=CALLS`."""

    def __init__(self, text: str) -> None:
        self.made: list[Made] = []
        self.wrong: list[str] = []
        umask, sockets, modes = USUAL_UMASK, dict[str, str](), dict[str, int]()
        for line in whole(text.splitlines()):
            if (found := LINE.match(line)) is None or int(found["result"]) < 0:
                continue
            call, words = found["call"], found["words"]
            if call == "umask":
                umask = int(words, 8)
            elif call in ("open", "openat", "creat", "mkdir", "mkdirat", "mknod", "mknodat"):
                if "open" in call and not ("O_CREAT" in words or "O_TMPFILE" in words):
                    continue
                mode = re.search(r"\b(0[0-7]*)$", words)
                if mode is not None:
                    place = resolved(words, found["more"])
                    modes[place] = int(mode[1], 8) & ~umask
                    self.made.append(Made(place, modes[place], "O_EXCL" in words, line))
            elif call in ("chmod", "fchmodat", "fchmod"):
                self._changed(call, words, line, modes)
            elif call.startswith("rename"):
                was, becomes = (re.findall(r'"((?:[^"\\]|\\.)*)"', words) + ["", ""])[:2]
                if was in modes:
                    modes[becomes] = modes.pop(was)
            elif call == "bind" and "AF_UNIX" in words and "@" not in words:
                sockets[descriptor_of(words)] = path_in(words)
                modes[path_in(words)] = 0  # nobody can connect before `listen`
            elif call == "listen" and (place := sockets.get(descriptor_of(words))) is not None:
                self.made.append(Made(place, modes.get(place, 0), True, line))

    def _changed(self, call: str, words: str, line: str, modes: dict[str, int]) -> None:
        place = path_in(words) or (found[1] if (found := re.match(r"\d+<([^>]*)>", words)) else "")
        mode = re.search(r"\b(0[0-7]*)\b(?:, 0|, AT_\w+)?$", words)
        if place not in modes or mode is None:
            return
        if modes[place] & ~int(mode[1], 8) & 0o077:
            self.wrong.append(f"made with {modes[place]:o}, narrowed later: {line}")
        modes[place] = int(mode[1], 8)


def descriptor_of(words: str) -> str:
    return words.partition("<")[0].partition(",")[0]


def resolved(words: str, more: str) -> str:
    """Where a file is, as strace's -y knows it from the descriptor, or as it was named."""
    found = re.match(r"<([^>]*)>", more)
    return found[1] if found else path_in(words)
