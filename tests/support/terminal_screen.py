"""A terminal of a given size, and what a person sees on it.

    with Terminal(columns=20, rows=5) as terminal:
        terminal.open().write("text")                 # as a program's stdout or stderr
        terminal.shown()                              # lines, those that have left the screen at its top included

Covers: text, line feeds, carriage returns, tabs, letters of two cells, going up, erasing a line or all below.
Colours and a cursor that is hidden are not looked at.
Does not cover: anything else that terminals do; a test that meets it fails.
"""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import struct
import termios
from contextlib import ExitStack
from types import TracebackType
from typing import TextIO

from rich.cells import cell_len

PIECES = re.compile(r"\x1b\[([\d;?]*)([A-Za-z])|(.)", re.DOTALL)
WIDE = ""
"""What stands in the second cell of a letter of two."""


class Terminal:
    """Programs write to it. Use as a context manager."""

    def __init__(self, *, columns: int = 80, rows: int = 24) -> None:
        self._columns, self._rows = columns, rows
        self._ours, self._theirs = pty.openpty()
        fcntl.ioctl(self._theirs, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        self._opened = ExitStack()
        self._read = ""

    def open(self) -> TextIO:
        """Return a stream onto it."""
        return self._opened.enter_context(open(os.dup(self._theirs), "w", encoding="utf-8"))

    @property
    def descriptor(self) -> int:
        """For a program that is started."""
        return self._theirs

    def written(self) -> str:
        """Return all that was written to it so far."""
        data = b""
        while select.select([self._ours], [], [], 0.0)[0]:
            data += os.read(self._ours, 65536)
        self._read += data.decode()
        return self._read

    def shown(self) -> list[str]:
        """Return the lines that a person sees, without the empty ones at the end."""
        screen = _Screen(self._columns, self._rows)
        for number, command, letter in PIECES.findall(self.written()):
            if command:
                screen.obey(number, command)
            else:
                screen.put(letter)
        texts = ["".join(line).rstrip() for line in screen.lines]
        while texts and not texts[-1]:
            texts.pop()
        return texts

    def __enter__(self) -> Terminal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._opened.close()
        os.close(self._ours)
        os.close(self._theirs)


class _Screen:
    def __init__(self, columns: int, rows: int) -> None:
        self._columns, self._rows = columns, rows
        self._row = self._column = 0
        self.lines: list[list[str]] = [[]]

    def obey(self, number: str, command: str) -> None:
        if command == "A":
            self._row = max(self._row - int(number or 1), len(self.lines) - self._rows, 0)
        elif command == "K":
            del self.lines[self._row][0 if number == "2" else self._column :]
        elif command == "J":
            del self.lines[self._row][self._column :], self.lines[self._row + 1 :]
        else:
            assert command in "hlm", (number, command)

    def put(self, letter: str) -> None:
        if letter == "\r":
            self._column = 0
        elif letter == "\n":
            self._row += 1
        elif letter == "\t":
            self._column = min(self._column // 8 * 8 + 8, self._columns - 1)
        else:
            assert letter.isprintable(), letter
            if self._column + cell_len(letter) > self._columns:
                self._row, self._column = self._row + 1, 0
        while self._row >= len(self.lines):
            self.lines.append([])
        if letter.isprintable():
            line = self.lines[self._row]
            line += [" "] * (self._column - len(line))
            line[self._column : self._column + cell_len(letter)] = [letter, *[WIDE] * (cell_len(letter) - 1)]
            self._column += cell_len(letter)
