"""The one place through which every table goes: whole words at any width, and text that is only shown.

Covers: columns as wide as they need; narrower ones, wrapped between words; where even that is too wide, a few lines a
row. What is no terminal gets one line a row, for `grep`. Cells come from peers, files and flags: whatever they hold is
printed as text. (A Table of rich breaks words where columns are to be narrower than they would like.)
Does not cover: sentences (telling.py), progress (progress.py).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from common.wording import plain

MOST_LETTERS = 200
"""Of a cell. Names of ours have 60 at most, and who sends more wants the whole screen."""
GAP, NOTHING = 2, "-"
LEAST_WIDTH = 20
"""Of a terminal that says it has none."""
ENDLESS = 100_000
TITLE_STYLE, TROUBLE_STYLE = "bold", "red"


class Trouble(str):
    """A cell that a person should look at."""


@dataclass(frozen=True)
class Column:
    """A column of a table."""

    title: str
    is_number: bool = False


def screen(*, to_stderr: bool = False) -> Console:
    """Return where people read: as wide as their terminal, endless where it is none; COLUMNS goes before both.

    NO_COLOR means no escape sequence at all, TERM and FORCE_COLOR what they always mean.
    """
    console = Console(
        stderr=to_stderr, highlight=False, markup=False, emoji=False,
        color_system=None if os.environ.get("NO_COLOR") else "auto",
    )  # fmt: skip
    if not console.is_terminal and not os.environ.get("COLUMNS", "").isdecimal():
        console.width = ENDLESS
    elif console.width < LEAST_WIDTH:  # else it goes on to be as wide as its terminal is then
        console.width = LEAST_WIDTH
    return console


def show_table(columns: Sequence[Column], rows: Sequence[Sequence[str]], *, to_stderr: bool = False) -> None:
    """Print rows under the titles of their columns; the first column says what a row is about."""
    console = screen(to_stderr=to_stderr)
    for line in table_lines(console, columns, rows):
        console.print(line, soft_wrap=True)


def table_lines(console: Console, columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> list[Text]:
    """Return a table's lines, none of them wider than the console."""
    cells = [[_cell(value) for value in row] for row in rows]
    widths = _widths(columns, cells, console.width - GAP * (len(columns) - 1))
    if widths is None:
        return _paragraphs(console, columns, cells)
    lines = []
    titles = [Text(column.title, style=TITLE_STYLE) for column in columns]
    for row in (titles, *cells):
        parts = [value.wrap(console, width) for value, width in zip(row, widths, strict=True)]
        height = max(map(len, parts))
        is_title = row is titles  # of titles the last lines stand side by side, of cells the first
        for index in range(height):
            line = Text()
            for column, part, width in zip(columns, parts, widths, strict=True):
                at = index - height + len(part) if is_title else index
                text = part[at] if 0 <= at < len(part) else Text()
                text.rstrip()
                blank = " " * (width - text.cell_len)
                line.append_text(Text.assemble(blank, text) if column.is_number else Text.assemble(text, blank))
                line.append(" " * GAP)
            line.rstrip()
            lines.append(line)
    return lines


def _cell(value: str) -> Text:
    return Text(plain(value, MOST_LETTERS) or NOTHING, style=TROUBLE_STYLE if isinstance(value, Trouble) else "")


def _widths(columns: Sequence[Column], rows: Sequence[Sequence[Text]], room: int) -> list[int] | None:
    """Return the columns' widths; None where not even whole words fit. The widest columns give way first."""
    widths, least = [], []
    for index, column in enumerate(columns):
        cells = [row[index].plain for row in rows]
        words = [*column.title.split(), *(cells if column.is_number else " ".join(cells).split())]
        widths.append(max(map(cell_len, [column.title, *cells])))
        least.append(max(map(cell_len, words)))
    while sum(widths) > room:
        wide = [index for index, width in enumerate(widths) if width > least[index]]
        if not wide:
            return None
        # A title gives way before a cell does.
        widths[max(wide, key=lambda index: (widths[index] > _cells_width(rows, index), widths[index]))] -= 1
    return widths


def _cells_width(rows: Sequence[Sequence[Text]], index: int) -> int:
    return max((row[index].cell_len for row in rows), default=0)


def _paragraphs(console: Console, columns: Sequence[Column], rows: Sequence[Sequence[Text]]) -> list[Text]:
    """Return each row as its name, and below it what is known, by title."""
    width = console.width - GAP
    shown: list[Text] = []
    for name, *values in rows:
        title = Text(name.plain, style=f"{TITLE_STYLE} {name.style}".strip())
        shown += title.wrap(console, console.width, overflow="fold")
        known = [(column.title, value) for column, value in zip(columns[1:], values, strict=True)
                 if value.plain != NOTHING]  # fmt: skip
        lines = [Text()]
        for index, (title_text, value) in enumerate(known):
            part = Text.assemble(f"{title_text} ", value, ";" if index + 1 < len(known) else "")
            if lines[-1] and lines[-1].cell_len + 1 + part.cell_len > width:
                lines.append(Text())
            lines[-1] = Text.assemble(lines[-1], " ", part) if lines[-1] else part
        for line in lines:
            for piece in line.wrap(console, width, overflow="fold"):
                piece.rstrip()
                shown.append(Text.assemble(" " * GAP, piece))
    return shown
