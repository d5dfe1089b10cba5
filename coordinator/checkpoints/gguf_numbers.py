"""How the `gguf` package makes float32 of blocks, and blocks of float32; numpy comes with it.

Does not cover: kinds of blocks (lean_gguf.py), which who reads no weights imports alone.
"""

from __future__ import annotations

from coordinator.checkpoints.lean_gguf import package_that_runs_nothing

with package_that_runs_nothing():
    from gguf.quants import dequantize as dequantize
    from gguf.quants import quantize as quantize
