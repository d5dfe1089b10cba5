"""How a program begins: Ctrl-C while it still imports ends it without a traceback.

Covers: the time before a program handles Ctrl-C itself (command_line.py). Imports nothing but what Python has at hand.
"""

import signal
from collections.abc import Callable
from typing import NoReturn


def run_imported(imported: Callable[[], Callable[[], NoReturn]]) -> NoReturn:
    """Run a program's `main`, which ends the process. Args: imported: imports it and returns it."""
    interrupts = signal.getsignal(signal.SIGINT)
    if interrupts is signal.default_int_handler:  # not where a shell in the background has it ignored
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    main = imported()
    signal.signal(signal.SIGINT, interrupts)
    main()
