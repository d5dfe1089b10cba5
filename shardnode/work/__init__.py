"""The slice at work: tiles, kernels, keys and values. Begin with executor.py."""
