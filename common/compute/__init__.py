"""Arithmetic of both sides: products, steps between blocks, tiles, by our kernels or torch; how fast a device is."""
