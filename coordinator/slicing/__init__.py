"""Turns a checkpoint into slices: readers for each file format, families, and the splitter."""
