"""Where does a text come from that others on this machine are not to read? A file, or stdin: never an argument.

Arguments of a process are read by every user of its machine, in /proc. Covers: reading such a text whole, within a
limit. Does not cover: what it says (a prompt, a token, a passphrase), asking on a terminal.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from common.errors import InputError

STDIN = "-"
MOST_BYTES = 16 << 20
"""More than any context takes."""


def text_from(place: Path | str, option: str) -> str:
    """Return the text of a file, or of stdin where `place` is `-`, without the line ends that it ends in.

    Args: option: what named it, for a person. Raises: InputError: it cannot be read, is too long or no text in UTF-8.
    """
    is_stdin = str(place) == STDIN
    try:
        if is_stdin:
            content = sys.stdin.buffer.read(MOST_BYTES + 1)
        else:
            with open(place, "rb") as file:
                content = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise InputError(f"{option}: cannot read {place}: {error.strerror}") from error
    named = "stdin" if is_stdin else os.fspath(place)
    if len(content) > MOST_BYTES:
        raise InputError(f"{option}: {named} has more than {MOST_BYTES >> 20} MiB; that is no text for this")
    try:
        return content.decode("utf-8").rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise InputError(f"{option}: {named} is no text in UTF-8 (byte {error.start})") from error
