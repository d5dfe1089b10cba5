"""Options from a TOML file, by the names of the flags; flags on the command line go before them.

Covers: reading the file, refusing what is no option. Does not cover: what options there are, and their types: each
program's own command says that, for flags and file alike.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import typer

from common.errors import InputError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

MAX_FILE_BYTES = 1 << 20
NO_KEYS = {None, "config", "help", "version", "install_completion", "show_completion"}
"""Options that are only typed."""


def use_options_file(context: typer.Context, path: Path | None) -> Path | None:
    """Make a file's values the defaults of a command's options; a callback for its --config option.

    Raises: InputError: the file cannot be read, is no TOML, or names what is no option.
    """
    if path is not None:
        known = {parameter.name for parameter in context.command.params} - NO_KEYS
        defaults = _read(path)
        for key in defaults:
            if key not in known:
                named = ", ".join(sorted(str(name).replace("_", "-") for name in known))
                raise InputError(f"{path} has '{key.replace('_', '-')}', which is no option; there are: {named}")
        context.default_map = {**(context.default_map or {}), **defaults}
    return path


def _read(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            text = file.read(MAX_FILE_BYTES + 1)
        if len(text) > MAX_FILE_BYTES:
            raise InputError(f"{path} is no file of options: it has more than {MAX_FILE_BYTES} bytes")
        document = tomllib.loads(text.decode())
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is no TOML: {error}") from error
    values = {}
    for key, value in document.items():
        if isinstance(value, (dict, list)):
            raise InputError(f"{path}: '{key}' is a table or a list; write one value")
        values[key.replace("-", "_")] = value
    return values
