"""An answer on a person's screen: text as it comes, one line while there is none, notes that leave the text whole.

    with AnswerScreen(is_quiet=json_output) as screen:
        screen.wait("reading the prompt: 256 of 725 tokens")   # a line that is replaced; terminals only
        screen.text("The sky")                                # it is gone, and the text is there
        screen.note("kitchen is slow")                        # above the text's last line, which is written once more

Covers: stdout and stderr on the same terminal, on different ones, in pipes. Does not cover: what is said
(answer_output.py), progress bars (progress.py).
"""

from __future__ import annotations

import os
import sys
import threading
from contextlib import suppress
from types import TracebackType
from typing import TextIO

from rich.cells import cell_len

from common.errors import ResourceError

CLEAR_LINE, CLEAR_BELOW = "\r\x1b[K", "\x1b[J"
NOT_OBEYED = {code: "\N{REPLACEMENT CHARACTER}" for code in (*range(32), *range(127, 160)) if chr(code) not in "\n\t"}
"""Control characters, which begin sequences that move, colour and rename."""


def write_text(text: str) -> None:
    """Write to stdout at once. Raises: BrokenPipeError: the reader has gone; ResourceError: it cannot be written."""
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise ResourceError(f"cannot write the text to stdout: {error.strerror}; nothing more was generated") from error


class AnswerScreen:
    """What one command shows. Use as a context manager: what follows it finds a clean line. From any thread."""

    def __init__(self, *, is_quiet: bool) -> None:
        """Args: is_quiet: a program reads the answer as a document: no text and no waiting, only notes."""
        self._is_quiet = is_quiet
        self._shows_waiting = not is_quiet and _is_screen(sys.stderr)
        self._is_shared = not is_quiet and _is_screen(sys.stderr) and _is_screen(sys.stdout)
        self._lock = threading.RLock()
        self._waiting = ""
        self._line = ""
        """What stands in the text's last line; empty where the text ends with a line."""
        self._held: list[str] = []

    def wait(self, text: str) -> None:
        """Show what is waited for, in place of what was shown before; nothing once there is text, or to a program."""
        with self._lock:
            if self._shows_waiting and not self._line and text != self._waiting:
                self._waiting = text
                self._write(CLEAR_LINE + text[: _columns() - 1])

    def clear(self) -> None:
        """Show nothing that is waited for, so that somebody else may write."""
        with self._lock:
            if self._waiting:
                self._waiting = ""
                self._write(CLEAR_LINE)

    def text(self, text: str) -> None:
        """Write more of the answer, which a terminal shows and does not obey. Raises: as `write_text`."""
        if self._is_quiet or not text:
            return
        if sys.stdout.isatty():
            text = text.translate(NOT_OBEYED)
        with self._lock:
            self.clear()
            lines, end, last = text.rpartition("\n")
            if end and self._held:
                write_text(lines + end)
                self._write("".join(self._held))
                self._held.clear()
                write_text(last)
            else:
                write_text(text)
            self._line = last if end else self._line + last

    def note(self, text: str) -> None:
        """Write what the one who waits should know to stderr, on a line of its own."""
        note = f"note: {text}\n"
        with self._lock:
            waiting = self._waiting
            self.clear()
            if not (self._is_shared and self._line):
                self._write(note)
            elif (rows := _rows(self._line, _columns())) < _lines():
                up = f"\x1b[{rows - 1}A" if rows > 1 else ""
                self._write("\r" + up + CLEAR_BELOW + note)
                write_text(self._line)
            else:  # its beginning is out of reach
                self._held.append(note)
            if waiting:
                self.wait(waiting)

    def end_line(self) -> None:
        """End a line of text that was begun."""
        if self._line:
            self.text("\n")

    def _write(self, text: str) -> None:
        sys.stderr.write(text)
        sys.stderr.flush()

    def __enter__(self) -> AnswerScreen:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.clear()
        if kind is not None and not issubclass(kind, BrokenPipeError) and self._is_shared:
            with suppress(OSError, ResourceError):
                self.end_line()  # notes that were held come with it


def _is_screen(stream: TextIO) -> bool:
    return stream.isatty() and os.environ.get("TERM", "dumb") != "dumb"


def _columns() -> int:
    return _size().columns


def _lines() -> int:
    return _size().lines


def _size() -> os.terminal_size:
    try:
        size = os.get_terminal_size(sys.stderr.fileno())
    except (OSError, ValueError):
        size = os.terminal_size((80, 24))
    return size if size.columns and size.lines else os.terminal_size((80, 24))


def _rows(line: str, columns: int) -> int:
    """Return how many rows of a terminal a line of text takes; a letter of two cells never goes over an edge."""
    rows = column = 0
    for letter in line.expandtabs(8):
        width = cell_len(letter)
        if column + width > columns:
            rows, column = rows + 1, 0
        column += width
    return rows + 1
