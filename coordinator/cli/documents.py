"""What `--json` prints: one JSON document on stdout, in ASCII, with the keys that README.md lists.

Covers: numbers that JSON has none for. Does not cover: what an answer's document holds (answer_output.py).
"""

from __future__ import annotations

import json
import math
from typing import Annotated, Any

import typer

JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of a table.")]


def show_document(document: dict[str, Any]) -> None:
    """Print it; a number that is not finite is null."""
    print(json.dumps(_finite(document), allow_nan=False))


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _finite(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
