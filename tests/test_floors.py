"""The house stands: imports go down only, Trio begins on floor 5, only the top floor uses `talkpath.testing`."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import talkpath

PACKAGE = Path(talkpath.__file__).parent
FLOORS = {
    "errors": 1,
    "units": 1,
    "audio": 1,
    "events": 1,
    "records": 1,
    "dsp": 2,
    "wire": 3,
    "path": 4,
    "transport": 5,
    "engine": 6,
    "line": 6,
    "gateway": 7,
    "cli": 8,
    "__main__": 9,
}
ANY_FLOOR = {"__init__", "testing"}
MODULES = sorted(path for path in PACKAGE.rglob("*.py"))


def room(path: Path) -> str:
    """The first part of a module's name below ``talkpath``."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported(path: Path) -> set[str]:
    """Full names of what a module imports at run time, at any depth of its code."""
    names: set[str] = set()

    def visit(node: ast.AST) -> None:
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            for child in node.orelse:
                visit(child)
            return
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import; write the full name"
            module = node.module or ""
            names.add(module)
            names.update(f"{module}.{alias.name}" for alias in node.names if module == "talkpath")
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(ast.parse(path.read_text()))
    return names


def rooms(path: Path) -> set[str]:
    """The rooms of talkpath that a module imports from."""
    return {name.split(".")[1] for name in imported(path) if name.startswith("talkpath.")}


def ids(path: Path) -> str:
    return str(path.relative_to(PACKAGE))


@pytest.mark.parametrize("path", MODULES, ids=ids)
def test_every_module_stands_on_a_floor_and_imports_downwards(path: Path) -> None:
    own = room(path)
    assert own in FLOORS or own in ANY_FLOOR, f"{own} has no floor: give it one in design and here"
    if own in ANY_FLOOR:
        return
    # The command line places simulated calls, so the top floor alone may use the simulated caller.
    for other in rooms(path) - {"_native", own, "__version__"}:
        if other == "testing" and own == "cli":
            continue
        assert other not in ANY_FLOOR, f"{path.name} imports talkpath.{other}, which stands outside the floors"
        assert FLOORS[other] <= FLOORS[own], f"{path.name} on floor {FLOORS[own]} imports {other} above it"
    if own == "wire":
        assert "dsp" not in rooms(path), "a dialect carries payload bytes and never touches samples"


@pytest.mark.parametrize("path", MODULES, ids=ids)
def test_trio_begins_on_floor_five(path: Path) -> None:
    if FLOORS.get(room(path), 9) >= 5:
        return
    tops = {name.split(".")[0] for name in imported(path)}
    assert not tops & {"trio", "trio_websocket", "outcome", "socket", "ssl", "select"}


@pytest.mark.parametrize(
    "module",
    ["talkpath", "talkpath.audio", "talkpath.dsp", "talkpath.wire", "talkpath.path.barge_in"],
)
def test_the_lower_floors_load_without_trio(module: str) -> None:
    probe = f"import sys, {module}; print(sorted({{'trio', 'socket', 'ssl'}} & set(sys.modules)))"
    answer = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True, timeout=30)
    assert answer.stdout.strip() == "[]"


def test_the_public_face_and_what_type_checkers_see_agree() -> None:
    tree = ast.parse((PACKAGE / "__init__.py").read_text())
    (checked,) = (
        node for node in ast.walk(tree) if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
    )
    seen = {
        alias.asname: node.module
        for node in checked.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
        if alias.asname == alias.name
    }
    assert seen == talkpath._MODULE_OF


@pytest.mark.parametrize("name", sorted(talkpath._MODULE_OF))
def test_every_public_name_is_there(name: str) -> None:
    value = getattr(talkpath, name)
    assert getattr(value, "__module__", "talkpath").startswith("talkpath")
    assert name in dir(talkpath)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'hold_music'"):
        _ = talkpath.hold_music
