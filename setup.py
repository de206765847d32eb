"""Builds the engine, so that the same sources make the same wheel wherever they lie: everything else about the package stands in
pyproject.toml."""

import os

from setuptools import setup
from setuptools.command.build_ext import build_ext
from setuptools.extension import Extension


class BuildAnywhere(build_ext):
    """No place of this machine's gets into the binary."""

    def build_extension(self, ext: Extension) -> None:
        """The engine."""
        ext.extra_compile_args = [*(ext.extra_compile_args or []), f"-ffile-prefix-map={os.getcwd()}=."]
        super().build_extension(ext)


os.umask(0o022)  # of files in the wheel: whoever builds it
setup(
    cffi_modules=["csrc/build_engine.py:ffibuilder"],
    cmdclass={"build_ext": BuildAnywhere},
    options={"bdist_wheel": {"py_limited_api": "cp311"}},
)
