"""What a verb says on stderr while it works."""

from __future__ import annotations

import sys


def tell(text: str) -> None:
    """Say on stderr what is being done."""
    print(text, file=sys.stderr, flush=True)
