"""Where `coordinator` begins."""

from common.program.program_start import end_on_interrupt


def main() -> None:
    """Run the program."""
    end_on_interrupt()
    from coordinator.tokenizer.nursery_early import begin_early

    begin_early()
    from coordinator.cli.coordinator import main as program

    program()
