"""Which file does a person mean? Options and keys that name files, with ~ for the home directory.

A shell expands ~ only where a word begins: not in `--model=~/x`, not in a TOML file, not in a unit of systemd.
Covers: paths, and addresses `unix:~/x`. Does not cover: whether anything is there.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import typer


def as_path(value: object) -> Path:
    """Return the path that a person means; a TOML file may give a number."""
    return Path(os.path.expanduser(str(value)))


def as_address(value: object) -> str:
    """Return an address, or several with commas, with every unix:~/path spelled out."""
    return re.sub(r"(?<![^,\s])unix:(~[^,]*)", lambda match: f"unix:{os.path.expanduser(match[1])}", str(value))


def path_option(*names: str, **settings: Any) -> Any:
    """Return an option that names a file or a directory; arguments as of typer.Option."""
    return typer.Option(*names, parser=as_path, metavar="PATH", **settings)


def path_argument(**settings: Any) -> Any:
    """Return an argument that names a file or a directory; arguments as of typer.Argument."""
    return typer.Argument(parser=as_path, **settings)


def address_option(*names: str, **settings: Any) -> Any:
    """Return an option that is an address, or several; arguments as of typer.Option."""
    return typer.Option(*names, parser=as_address, metavar="ADDRESS", **settings)
