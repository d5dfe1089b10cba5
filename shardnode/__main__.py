"""`python -m shardnode` is the `shardnode` program."""

from common.program.program_start import end_on_interrupt

end_on_interrupt()
from shardnode.cli import main  # noqa: E402 - Ctrl-C ends it from here on

main()
