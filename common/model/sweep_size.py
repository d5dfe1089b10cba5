"""How many rows a sweep may have at most, by the model's width.

Covers: the one number that the engine, plans, shares of memory and the memory of rounds are sized by.
Does not cover: which rows a sweep has (coordinator/engine/batch.py).
"""

MAX_INPUT_BYTES = 4 << 20
"""A round's input stays below this; far below the message limit, and a node's memory for it is bounded."""
MAX_ROWS = 512


def rows_per_sweep(hidden_size: int) -> int:
    """Return how many rows a sweep may have at most: a prefill chunk's length."""
    return max(1, min(MAX_ROWS, MAX_INPUT_BYTES // (4 * hidden_size)))
