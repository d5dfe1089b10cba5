"""Tensors to tiles: cuts a checkpoint into slices, on disk or on their way to nodes."""
