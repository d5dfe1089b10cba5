"""What sizes a model can have together, whatever says so: a config, a GGUF header, the description of a slice.

Covers: products of sizes, each of which may be possible by itself; how many tiles would be made of them.
Does not cover: each size by itself (model_spec.py), whether a file is as long as its tensors (coordinator/checkpoints).

All of it is arithmetic, before anything is built. The limits lie far above any model there is (of 405 billion
parameters: 128 heads, 16,384 values a row, 4.2 billion in its largest matrix) and low enough that what is built within
them takes a second and some MB.
"""

from __future__ import annotations

from collections.abc import Mapping

from common.errors import UnsupportedModel

MAX_HEAD_COUNT = 1 << 12
MAX_ROW_VALUES = 1 << 20
"""Of what all query heads, or all KV heads, have of one token."""
MAX_MATRIX_VALUES = 1 << 37
MAX_MODEL_VALUES = 1 << 44
MAX_TILE_COUNT = 1 << 16
"""Of one slice, layers that are alike counted once."""


def check_products(sizes: Mapping[str, int]) -> None:
    """Refuse what these sizes make together. Args: sizes: by the names that ModelSpec gives them.

    Raises: UnsupportedModel: the message names the sizes.
    """
    hidden, head, layers = sizes["hidden_size"], sizes["head_size"], sizes["layer_count"]
    queries, kv, ffn = sizes["query_head_count"], sizes["kv_head_count"], sizes["ffn_size"]
    _check("query_head_count", queries, MAX_HEAD_COUNT)
    _check("kv_head_count", kv, MAX_HEAD_COUNT)
    _check("query_head_count x head_size", queries * head, MAX_ROW_VALUES)
    _check("kv_head_count x head_size", kv * head, MAX_ROW_VALUES)
    _check("hidden_size x ffn_size", hidden * ffn, MAX_MATRIX_VALUES)
    _check("hidden_size x vocab_size", hidden * sizes["vocab_size"], MAX_MATRIX_VALUES)
    layer = 2 * hidden * head * (queries + kv) + 3 * hidden * ffn
    _check("layer_count x the weights of a layer", layers * layer, MAX_MODEL_VALUES)


def check_tile_count(layer_kinds: int, layer_values: int, head_values: int, item_bytes: int, tile_bytes: int) -> None:
    """Refuse tiles that would be too many.

    Args: layer_kinds: layers that are not alike; *_values: numbers in a layer, in the head.
    Raises: UnsupportedModel.
    """
    tiles = layer_kinds * (layer_values * item_bytes // tile_bytes) + 2 * (head_values * item_bytes // tile_bytes)
    _check(f"the number of tiles of {tile_bytes} bytes", tiles, MAX_TILE_COUNT)


def _check(what: str, value: int, most: int) -> None:
    if value > most:
        raise UnsupportedModel(f"{what} is {value}; at most {most} can be")
