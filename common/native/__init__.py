"""Matrix kernels in C: a few rows times weights of 32 or 16 bits, at the speed of memory."""
