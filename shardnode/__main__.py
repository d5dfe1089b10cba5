"""`python -m shardnode` is the `shardnode` program."""

from shardnode.start import main

main()
