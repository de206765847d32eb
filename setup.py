"""Builds the engine: everything else about the package stands in pyproject.toml."""

from setuptools import setup

setup(cffi_modules=["csrc/build_engine.py:ffibuilder"], options={"bdist_wheel": {"py_limited_api": "cp311"}})
