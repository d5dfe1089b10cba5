"""Where `shardnode` begins."""

from typing import NoReturn

from common.program.program_start import importing


def main() -> NoReturn:
    """Run the program."""
    with importing():
        from shardnode.cli import main as program
    program()
