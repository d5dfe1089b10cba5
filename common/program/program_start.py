"""How a program begins: Ctrl-C while it still imports ends it without a traceback.

    with importing():
        from shardnode.cli import main as program
    program()

Does not cover: Ctrl-C once it runs (command_line.py).
"""

import signal
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def importing() -> Iterator[None]:
    """Have Ctrl-C end the process at once inside; not where a shell in the background has it ignored."""
    interrupts = signal.getsignal(signal.SIGINT)
    if interrupts is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGINT, interrupts)
