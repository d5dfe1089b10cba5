"""Where `coordinator` begins; see common/program_start.py."""

from collections.abc import Callable
from typing import NoReturn

from common.program_start import run_imported


def _imported() -> Callable[[], NoReturn]:
    from coordinator.daemon_cli import main as program

    return program


def main() -> NoReturn:
    """Run the program."""
    run_imported(_imported)
