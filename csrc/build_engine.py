"""The cffi build of `rfs._engine`: its declarations are the region between the markers of rfs_engine.h."""

import os
import platform
from pathlib import Path

from cffi import FFI

CSRC = Path(__file__).resolve().parent
WARNINGS = ["-std=c11", "-O2", "-g", "-Wall", "-Wextra", "-Wconversion", "-Wshadow", "-Werror", "-D_GNU_SOURCE", "-fvisibility=hidden"]


def declarations() -> str:
    """The part of rfs_engine.h that cffi reads."""
    header = (CSRC / "rfs_engine.h").read_text()
    return header.split("/* cffi: begin */")[1].split("/* cffi: end */")[0]


def has_wide_ciphers() -> bool:
    """Whether the library of aead.c is here (Debian: libipsec-mb-dev, on PCs only); the compiler asks the same of the same header."""
    return platform.machine() == "x86_64" and Path("/usr/include/intel-ipsec-mb.h").exists()


# What turns a mistake that the fuzzers have missed into a crash, or takes from it what it could be used for; tests/unit/test_hardening.py
# looks for each in what was built. (Python brings flags of its own along: on Debian the protector, and that assertions are left out.)
HARDENING = ["-U_FORTIFY_SOURCE", "-D_FORTIFY_SOURCE=3", "-fstack-protector-strong", "-fstack-clash-protection", "-UNDEBUG"]
HARDENING_OF = {"x86_64": ["-fcf-protection=full"], "aarch64": ["-mbranch-protection=standard"]}
HARDENING_OF_LINKS = ["-Wl,-z,relro", "-Wl,-z,now", "-Wl,-z,noexecstack", "-Wl,-z,separate-code"]

# A build for tests that die at named steps (csrc/steps.h): tests/faults/variant.py makes it apart from the one that is installed.
FOR_TESTS = ["-DLOCKSTEP_STEPS"] if os.environ.get("LOCKSTEP_BUILD_STEPS") else []

ffibuilder = FFI()
ffibuilder.cdef(declarations())
ffibuilder.set_source(
    "rfs._engine",
    '#include "rfs_engine.h"',
    include_dirs=["csrc"],
    sources=sorted(f"csrc/{path.name}" for path in CSRC.glob("*.c")),
    depends=sorted(f"csrc/{path.name}" for path in CSRC.glob("*.h")),
    # The glue that cffi generates is not ours to keep clean; csrc/Makefile compiles our own files under WARNINGS.
    extra_compile_args=[
        *("-std=c11", "-O2", "-g", "-D_GNU_SOURCE", "-fvisibility=hidden", "-pthread"),
        *(*HARDENING, *HARDENING_OF.get(platform.machine(), []), *FOR_TESTS),
    ],
    extra_link_args=["-pthread", *HARDENING_OF_LINKS],
    libraries=["ssl", "crypto", *(["IPSec_MB"] if has_wide_ciphers() else [])],
    py_limited_api=True,
)
