"""What is the verb called here? A program that tells it to users of other programs, in one line.

Covers: looking a verb up. Does not cover: which verbs are meant (each program's own cli), options (familiar.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from typer.core import TyperGroup

from common.errors import InputError


def verbs_with(meant: Mapping[str, str]) -> type[TyperGroup]:
    """Return the class of a program's verbs. Args: meant: a sentence by each verb that there is not."""

    class Verbs(TyperGroup):
        def resolve_command(self, ctx: Any, args: list[str]) -> Any:
            """Return what to run. Raises: InputError: a verb of other programs; it says what ours is."""
            if args and not ctx.resilient_parsing and args[0] in meant and self.get_command(ctx, args[0]) is None:
                raise InputError(f"there is no '{args[0]}'; {meant[args[0]]}")
            return super().resolve_command(ctx, args)

    return Verbs
