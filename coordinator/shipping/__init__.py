"""Slices on their way from a checkpoint to the nodes that will serve them."""
