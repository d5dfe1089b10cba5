"""Do the screens look as they were looked at, and do tables keep words whole where there is little room?

Covers: `nodes status models plan load doctor generate why` at 60, 80 and 120 columns, with and without colours, against
tests/unit/screens; `make screens` makes those anew. Does not cover: hostile text (test_hostile_words.py).
"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.cli.nodes import show_nodes
from coordinator.cli.tables import Column, show_table
from tests.support import screens

WORDS = st.text("abcdefghij", min_size=1, max_size=18)
CELLS = st.lists(WORDS, min_size=1, max_size=6).map(" ".join)


@pytest.mark.parametrize("name", screens.SCREENS)
def test_a_screen_is_the_one_that_was_looked_at(name: str) -> None:
    """Whoever changes it makes it anew (`make screens`), looks at it as a user would, and commits it."""
    assert screens.golden(name) == (screens.GOLDEN / f"{name}.txt").read_text(encoding="utf-8")


def test_every_golden_file_has_its_screen() -> None:
    """None is left of a screen that is gone."""
    assert {path.stem for path in screens.GOLDEN.iterdir()} == set(screens.SCREENS)


@given(rows=st.lists(st.tuples(WORDS, CELLS, CELLS, CELLS), min_size=1, max_size=4), width=st.integers(40, 100))
def test_no_word_is_broken_and_no_line_is_too_long(rows: list[tuple[str, str, str, str]], width: int) -> None:
    """Whatever is in a table, and whether it has room for columns or not."""
    columns = [Column("node"), Column("state of it"), Column("address"), Column("free disk GB", is_number=True)]
    numbers = [(*row[:3], row[3].split()[0]) for row in rows]
    shown = screens.printed(lambda: show_table(columns, numbers), width=width, colour=False)
    assert all(len(line) <= width for line in shown.splitlines())
    words = shown.replace(";", " ").split()
    for row in numbers:
        for word in " ".join(row).split():
            assert word in words


def test_what_is_piped_has_one_line_a_row(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """For grep and awk, however long a name is; and no colours."""
    for name in ("COLUMNS", "FORCE_COLOR", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    names = ["a" * 60, "b" * 60]
    show_nodes([screens.node(name=name, address="x" * 120) for name in names])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["node", *names]
    assert "\x1b" not in "".join(lines)
