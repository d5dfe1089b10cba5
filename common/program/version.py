"""Which version of shardmesh is this? Cheap: neither numpy nor gRPC is imported.

Covers: the number, and the option --version of every program.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Annotated

import typer

from common.wording import plain


@lru_cache(maxsize=1)
def program_version() -> str:
    """Return the version that was installed."""
    # Here and not at the top: it takes as long as the rest of a verb's imports.
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("shardmesh")
    except PackageNotFoundError:  # run from a source tree that was never installed
        return "unknown"


def _show(context: typer.Context, is_asked: bool) -> None:
    if is_asked and not context.resilient_parsing:
        print(plain(f"{context.find_root().info_name} {program_version()}"))
        raise typer.Exit


VersionOption = Annotated[
    bool, typer.Option("--version", "-V", help="Print which version this is.", callback=_show, is_eager=True)
]
