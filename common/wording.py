"""How is what others have said, and how is a count, written for a person? Pure.

Covers: text of a peer, a file or a flag as one line that a terminal only shows; plurals.
Does not cover: tables and lines of programs (coordinator/cli/tables.py), sizes (program/sizes.py).
"""

from __future__ import annotations

import re
import unicodedata

MOST_MARKS = 2
"""Marks on one letter, as accents are: scripts need two, and a hundred of them cover the lines above."""


SPACE = re.compile(r"\s+")
MOST_SPACES = 8
"""In a row: a path may have two, and a hundred of them push what follows out of sight."""
MORE_SPACES = " " * (MOST_SPACES + 1)


def plain(text: object, most_letters: int | None = None) -> str:
    """Return what a terminal shows and does not obey: one line, every control character replaced by a mark.

    Control characters are those of terminals, and those that turn the direction of writing or cannot be seen.
    Args: most_letters: a longer text is cut, and ends in dots.
    """
    line = str(text)
    if line.isascii() and line.isprintable() and MORE_SPACES not in line:  # as most are: nothing is left to look for
        line = line.strip()
        return line if most_letters is None or len(line) <= most_letters else _cut(line, most_letters)
    line = SPACE.sub(_one_space, line).strip()
    if most_letters is not None and len(line) > most_letters:
        line = _cut(line, most_letters)
    letters, marks = [], 0
    for letter in line:
        marks = marks + 1 if unicodedata.combining(letter) else 0
        if marks <= MOST_MARKS:
            letters.append(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}")
    return "".join(letters)


def _cut(line: str, most_letters: int) -> str:
    return line[: most_letters - 1] + "\N{HORIZONTAL ELLIPSIS}"


def _one_space(found: re.Match[str]) -> str:
    spaces = found[0]
    return spaces if spaces == " " * len(spaces) and len(spaces) <= MOST_SPACES else " "


def counted(count: int, thing: str, things: str = "") -> str:
    """Return `1 node`, `2 nodes`. Args: things: the plural, where it is not made with an s."""
    return f"{count} {thing if count == 1 else things or thing + 's'}"
