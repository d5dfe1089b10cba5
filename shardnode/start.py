"""Where `shardnode` begins."""

from common.program.program_start import end_on_interrupt


def main() -> None:
    """Run the program."""
    end_on_interrupt()
    from shardnode.cli import main as program

    program()
