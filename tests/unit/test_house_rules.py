"""Do the files obey the rules of the house that a machine can check?

Covers: names, docstrings, file length, tests, ignored checks.
Does not cover: who imports whom, code that must not exist (test_house_imports.py); fresh stubs, lint, types
(`make verify` runs their own tools).
"""

from __future__ import annotations

import ast
import io
import re
import tokenize

from tests.support.source_files import PRODUCT, REPOSITORY, called_name, name_of, python_files, tree_of

VAGUE_NAMES = {"util", "utils", "helper", "helpers", "misc", "shared", "stuff"}

LINE_LIMIT = 300
LONG_FILES: dict[str, str] = {}
"""Files over LINE_LIMIT lines, each with the reason why it is not two files."""


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
        reader = io.StringIO(path.read_text(encoding="utf-8")).readline
        comments = (token for token in tokenize.generate_tokens(reader) if token.type == tokenize.COMMENT)
        wrong += [f"{name_of(path)}:{comment.start[0]}" for comment in comments if bare.match(comment.string)]
    assert wrong == []
