"""Slices on disk and in memory: the format, the memory window and its reader."""
