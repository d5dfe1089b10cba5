"""Do the files obey the rules of the house that a machine can check?

Covers: who imports whom, names, docstrings, file length, code that must not exist.
Does not cover: fresh stubs, lint, types (`make verify` runs their own tools).
"""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent.parent
PRODUCT = ("protos", "common", "shardnode", "coordinator", "deploy")
GENERATED = re.compile(r"_pb2(_grpc)?\.py$")

ALLOWED_IMPORTS = {
    "protos": {"protos"},
    "common": {"common", "protos"},
    "shardnode": {"shardnode", "common", "protos"},
    "coordinator": {"coordinator", "common", "protos"},
    "deploy": set(),
}
"""For each of our folders, which of our packages its files may import."""

OURS = {*ALLOWED_IMPORTS, "tests"}

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
VAGUE_NAMES = {"util", "utils", "helper", "helpers", "misc", "shared", "stuff"}

LINE_LIMIT = 300
LONG_FILES: dict[str, str] = {}
"""Files over LINE_LIMIT lines, each with the reason why it is not two files."""


def python_files(*folders: str) -> list[Path]:
    """Return the hand-written Python files below `folders`, sorted."""
    found = [path for folder in folders for path in (REPOSITORY / folder).rglob("*.py")]
    return sorted(path for path in found if not GENERATED.search(path.name))


def name_of(path: Path) -> str:
    """Return the path as a person types it."""
    return path.relative_to(REPOSITORY).as_posix()


def tree_of(path: Path) -> ast.Module:
    """Return the file's syntax tree."""
    return ast.parse(path.read_text(encoding="utf-8"), filename=name_of(path))


def imported_modules(tree: ast.Module, package: str) -> Iterator[tuple[str, int]]:
    """Yield every imported module's full name and line, wherever in the file; `package` resolves relative ones."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            yield ".".join([*base, *([node.module] if node.module else [])]), node.lineno
        elif isinstance(node, ast.Call) and _called_name(node) in ("__import__", "import_module"):
            # A name that is only known at run time counts as forbidden: nobody can check it.
            first = node.args[0] if node.args else None
            known = isinstance(first, ast.Constant) and isinstance(first.value, str)
            yield (first.value if known else "<a name made at run time>"), node.lineno  # type: ignore[union-attr]


def _called_name(node: ast.Call) -> str:
    if isinstance(node.func, ast.Name):
        return node.func.id
    return node.func.attr if isinstance(node.func, ast.Attribute) else ""


def wrong_imports(path: Path, tree: ast.Module) -> list[str]:
    """Describe every import of one of our packages that the file's folder may not have."""
    folder = path.relative_to(REPOSITORY).parts[0]
    package = ".".join(path.relative_to(REPOSITORY).parent.parts)
    return [
        f"{name_of(path)}:{line} imports {module}"
        for module, line in imported_modules(tree, package)
        if module.startswith("<") or (module.split(".")[0] in OURS - ALLOWED_IMPORTS[folder])
    ]


def wrong_code(path: Path, tree: ast.Module) -> list[str]:
    """Describe every forbidden import, call, keyword and unsafe torch.load in the file."""
    found = []
    for module, line in imported_modules(tree, name_of(path.parent).replace("/", ".")):
        reason = FORBIDDEN_IMPORTS.get(module.split(".")[0])
        if reason:
            found.append(f"{name_of(path)}:{line} imports {module}: {reason}")
    for node in ast.walk(tree):
        where = f"{name_of(path)}:{getattr(node, 'lineno', 0)}"
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in FORBIDDEN_CALLS:
            found.append(f"{where} calls {node.func.id}: {FORBIDDEN_CALLS[node.func.id]}")
        if isinstance(node, ast.keyword) and node.arg in FORBIDDEN_NAMES:
            found.append(f"{where} passes {node.arg}: {FORBIDDEN_NAMES[node.arg]}")
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "torch.load" and not _is_weights_only(node):
            found.append(f"{where} calls torch.load without weights_only=True: loading a pickle runs code")
    return found


def _is_weights_only(call: ast.Call) -> bool:
    return any(
        keyword.arg == "weights_only" and isinstance(keyword.value, ast.Constant) and keyword.value.value is True
        for keyword in call.keywords
    )


def test_the_rules_see_files_to_check() -> None:
    """A rule that looks at nothing holds always, so each package must have files."""
    for folder in ("common", "shardnode", "coordinator", "tests"):
        assert python_files(folder), f"no Python file in {folder}/"


def test_packages_import_only_what_the_house_allows() -> None:
    """The node and the coordinator never import each other, common imports neither, nothing imports tests."""
    assert [wrong for path in python_files(*PRODUCT) for wrong in wrong_imports(path, tree_of(path))] == []


def test_product_code_loads_no_pickle_and_runs_no_text() -> None:
    """Nothing that can execute a file's or a peer's code, and no transformers, is in the product."""
    assert [wrong for path in python_files(*PRODUCT) for wrong in wrong_code(path, tree_of(path))] == []


def test_no_file_or_folder_has_a_vague_name() -> None:
    """A room has the name of what it is for, so that nobody has to guess what goes into it."""
    parts = {
        (name_of(path), part)
        for path in python_files(*PRODUCT, "tests")
        for part in path.relative_to(REPOSITORY).with_suffix("").parts
    }
    vague = [name for name, part in parts if VAGUE_NAMES & set(part.lower().split("_"))]
    assert sorted(vague) == []


def test_every_file_begins_by_saying_what_it_is_for() -> None:
    """The first line of the module docstring is one sentence; an empty __init__.py needs none."""
    silent = []
    for path in python_files(*PRODUCT, "tests"):
        tree = tree_of(path)
        if path.name == "__init__.py" and not tree.body:
            continue
        first_line = (ast.get_docstring(tree) or "").partition("\n")[0]
        if not first_line.endswith((".", "?", ":")):
            silent.append(name_of(path))
    assert silent == []


def test_every_test_has_a_docstring_and_no_sleep() -> None:
    """A test states its rule in its docstring, and waits for events instead of for time to pass."""
    wrong = []
    for path in python_files("tests"):
        if not path.name.startswith("test_"):
            continue
        for node in ast.walk(tree_of(path)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                if node.name.startswith("test_") and not ast.get_docstring(node):
                    wrong.append(f"{name_of(path)}:{node.lineno} {node.name} has no docstring")
            elif isinstance(node, ast.Call) and _called_name(node) == "sleep":
                wrong.append(f"{name_of(path)}:{node.lineno} sleeps")
    assert wrong == []


def test_long_files_are_listed_with_their_reason() -> None:
    """A file of more than 300 lines is two files, unless the list says why not; the list has no stale entries."""
    lengths = {
        name_of(path): len(path.read_text(encoding="utf-8").splitlines()) for path in python_files(*PRODUCT, "tests")
    }
    long_files = {name: count for name, count in lengths.items() if count > LINE_LIMIT}
    assert {name: count for name, count in long_files.items() if not LONG_FILES.get(name)} == {}
    assert set(LONG_FILES) <= set(long_files), "these are no longer long: take them off the list"


def test_every_ignored_check_names_its_rule() -> None:
    """`# noqa` and `# type: ignore` without a rule hide what nobody meant to hide."""
    bare = re.compile(r"#\s*(noqa(?!:\s*[A-Z]+[0-9]+)|type:\s*ignore(?!\[))")
    wrong = []
    for path in python_files(*PRODUCT, "tests"):
        reader = io.StringIO(path.read_text(encoding="utf-8")).readline
        comments = (token for token in tokenize.generate_tokens(reader) if token.type == tokenize.COMMENT)
        wrong += [f"{name_of(path)}:{comment.start[0]}" for comment in comments if bare.match(comment.string)]
    assert wrong == []


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
