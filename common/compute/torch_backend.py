"""Computes with torch: on a CUDA device, or on the CPU, so that our kernels have something to be compared with.

Covers: the seam of backend.py: attention projections, per-head norms, rotary embedding, grouped-query attention with
causal and sliding-window masks, gated feed-forward; weights of 16 bits, widened.
Does not cover: tables of cosine and sine (shardnode/work/rotary.py), which tile, and where it comes from
(shardnode/work/executor.py).
No other backend imports torch. Everything is computed in float32. Source: arXiv:1706.03762,
arXiv:2305.13245 (grouped queries), arXiv:2002.05202 (gated feed-forward), arXiv:1909.08053 section 3 (row- and
column-parallel halves).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from common.compute.backend import FLOAT32, TORCH, AttentionRows
from common.errors import InputError, UnsupportedModel
from common.model.model_spec import ModelSpec
from common.weights.encodings import is_encoded
from common.weights.slice_format import TensorPlace, TileLayout
from common.weights.stored_numbers import Floats

try:
    import torch
    from torch.nn import functional
except ImportError as error:
    raise InputError(
        "torch, which --use-gpu and --backend torch compute with, is not installed: pip install 'shardmesh[torch]' "
        "(in a checkout: make setup GPU=1)"
    ) from error

ACTIVATIONS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "silu": functional.silu,
    "gelu": functional.gelu,
    "gelu_tanh": lambda rows: functional.gelu(rows, approximate="tanh"),
}
SLAB_BYTES = 2 * 1024 * 1024
"""Of float32 weights that a product on the CPU is given at a time, when they are stored in 16 bits."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TorchTile:
    """A tile's tensors by name, and which KV head of this rank is its first."""

    tensors: dict[str, torch.Tensor]
    layout: TileLayout
    first_kv_head: int


class TorchBackend:
    """See Backend."""

    name = TORCH

    def __init__(self, *, use_gpu: bool) -> None:
        """Raises: InputError: a GPU is asked for and torch has none."""
        if use_gpu and not torch.cuda.is_available():
            build = torch.version.cuda or "CPU only"
            raise InputError(f"--use-gpu: torch {torch.__version__} ({build}) finds no CUDA device on this machine; "
                             "leave the option out to compute on the CPU")  # fmt: skip
        self._device = torch.device("cuda" if use_gpu else "cpu")

    def check(self, spec: ModelSpec) -> None:
        """Every ModelSpec can be computed."""

    def set_thread_count(self, thread_count: int, few_rows: int) -> None:
        torch.set_num_threads(thread_count)

    def use_threads_for(self, row_count: int) -> None:
        """Torch has the same threads for all."""

    def use_activations(self, name: str) -> None:
        if name != FLOAT32:
            raise InputError(f"this device computes with torch, which has no {name} activations; leave --activations "
                             "out, or have it compute with our kernels (--backend native)")  # fmt: skip

    def rows_in(self, rows: Floats) -> torch.Tensor:
        # torch warns of memory that must not be written.
        return torch.from_numpy(rows if rows.flags.writeable else rows.copy()).to(self._device)

    def rows_out(self, rows: torch.Tensor) -> Floats:
        array: Floats = np.ascontiguousarray(rows.cpu().numpy())
        return array

    def weight(self, place: TensorPlace, buffer: memoryview) -> torch.Tensor:
        """On a GPU it is a copy, widened to float32."""
        if is_encoded(place.dtype):
            raise UnsupportedModel(f"its weights are blocks of {place.dtype}, which torch does not compute with; slice "
                                   "the model with --weights-dtype float16, or compute with --backend native"
                                   )  # fmt: skip
        dtype = getattr(torch, place.dtype)
        stored = torch.frombuffer(buffer, dtype=dtype, count=math.prod(place.shape), offset=place.offset)
        stored = stored.view(place.shape)
        return stored if self._device.type == "cpu" else stored.to(self._device).float()

    def multiply(self, rows: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        if weight.dtype is torch.float32:
            return torch.mm(rows, weight)
        depth, width = weight.shape
        product = torch.zeros((rows.shape[0], width))
        slab_depth = max(1, SLAB_BYTES // 4 // max(1, width))
        for first in range(0, depth, slab_depth):
            own = slice(first, first + slab_depth)
            product.addmm_(rows[:, own], weight[own].float())
        return product

    def new_store(self, shape: tuple[int, ...]) -> torch.Tensor:
        try:
            return torch.empty(shape, dtype=torch.float32, device=self._device)
        except RuntimeError as error:  # what torch says when the system, or the GPU, refuses
            raise MemoryError(str(error)) from error

    def tables(self, cosine: Floats, sine: Floats) -> tuple[torch.Tensor, torch.Tensor]:
        return self.rows_in(cosine), self.rows_in(sine)

    def ffn_tile(self, spec: ModelSpec, layout: TileLayout, buffer: memoryview) -> tuple[TorchTile, str]:
        return self.head_tile(spec, layout, buffer, 0), spec.activation

    def head_tile(self, spec: ModelSpec, layout: TileLayout, buffer: memoryview, first_kv_head: int) -> TorchTile:
        tensors = {place.name: self.weight(place, buffer) for place in layout.tensors}
        return TorchTile(tensors=tensors, layout=layout, first_kv_head=first_kv_head)

    def feed_forward(self, rows: torch.Tensor, tile: tuple[TorchTile, str]) -> torch.Tensor:
        tensors, activation = tile[0].tensors, ACTIVATIONS[tile[1]]
        both = self.multiply(rows, tensors["gate_up"])
        if "gate_up_bias" in tensors:
            both += tensors["gate_up_bias"]
        gate, up = both.chunk(2, dim=-1)
        return self.multiply(activation(gate).mul_(up), tensors["down"])

    def attention(
        self, rows: torch.Tensor, tile: TorchTile, spec: ModelSpec, layer: int, segments: Sequence[AttentionRows]
    ) -> torch.Tensor:
        projected = self.multiply(rows, tile.tensors["qkv"])
        if "qkv_bias" in tile.tensors:
            projected += tile.tensors["qkv_bias"]
        heads = projected.view(rows.shape[0], -1, spec.head_size)
        contexts, first_row = [], 0
        for own in segments:
            stop_row = first_row + own.row_count
            contexts.append(_context(heads[first_row:stop_row], tile, spec, layer, own))
            first_row = stop_row
        return self.multiply(contexts[0] if len(contexts) == 1 else torch.cat(contexts), tile.tensors["output"])


def _context(heads: torch.Tensor, tile: TorchTile, spec: ModelSpec, layer: int, own: AttentionRows) -> torch.Tensor:
    """Store keys and values of one sequence's rows; return what its queries attend to.

    Args: heads: [row_count, query_count + 2 * kv_count, head_size].
    """
    query_count, kv_count = tile.layout.count, tile.layout.kv_count
    turned, values = heads[:, : query_count + kv_count], heads[:, query_count + kv_count :]
    if "query_norm" in tile.tensors:
        size, epsilon = (spec.head_size,), spec.norm_epsilon
        queries = functional.rms_norm(turned[:, :query_count], size, tile.tensors["query_norm"], epsilon)
        keys = functional.rms_norm(turned[:, query_count:], size, tile.tensors["key_norm"], epsilon)
        turned = torch.cat((queries, keys), dim=1)
    cosine, sine = own.tables
    turned = torch.addcmul(turned * cosine[:, None], turned.roll(spec.head_size // 2, dims=-1), sine[:, None])
    stop = own.first_position + own.row_count
    kept = own.store[layer, :, tile.first_kv_head : tile.first_kv_head + kv_count]
    kept[0, :, own.first_position : stop] = turned[:, query_count:].transpose(0, 1)
    kept[1, :, own.first_position : stop] = values.transpose(0, 1)
    return _attend(
        turned[:, :query_count], kept[0, :, :stop], kept[1, :, :stop], own.first_position, spec.sliding_windows[layer]
    )


def _attend(
    queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, first_position: int, sliding_window: int
) -> torch.Tensor:
    """Return softmax(queries keys^T / sqrt(head_size)) values of one sequence, causal.

    Args: queries: [row_count, query_count, head_size], at positions first_position onwards;
    keys, values: [kv_count, length, head_size], positions 0 onwards; sliding_window: 0 for none.
    Returns: [row_count, query_count * head_size].
    """
    row_count, length = queries.shape[0], keys.shape[1]
    start = max(0, first_position + 1 - sliding_window) if sliding_window else 0
    keys, values = keys[:, start:], values[:, start:]
    # A prompt's first chunk that no window cuts: torch skips what lies above the diagonal, and no mask is built.
    is_square = first_position == 0 and (not sliding_window or row_count <= sliding_window)
    mask = None
    if not is_square:
        mask = _causal_mask(first_position, row_count, start, length, sliding_window, queries.device)
    context = functional.scaled_dot_product_attention(
        queries.transpose(0, 1)[None], keys[None], values[None], attn_mask=mask, is_causal=is_square, enable_gqa=True
    )
    return context[0].transpose(0, 1).reshape(row_count, -1)


def _causal_mask(
    first_position: int, row_count: int, start: int, length: int, sliding_window: int, device: torch.device
) -> torch.Tensor:
    """Return which of positions start..length each row sees: bool [row_count, length - start]."""
    rows = torch.arange(first_position, first_position + row_count, device=device)[:, None]
    columns = torch.arange(start, length, device=device)[None, :]
    mask = columns <= rows
    if sliding_window:
        mask &= columns > rows - sliding_window
    return mask
