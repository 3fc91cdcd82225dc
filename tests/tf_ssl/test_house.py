"""The rooms of tf_ssl: their sizes, and who may import whom."""

import ast
import importlib
import pathlib
import pkgutil
import types

import pytest

import tf_ssl

ROOT = pathlib.Path(tf_ssl.__file__).parent
FOLDERS = sorted({path.parent for path in ROOT.rglob("*.py")})
# What stands beside the library, and the modules it may import from.
GUESTS = ("models", "benchmarks", "examples", "train.py", "eval.py")
PUBLIC = {
    "tf_ssl",
    *(
        f"tf_ssl.{name}"
        for name in ("callbacks", "layers", "papers", "rules", "storage")
    ),
    "tf_ssl.sweep",
}
# From the ground up: a room imports from its own floor and those below.
FLOORS = (
    ("checks",),
    ("graph",),
    ("structures",),
    ("penalties",),
    ("measure", "shrinking", "low_rank", "sparse"),
    ("exporting",),
    ("callbacks",),
    ("sweep",),
)
FLOOR = {room: i for i, rooms in enumerate(FLOORS) for room in rooms}


def _imports(path):
    """Rooms that a file imports from, in functions too."""
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module == "tf_ssl":
            names = [f"tf_ssl.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module]
        for name in names:
            if name.startswith("tf_ssl."):
                yield name.split(".")[1]


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda f: f.name)
def test_folders_are_small(folder):
    files = sorted(path.name for path in folder.glob("*.py"))
    assert len(files) <= 15, files


@pytest.mark.parametrize("room", FLOOR)
def test_arrows_point_downward(room):
    path = ROOT / room
    files = path.rglob("*.py") if path.is_dir() else [ROOT / f"{room}.py"]
    upward = [
        f"{file.relative_to(ROOT)} imports {other}"
        for file in files
        for other in _imports(file)
        if FLOOR[other] > FLOOR[room]
    ]
    assert upward == []


def test_every_room_has_a_floor():
    names = {module.name for module in pkgutil.iter_modules([str(ROOT)])}
    assert names == set(FLOOR)


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda f: f.name)
def test_no_module_is_hidden_by_a_name(folder):
    parts = folder.relative_to(ROOT.parent).parts
    package = importlib.import_module(".".join(parts))
    hidden = [
        module.name
        for module in pkgutil.iter_modules([str(folder)])
        if module.name in vars(package)
        and not isinstance(vars(package)[module.name], types.ModuleType)
    ]
    # tf_ssl.storage.sizes is a public function in sizes.py.
    assert hidden in ([], ["sizes"])


def _internal(path):
    """Imports of a file, in functions too, that only the library may make."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [(alias.name, None) for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names = [(node.module, alias.name) for alias in node.names]
        else:
            continue
        for module, name in names:
            if module.split(".")[0] != "tf_ssl":
                continue
            if module not in PUBLIC:
                yield f"{path.relative_to(ROOT.parent)}: {module}"
            elif name is not None and name != "sweep":
                if name not in importlib.import_module(module).__all__:
                    yield f"{path.relative_to(ROOT.parent)}: {module}.{name}"


@pytest.mark.parametrize("guest", GUESTS)
def test_guests_use_what_is_public(guest):
    path = ROOT.parent / guest
    files = sorted(path.rglob("*.py")) if path.is_dir() else [path]
    assert files
    assert [x for file in files for x in _internal(file)] == []
