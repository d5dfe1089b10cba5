"""Where every tensor of a slice lies whose matrices have encodings of their own. Pure arithmetic.

Covers: a grid of tiles that no plan moves, matrices of a tile by their names, cuts beside and inside of blocks.
Does not cover: places within a tile and files (slice_format.py), which encodings (model_encodings.py).

A tile is a cell of the grid (so many KV heads with their query heads; so many FFN columns), or as much of it as a rank
holds: so what two plans cut alike is the same tile. Matrices are [inputs, outputs], each by itself; those of blocks in
groups of 16 outputs (encodings.py). `output` and `down` are cut by input: a tile holds all blocks that its inputs lie
in, and of the first one's inputs `TileLayout.skip` are not its own. Where grids can, they cut between blocks.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from common.errors import InputError
from common.model.model_spec import ModelSpec
from common.model.plan import RankShare
from common.weights.encodings import ENCODINGS, GROUP_OUTPUTS, PIECE_INPUTS, grain, is_encoded
from common.weights.model_encodings import LayerEncodings, ModelEncodings, inputs_of
from common.weights.slice_format import (
    ATTENTION,
    ITEM_BYTES,
    MAX_TILES_PER_FILE,
    FileLayout,
    cut,
    tile_of,
    uniform_runs,
)

DEFAULT_CELL_BYTES = 7 << 18
"""Small enough for another plan to use most tiles again (DECISIONS.md), large enough to be read at a disk's speed."""
HEAD_CELLS = 4
"""In a tile of the head, of which no plan cuts anything: each tile is a call from Python."""
LEAST_CUT = PIECE_INPUTS
"""FFN columns between two ranks' cuts where those go through blocks."""

Tensors = list[tuple[str, str, tuple[int, ...]]]


def encoded_block_layout(
    spec: ModelSpec, share: RankShare, kind: str, encodings: ModelEncodings, layer: int, tile_bytes: int
) -> FileLayout:
    """Return the layout of one block on the rank that has `share`. Args: tile_bytes: of the largest cell, about."""
    own = encodings.layers[layer]
    if kind == ATTENTION:
        return _attention_layout(spec, share, own, _cell_heads(spec, encodings, tile_bytes))
    return _ffn_layout(spec, share, own, _cell_columns(spec, encodings, tile_bytes))


def encoded_head_layout(spec: ModelSpec, encoding: str, tile_bytes: int, name: str = "head") -> FileLayout:
    """Return the layout of the head, or of an embedding of blocks, which lies as a head does: output by output."""
    most_bytes = HEAD_CELLS * tile_bytes
    groups = int(most_bytes // (spec.hidden_size * bytes_per_value(encoding))) // GROUP_OUTPUTS
    most = max(1, groups) * GROUP_OUTPUTS
    return FileLayout(tiles=tuple(
        tile_of([(name, encoding, (spec.hidden_size, count))], first=first, count=count)
        for first, count in cut(spec.vocab_size, most, GROUP_OUTPUTS)
    ))  # fmt: skip


def column_grains(encodings: ModelEncodings) -> tuple[int, ...]:
    """Return at which multiples FFN columns may be dealt to ranks, the one that copies nothing first."""
    whole = math.lcm(LEAST_CUT, *(grain(layer.down) for layer in encodings.layers))
    return (whole, LEAST_CUT) if whole > LEAST_CUT else (LEAST_CUT,)


def bytes_per_value(encoding: str) -> float:
    """Return what one weight takes."""
    if is_encoded(encoding):
        return ENCODINGS[encoding].bits_per_weight / 8
    return float(ITEM_BYTES[encoding])


def _attention_layout(spec: ModelSpec, share: RankShare, own: LayerEncodings, cell: int) -> FileLayout:
    head, hidden, tiles = spec.head_size, spec.hidden_size, []
    for first, kv_first, kv_count, group in uniform_runs(spec, share):
        for kv_start, count in _cells(kv_first, kv_first + kv_count, cell):
            start, query_count = first + (kv_start - kv_first) * group, count * group
            whole = inputs_of(spec, "output")
            skip, depth = _covering(start * head, (start + query_count) * head, grain(own.output), whole)
            tensors: Tensors = [
                ("query", own.query, (hidden, query_count * head)),
                ("key", own.key, (hidden, count * head)),
                ("value", own.value, (hidden, count * head)),
                ("output", own.output, (depth, hidden)),
            ]
            if spec.qkv_bias:
                tensors.append(("qkv_bias", "float32", ((query_count + 2 * count) * head,)))
            if spec.qk_norm:
                tensors += [("query_norm", "float32", (head,)), ("key_norm", "float32", (head,))]
            tiles.append(tile_of(
                tensors, first=start, count=query_count, kv_first=kv_start, kv_count=count, skip=skip
            ))  # fmt: skip
    return FileLayout(tiles=tuple(tiles))


def _ffn_layout(spec: ModelSpec, share: RankShare, own: LayerEncodings, cell: int) -> FileLayout:
    hidden, tiles = spec.hidden_size, []
    for first, count in _cells(share.ffn_column_start, share.ffn_column_stop, cell):
        skip, depth = _covering(first, first + count, grain(own.down), spec.ffn_size)
        tensors: Tensors = [
            ("gate", own.gate, (hidden, count)),
            ("up", own.up, (hidden, count)),
            ("down", own.down, (depth, hidden)),
        ]
        if spec.ffn_bias:
            tensors.append(("gate_up_bias", "float32", (2 * count,)))
        tiles.append(tile_of(tensors, first=first, count=count, skip=skip))
    return FileLayout(tiles=tuple(tiles))


def _cells(start: int, stop: int, cell: int) -> Iterator[tuple[int, int]]:
    """Yield (first, count) of the parts into which a grid of cells cuts a range. Raises: InputError: too many."""
    if (stop - start) // cell > MAX_TILES_PER_FILE:
        raise InputError(f"{stop - start} entries in cells of {cell} make more than {MAX_TILES_PER_FILE} tiles a file")
    while start < stop:
        end = min(stop, (start // cell + 1) * cell)
        yield start, end - start
        start = end


def _covering(start: int, stop: int, step: int, whole: int) -> tuple[int, int]:
    """Return what lies before a range in the blocks that cover it, and how long those are."""
    first = start // step * step
    return start - first, min(whole, -(-stop // step) * step) - first


def _cell_heads(spec: ModelSpec, encodings: ModelEncodings, tile_bytes: int) -> int:
    """Return the KV heads of a cell, the same in all layers; cells end where blocks do, if that can be."""
    head, hidden, group = spec.head_size, spec.hidden_size, spec.group_size

    def bytes_of(own: LayerEncodings) -> float:
        by_query = group * (bytes_per_value(own.query) + bytes_per_value(own.output))
        return hidden * head * (by_query + bytes_per_value(own.key) + bytes_per_value(own.value))

    wanted = max(1, int(tile_bytes // max(map(bytes_of, encodings.layers))))
    whole = math.lcm(*(grain(own.output) for own in encodings.layers))
    step = whole // math.gcd(whole, group * head)
    return wanted if step > spec.kv_head_count else -(-wanted // step) * step


def _cell_columns(spec: ModelSpec, encodings: ModelEncodings, tile_bytes: int) -> int:
    """Return the FFN columns of a cell, the same in all layers."""

    def bytes_of(own: LayerEncodings) -> float:
        return spec.hidden_size * sum(map(bytes_per_value, (own.gate, own.up, own.down)))

    step = column_grains(encodings)[0]
    most = max(step, int(tile_bytes // max(map(bytes_of, encodings.layers))) // step * step)
    count = -(-spec.ffn_size // most)
    return -(-spec.ffn_size // (count * step)) * step
