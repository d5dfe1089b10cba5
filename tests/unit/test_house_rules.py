"""Do the files obey the rules of the house that a machine can check?

Covers: names, docstrings, paths that texts name, file length, tests, ignored checks.
Does not cover: who imports whom, code that must not exist (test_house_imports.py); fresh stubs, lint, types
(`make verify` runs their own tools).
"""

from __future__ import annotations

import ast
import io
import re
import tokenize
from pathlib import Path

import pytest

from tests.support.source_files import (
    PRODUCT,
    REPOSITORY,
    called_name,
    docstring_of,
    name_of,
    nodes_of,
    python_files,
    tree_of,
)

VAGUE_NAMES = {"util", "utils", "helper", "helpers", "misc", "shared", "stuff"}

LINE_LIMIT = 300
LONG_FILES: dict[str, str] = {}
"""Files over LINE_LIMIT lines, each with the reason why it is not two files."""


SOURCE_FILE = re.compile(r"(?<![\w./*-])(?:[\w-]+/)*[\w-]+\.(?:py|c|h|proto)\b")
IN_OUR_FOLDERS = re.compile(rf"(?:{'|'.join([*PRODUCT, 'tests'])})/[\w./-]*")
LINK = re.compile(r"\]\((?!https?:|#)([^)#]+)\)")


def missing_files(docstring: str, path: Path) -> list[str]:
    """Return the source files that the docstring names and that are not there; what its sources have is not ours."""
    ours = re.split(r"^Sources?:", docstring, flags=re.MULTILINE)[0]
    places = (path.parent, REPOSITORY / path.relative_to(REPOSITORY).parts[0], REPOSITORY)
    names = SOURCE_FILE.findall(ours)
    return [name for name in names if not any((place / name).is_file() for place in places)]


def missing_paths(text: str, path: Path) -> list[str]:
    """Return what a document names in backticks or links to, and what is neither at the top nor beside the document."""
    quoted = [name for name in re.findall(r"`([^`\s]+)`", text) if "*" not in name]
    names = [name for name in quoted if SOURCE_FILE.fullmatch(name) or IN_OUR_FOLDERS.fullmatch(name)]
    return [
        name
        for name in [*names, *LINK.findall(text)]
        if not (REPOSITORY / name).exists() and not (path.parent / name).exists()
    ]


def test_the_rules_see_files_to_check() -> None:
    """A rule that looks at nothing holds always, so each package must have files."""
    for folder in ("common", "shardnode", "coordinator", "tests"):
        assert python_files(folder), f"no Python file in {folder}/"


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
    """The first line of the module docstring is one sentence; of a room's __init__.py it says what the room is for."""
    silent = []
    for path in python_files(*PRODUCT, "tests"):
        first_line = docstring_of(path).partition("\n")[0]
        if not first_line.endswith((".", "?", ":")):
            silent.append(name_of(path))
    assert silent == []


def test_files_that_a_docstring_names_are_there() -> None:
    """Where it says which file covers the rest, it lies beside it, or is named from the package or the top."""
    wrong = [
        f"{name_of(path)} names {name}"
        for path in python_files(*PRODUCT, "tests")
        for name in missing_files(docstring_of(path), path)
    ]
    assert wrong == []


def test_files_that_a_document_names_are_there() -> None:
    """Paths in `backticks` and links begin at the top or at the document; what has moved is not looked for in vain."""
    documents = [path for path in REPOSITORY.glob("*.md") if path.name != "CHANGELOG.md"]
    documents += [*(REPOSITORY / "deploy").rglob("*.md"), REPOSITORY / "tests/README.md"]
    wrong = [
        f"{name_of(path)} names {name}"
        for path in documents
        for name in missing_paths(path.read_text(encoding="utf-8"), path)
    ]
    assert wrong == []


def test_every_test_has_a_docstring_and_no_sleep() -> None:
    """A test states its rule in its docstring, and waits for events instead of for time to pass."""
    wrong = []
    for path in python_files("tests"):
        if not path.name.startswith("test_"):
            continue
        for node in nodes_of(tree_of(path)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                if node.name.startswith("test_") and not ast.get_docstring(node):
                    wrong.append(f"{name_of(path)}:{node.lineno} {node.name} has no docstring")
            elif isinstance(node, ast.Call) and called_name(node) == "sleep":
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
        text = path.read_text(encoding="utf-8")
        if not bare.search(text):
            continue  # to find the comments of all files takes seconds
        reader = io.StringIO(text).readline
        comments = (token for token in tokenize.generate_tokens(reader) if token.type == tokenize.COMMENT)
        wrong += [f"{name_of(path)}:{comment.start[0]}" for comment in comments if bare.match(comment.string)]
    assert wrong == []


@pytest.mark.parametrize(
    ("docstring", "missing"),
    [
        ("Does not cover: reading (reader.py).", ["reader.py"]),
        ("Covers: frames (wire/framing.py), as in gone/framing.py.", ["gone/framing.py"]),
        ("Does not cover: sweeps (coordinator/engine/engine.py), statuses (errors.py).", []),
        ("Covers: a room (coordinator/tokenizer).\nSource: transformers' modeling_llama.py.", []),
    ],
)
def test_a_file_that_a_docstring_names_in_vain_is_noticed(docstring: str, missing: list[str]) -> None:
    """A file of another room without its room, and one that has moved; files of sources are not ours."""
    assert missing_files(docstring, REPOSITORY / "common" / "example.py") == missing


@pytest.mark.parametrize(
    ("text", "missing"),
    [
        ("`common/gone.py` and `tests/unit/gone`", ["common/gone.py", "tests/unit/gone"]),
        ("`engine.py`, [a page](deploy/gone.md)", ["engine.py", "deploy/gone.md"]),
        ("`common/errors.py`, `tests/unit`, `split/node0`, [a page](deploy/README.md), `latest-*.md`", []),
    ],
)
def test_a_path_that_a_document_names_in_vain_is_noticed(text: str, missing: list[str]) -> None:
    """Files, folders and links; what is no path of ours is not looked for."""
    assert missing_paths(text, REPOSITORY / "EXAMPLE.md") == missing
