"""Builds the engine: everything else about the package stands in pyproject.toml."""

import os

from setuptools import setup

os.umask(0o022)  # of files in the wheel: whoever builds it

setup(cffi_modules=["csrc/build_engine.py:ffibuilder"], options={"bdist_wheel": {"py_limited_api": "cp311"}})
