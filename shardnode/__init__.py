"""One device: holds a slice, streams it through a memory window, computes its part of every block."""
