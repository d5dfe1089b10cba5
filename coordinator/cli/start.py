"""Where `coordinator-cli` begins."""

import sys

from common.program.program_start import end_on_interrupt


def main() -> None:
    """Run the program."""
    end_on_interrupt()
    if sys.argv[1:2] == ["generate"] and "--help" not in sys.argv:
        from coordinator.tokenizer.nursery_early import begin_early

        begin_early()
    from coordinator.cli.main import main as program

    program()
