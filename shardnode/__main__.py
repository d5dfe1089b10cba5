"""`python -m shardnode` is the `shardnode` program."""

from shardnode.cli import main

main()
