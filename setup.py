"""Only what pyproject.toml cannot say: the cffi module and the abi3 tag."""

from setuptools import setup

setup(
    cffi_modules=["csrc/build_native.py:ffi"],
    options={"bdist_wheel": {"py_limited_api": "cp311"}},
)
