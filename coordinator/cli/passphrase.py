"""The passphrase of a backup: from a file, from stdin, or asked for on the terminal; never an argument."""

from __future__ import annotations

import getpass
import sys
from pathlib import Path
from typing import Annotated

from common.errors import InputError
from common.program.path_options import path_option
from common.program.secret_text import text_from

PassphraseFileOption = Annotated[
    Path | None,
    path_option(
        "--passphrase-file", help="Read the passphrase from this file, or from stdin if it is -; else you are asked.",
        show_default=False,
    ),
]  # fmt: skip


def passphrase(place: Path | None, *, twice: bool) -> str:
    """Return the passphrase. Args: twice: it is a new one, which a person types two times.

    Raises: InputError: it cannot be had.
    """
    if place is not None:
        return text_from(place, "--passphrase-file")
    if not sys.stdin.isatty():
        raise InputError("no terminal to ask for the passphrase on; give --passphrase-file FILE, or - for stdin")
    typed = getpass.getpass("passphrase of the backup: ")
    if twice and getpass.getpass("the same again: ") != typed:
        raise InputError("the two are not the same; nothing was written")
    return typed
