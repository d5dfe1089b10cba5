"""Kernels in C: rows, few or many, times weights of 32 or 16 bits; attention, norms, gates; conversions of numbers."""
