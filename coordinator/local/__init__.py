"""Shard nodes as processes of this machine, and what memory each process gets."""
