"""Does every file import only what its package and its room may?

Covers: packages, rooms within a package, modules that nobody may import, code that must not exist.
Does not cover: names, docstrings, lengths (test_house_rules.py).
"""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.support.source_files import PRODUCT, REPOSITORY, imported_names, name_of, nodes_of, python_files, tree_of

ALLOWED_IMPORTS = {
    "protos": {"protos"},
    "common": {"common", "protos"},
    "shardnode": {"shardnode", "common", "protos"},
    "coordinator": {"coordinator", "common", "protos"},
    "deploy": {"deploy"},  # what makes the dashboards is several files; nothing there imports a program
}
"""For each of our folders, which of our packages its files may import."""

OURS = {*ALLOWED_IMPORTS, "tests"}

ROOMS = {
    "coordinator": (
        ("cli",),
        ("program",),
        ("answering",),
        ("models",),
        ("engine", "shipping"),
        ("ranks", "tokenizer", "planning", "slicing"),
        ("ranks/transports",),
        ("membership", "local", "checkpoints"),
    ),
    "shardnode": (
        ("start", "__main__"),  # where the program begins: they import cli, and nobody imports them
        ("cli", "pool"),
        ("run",),
        ("listeners",),
        ("sessions", "slices"),
        ("work",),
        ("membership", "config"),
    ),
    "common": (
        ("trust",),  # above the wire: a TLS connection lies here, and frames take one without knowing what it is
        ("wire",),
        ("compute", "program"),
        ("weights",),
        ("machine", "model", "native"),
        ("errors", "wording"),
    ),
}
"""The floors of each package. A room (a folder, or a module at the package's root) imports from floors below its own,
and from none of its neighbours on the same one. Imports in functions and for type checking count."""

FORBIDDEN_IMPORTS = {
    "pickle": "loading it runs code",
    "cloudpickle": "loading it runs code",
    "dill": "loading it runs code",
    "joblib": "loads pickles",
    "marshal": "loads code",
    "shelve": "loads pickles",
    "transformers": "3 s and 90 MB at every start; it is a test oracle only",
    "accelerate": "brings transformers' habits along; not needed",
}

FORBIDDEN_CALLS = {"eval": "runs text as code", "exec": "runs text as code"}
FORBIDDEN_NAMES = {"trust_remote_code": "runs a checkpoint's code", "allow_pickle": "loading a pickle runs code"}


def package_of(path: Path) -> str:
    """Return the package that a file lies in, dotted."""
    return ".".join(path.relative_to(REPOSITORY).parent.parts)


def wrong_imports(path: Path, tree: ast.Module) -> list[str]:
    """Describe every import of one of our packages that the file's folder may not have."""
    folder = path.relative_to(REPOSITORY).parts[0]
    return [
        f"{name_of(path)}:{line} imports {name}"
        for name, line in imported_names(tree, package_of(path))
        if name.startswith("<") or (name.split(".")[0] in OURS - ALLOWED_IMPORTS[folder])
    ]


def room_of(name: str) -> tuple[str, int] | None:
    """Return the room of a dotted name in one of the packages, and its floor, the lowest being the highest number."""
    package, *rest = name.split(".")
    rooms = {room: number for number, floor in enumerate(ROOMS[package]) for room in floor}
    for depth in (2, 1):
        room = "/".join(rest[:depth])
        if len(rest) >= depth and room in rooms:
            return room, rooms[room]
    return None


def wrong_rooms(path: Path, tree: ast.Module) -> list[str]:
    """Describe where the file lies, if that is no room, and every import from a room that is not below its own."""
    package = path.relative_to(REPOSITORY).parts[0]
    if path == REPOSITORY / package / "__init__.py":
        here = ("", len(ROOMS[package]))  # everybody imports it, so it imports no room
    else:
        here = room_of(".".join(path.relative_to(REPOSITORY).with_suffix("").parts)) or ("", -1)
        if here[1] < 0:
            return [f"{name_of(path)} lies in no room of the table"]
    wrong = []
    for name, line in imported_names(tree, package_of(path)):
        if name.split(".")[0] == package:
            there = room_of(name)
            if there is None or (there != here and there[1] <= here[1]):
                wrong.append(f"{name_of(path)}:{line} imports {name}")
    return wrong


def wrong_code(path: Path, tree: ast.Module) -> list[str]:
    """Describe every forbidden import, call, keyword and unsafe torch.load in the file."""
    found = []
    for name, line in imported_names(tree, package_of(path)):
        reason = FORBIDDEN_IMPORTS.get(name.split(".")[0])
        if reason:
            found.append(f"{name_of(path)}:{line} imports {name}: {reason}")
    for node in nodes_of(tree):
        if not isinstance(node, ast.Call | ast.keyword):
            continue
        where = f"{name_of(path)}:{node.lineno}"
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in FORBIDDEN_CALLS:
            found.append(f"{where} calls {node.func.id}: {FORBIDDEN_CALLS[node.func.id]}")
        if isinstance(node, ast.keyword) and node.arg in FORBIDDEN_NAMES:
            found.append(f"{where} passes {node.arg}: {FORBIDDEN_NAMES[node.arg]}")
        if isinstance(node, ast.Call) and _is_torch_load(node.func) and not _is_weights_only(node):
            found.append(f"{where} calls torch.load without weights_only=True: loading a pickle runs code")
    return found


def _is_torch_load(called: ast.expr) -> bool:
    return isinstance(called, ast.Attribute) and called.attr == "load" and ast.unparse(called) == "torch.load"


def _is_weights_only(call: ast.Call) -> bool:
    return any(
        keyword.arg == "weights_only" and isinstance(keyword.value, ast.Constant) and keyword.value.value is True
        for keyword in call.keywords
    )


def test_packages_import_only_what_the_house_allows() -> None:
    """The node and the coordinator never import each other, common imports neither, nothing imports tests."""
    assert [wrong for path in python_files(*PRODUCT) for wrong in wrong_imports(path, tree_of(path))] == []


def test_product_code_loads_no_pickle_and_runs_no_text() -> None:
    """Nothing that can execute a file's or a peer's code, and no transformers, is in the product."""
    assert [wrong for path in python_files(*PRODUCT) for wrong in wrong_code(path, tree_of(path))] == []


def test_rooms_import_only_from_rooms_below() -> None:
    """A reader who has understood a room knows all that it rests on, and every file lies in a room."""
    paths = python_files(*ROOMS)
    assert [wrong for path in paths for wrong in wrong_rooms(path, tree_of(path))] == []


def test_every_room_of_the_table_is_there() -> None:
    """A name that nothing bears any more would allow whatever bears it next."""
    gone = [
        f"{package}/{room}"
        for package, floors in ROOMS.items()
        for floor in floors
        for room in floor
        if not (REPOSITORY / package / room).is_dir() and not (REPOSITORY / package / f"{room}.py").is_file()
    ]
    assert gone == []


@pytest.mark.parametrize(
    ("folder", "code"),
    [
        ("shardnode", "import coordinator"),
        ("shardnode", "def late():\n    from coordinator.ranks.ranks import Ranks"),
        ("coordinator", "import common.errors, shardnode.work.kernels"),
        ("common", "from shardnode import kernels"),
        ("common/weights", "from ...coordinator import engine"),
        ("protos", "from common import errors"),
        ("coordinator/cli", "import tests.support"),
        ("common", "__import__('shard' + 'node')"),
        ("deploy", "import importlib\nimportlib.import_module('common.model.plan')"),
    ],
)
def test_a_forbidden_import_is_noticed(folder: str, code: str) -> None:
    """The import rule sees imports in functions, in lists, relative ones and computed ones."""
    assert wrong_imports(REPOSITORY / folder / "example.py", ast.parse(code))


@pytest.mark.parametrize(
    ("file", "code"),
    [
        ("coordinator/ranks/example.py", "from coordinator.engine.batch import next_batch"),
        ("coordinator/ranks/transports/example.py", "from coordinator.ranks.ranks import Ranks"),
        ("coordinator/planning/example.py", "from coordinator.slicing import splitter"),
        (
            "coordinator/membership/example.py",
            "if TYPE_CHECKING:\n    from coordinator.models.records import LoadedModel",
        ),
        ("coordinator/checkpoints/example.py", "def late():\n    from ..cli import main"),
        ("coordinator/membership/example.py", "from coordinator import cli"),
        ("coordinator/engine/example.py", "import coordinator"),
        ("coordinator/example.py", ""),
        ("coordinator/attic/example.py", ""),
        ("shardnode/slices/example.py", "import shardnode.sessions.session"),
        ("shardnode/work/example.py", "from shardnode.run import RunningNode"),
        ("common/errors.py", "import common.model.plan"),
        ("common/wire/example.py", "from common.trust.tls import secure_channel"),
        ("common/__init__.py", "from common import errors"),
    ],
)
def test_an_import_from_a_room_above_is_noticed(file: str, code: str) -> None:
    """Neighbours, rooms in rooms, imports for type checking and in functions; and a file that lies outside of rooms."""
    assert wrong_rooms(REPOSITORY / file, ast.parse(code))


@pytest.mark.parametrize(
    ("file", "code"),
    [
        ("coordinator/cli/example.py", "from coordinator.membership import state\nfrom . import main"),
        ("coordinator/ranks/example.py", "from coordinator.ranks.transports.transport import ShardClient"),
        (
            "coordinator/ranks/transports/example.py",
            "import coordinator.membership.reach, shardnode.work.executor, numpy",
        ),
        ("shardnode/__main__.py", "from shardnode.cli import main"),
        (
            "common/trust/example.py",
            "from common.wire.rpc import split_host_port\nimport common.errors",
        ),
    ],
)
def test_an_import_from_a_room_below_passes(file: str, code: str) -> None:
    """The rule does not cry wolf, and leaves other packages to the rule about packages."""
    assert wrong_rooms(REPOSITORY / file, ast.parse(code)) == []


@pytest.mark.parametrize(
    "code",
    [
        "import pickle",
        "from transformers import AutoModel",
        "eval('1')",
        "load(path, trust_remote_code=True)",
        "import numpy\nnumpy.load(path, allow_pickle=True)",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
    ],
)
def test_forbidden_code_is_noticed(code: str) -> None:
    """The rule against running foreign code sees each way to do it."""
    assert wrong_code(REPOSITORY / "common" / "example.py", ast.parse(code))


@pytest.mark.parametrize(
    "code",
    [
        "import common.errors",
        "from . import kernels",
        "model.eval()",
        "torch.load(path, map_location='cpu', weights_only=True)",
    ],
)
def test_allowed_code_passes(code: str) -> None:
    """The rules do not cry wolf."""
    path = REPOSITORY / "shardnode" / "example.py"
    assert wrong_imports(path, ast.parse(code)) + wrong_code(path, ast.parse(code)) == []
