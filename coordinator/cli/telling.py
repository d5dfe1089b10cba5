"""What a verb says beside its tables and its answer: on stdout what it was asked for, on stderr what it does.

Whatever a peer, a file or a flag has put into it is printed as text.
"""

from __future__ import annotations

import sys

from rich.text import Text

from common.wording import plain
from coordinator.cli.tables import screen

MOST_LETTERS = 4000
"""Of a line: more than names of all nodes take, and less than fills a terminal's memory."""


def tell(text: str) -> None:
    """Say on stderr what is being done; a line of it is what can be copied and typed."""
    print(plain(text, MOST_LETTERS), file=sys.stderr, flush=True)


def say(text: str, *, to_stderr: bool = False) -> None:
    """Say what was asked for, in lines that a terminal does not break within words."""
    console = screen(to_stderr=to_stderr)
    for line in Text(plain(text, MOST_LETTERS)).wrap(console, console.width, overflow="fold"):
        line.rstrip()
        console.print(line, soft_wrap=True)
