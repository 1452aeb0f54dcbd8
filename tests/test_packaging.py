"""What `pip install` gets: an abi3 wheel with the C core inside, an sdist with every header."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("build") is None, reason="needs the module `build`"),
    pytest.mark.skipif(not (ROOT / "csrc").is_dir(), reason="needs the source tree"),
]


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> tuple[set[str], set[str], str]:
    """Names in the sdist, names in the wheel built from that sdist, and the wheel's file name."""
    out = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(ROOT)]
    built = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert built.returncode == 0, built.stdout[-2000:] + built.stderr[-2000:]
    (sdist,) = out.glob("*.tar.gz")
    (wheel,) = out.glob("*.whl")
    with tarfile.open(sdist) as archive:
        source_names = {name.partition("/")[2] for name in archive.getnames()}
    with zipfile.ZipFile(wheel) as archive:
        wheel_names = set(archive.namelist())
    return source_names, wheel_names, wheel.name


def test_one_wheel_serves_cpython_3_11_and_later(packages: tuple[set[str], set[str], str]) -> None:
    _, wheel_names, file_name = packages
    assert "-cp311-abi3-" in file_name
    assert "talkpath/_native.abi3.so" in wheel_names


def test_the_wheel_is_typed_and_holds_the_package_only(packages: tuple[set[str], set[str], str]) -> None:
    _, wheel_names, _ = packages
    assert {
        "talkpath/py.typed",
        "talkpath/_native.pyi",
        "talkpath/wire/freeclimb.proto",
        "talkpath/testing/pytest_plugin.py",
    } <= wheel_names
    assert {name.split("/")[0].split("-")[0] for name in wheel_names} == {"talkpath"}
    assert not [name for name in wheel_names if name.endswith((".c", ".h", ".inc"))]


def test_the_sdist_can_be_built_and_tested(packages: tuple[set[str], set[str], str]) -> None:
    source_names, _, _ = packages
    native = {
        str(path.relative_to(ROOT))
        for path in (ROOT / "csrc").rglob("*")
        if path.suffix in {".c", ".h", ".inc", ".py"} and "__pycache__" not in path.parts
    }
    assert native <= source_names
    assert {"Makefile", "LICENSE", "CHANGELOG.md", "scripts/check_system.sh", "tests/conftest.py"} <= source_names
    assert {"examples/audio/caller.wav", "examples/audio/README.md"} <= source_names
