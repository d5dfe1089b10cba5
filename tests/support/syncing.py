"""Do files have to be on the disk before a test goes on?

    sync(file)            # they do: what follows drops them from the page cache
    do_without_syncs()    # they do not: no test loses power

Covers: os.fsync in this process, which takes more time than all else that cuts a small model.
Does not cover: whole programs, which sync as they do for a person; whether the product syncs (trust_faults.py).
"""

from __future__ import annotations

import os

sync = os.fsync


def do_without_syncs() -> None:
    """Have the product write as it does, and wait for no disk."""
    os.fsync = lambda fd: None
