"""The star reduction: one partial sum per rank, added in rank order. Pure.

Float addition is not associative: in arrival order the same prompt would give different tokens on different runs.
Source: row-parallel projection, arXiv:1909.08053 section 3; star all-reduce, arXiv:2410.00531 section 3.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from common.compute.row_steps import add_parts
from common.errors import ShapeError
from common.weights.stored_numbers import Floats


def reduce_partials(partials: Sequence[Floats]) -> Floats:
    """Add one partial sum per rank, rank 0 first, and return the block's output.

    Args: partials: one float32 array per rank, each [token_count, hidden_size].
    Returns: new float32 [token_count, hidden_size]; inputs unchanged.
    Raises: ShapeError: no partials, or shapes or dtypes differ.
    """
    return reduce_and_check(partials)[0]


def reduce_and_check(partials: Sequence[Floats]) -> tuple[Floats, bool]:
    """Return what `reduce_partials` returns, and whether it looks finite: False may be a mistake, True is none."""
    if not partials:
        raise ShapeError("there is no partial sum to reduce")
    first = partials[0]
    for partial in partials:
        if partial.shape != first.shape or partial.dtype != np.float32:
            raise ShapeError(f"partial sums differ: {list(partial.shape)} {partial.dtype}, {list(first.shape)} float32")
    return add_parts([np.ascontiguousarray(partial) for partial in partials])
