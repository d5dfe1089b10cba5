"""Arithmetic of both sides: products, the steps between blocks, one tile for a few rows; how fast a device is."""
