"""Who computes: our kernels on the CPU, or torch? One seam, so that the same program runs over both.

    backend_named("native")                  numpy and our kernels, the default
    backend_named("torch")                   the same maths by torch on the CPU, for comparison
    backend_named("torch", use_gpu=True)     and on a CUDA device

Covers: what a backend does with rows, weights and the tiles of a block; choosing one, refusing one that is not here.
Does not cover: either one (native_backend.py, torch_backend.py), the order of tiles (shardnode/work/executor.py).

Rows come in as float32 arrays and go out so; what lies between is the backend's own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from common.errors import InputError
from common.wording import plain

if TYPE_CHECKING:  # numpy comes with them, and who only looks at options has no use for it
    from common.model.model_spec import ModelSpec
    from common.weights.slice_format import TensorPlace, TileLayout
    from common.weights.stored_numbers import Floats

NATIVE, TORCH = "native", "torch"
FLOAT32, INT8 = "float32", "int8"
ACTIVATIONS = (FLOAT32, INT8)
"""What rows may be in products with weights in GGUF's blocks, numbered as native/rounded.c has them."""
BACKENDS = (NATIVE, TORCH)


class AttentionRows(NamedTuple):
    """Neighbouring rows of one sequence in one block of attention; made for each block, so as cheap as can be."""

    row_count: int
    first_position: int
    store: Any
    """The sequence's keys and values, as Backend.new_store has made them."""
    tables: Any
    """As Backend.tables has made them."""


class Backend(Protocol):
    """One way to compute. Not safe for several threads at once."""

    name: str

    def check(self, spec: ModelSpec) -> None:
        """Raises: InputError: it cannot compute this model; says why and what can."""

    def set_thread_count(self, thread_count: int, few_rows: int) -> None:
        """Let it have so many threads, the caller's included. Args: few_rows: for rounds of few rows."""

    def use_threads_for(self, row_count: int) -> None:
        """Have what comes next use the threads that so many rows may have."""

    def use_activations(self, name: str) -> None:
        """Have what this thread computes next take rows as one of ACTIVATIONS.

        Raises: InputError: this backend does not compute so.
        """

    def rows_in(self, rows: Floats) -> Any:
        """Return rows as this backend computes with them; the same memory, where it can be."""

    def rows_out(self, rows: Any) -> Floats:
        """Return such rows as a float32 array without gaps; the same memory, where it can be."""

    def weight(self, place: TensorPlace, buffer: memoryview) -> Any:
        """Return the matrix or vector at `place` of a tile's bytes, valid as long as they are."""

    def multiply(self, rows: Any, weight: Any) -> Any:
        """Return rows @ weight, new, [row_count, out]."""

    def new_store(self, shape: tuple[int, ...]) -> Any:
        """Return room for keys and values: float32 [layer, key or value, kv_head, position, head_size].

        Raises: MemoryError: this device has not so much.
        """

    def tables(self, cosine: Floats, sine: Floats) -> Any:
        """Return the rotary tables of neighbouring rows as attention wants them; made once for all layers.

        Args: cosine, sine: float32 [row_count, head_size] without gaps; the first half of each row of sines negated.
        """

    def ffn_tile(self, spec: ModelSpec, layout: TileLayout, buffer: memoryview) -> Any:
        """Return an FFN tile to compute with, valid as long as its bytes are."""

    def head_tile(self, spec: ModelSpec, layout: TileLayout, buffer: memoryview, first_kv_head: int) -> Any:
        """Return a tile of attention. Args: first_kv_head: of the tile, among those that this rank holds."""

    def feed_forward(self, rows: Any, tile: Any) -> Any:
        """Return the tile's part of down(activation(gate(rows)) * up(rows)): new, [row_count, hidden_size]."""

    def attention(self, rows: Any, tile: Any, spec: ModelSpec, layer: int, segments: Sequence[AttentionRows]) -> Any:
        """Write keys and values of the segments' rows to their stores; return the tile's part of the block's output.

        Args: rows: [row_count, hidden_size], the segments' rows one after another.
        """


def check_backend(name: str) -> None:
    """Raise InputError unless there is a backend of this name."""
    if name not in BACKENDS:
        raise InputError(f"--backend is '{name}'; use {' or '.join(BACKENDS)}")


def check_activations(name: str, backend: str, *, use_gpu: bool = False) -> None:
    """Raise InputError unless rows can be so on such a backend."""
    if name not in ACTIVATIONS:
        raise InputError(f"--activations is '{plain(name[:20])}'; use {' or '.join(ACTIVATIONS)}")
    if name != FLOAT32 and (use_gpu or backend != NATIVE):
        raise InputError(
            f"--activations {name} is what our own kernels compute, and torch does not; leave one of the two out"
        )


def backend_named(name: str, *, use_gpu: bool = False) -> Backend:
    """Return a backend; a GPU is torch's.

    Raises: InputError: there is none of this name, or what it needs is not here.
    """
    check_backend(name)
    if use_gpu or name == TORCH:
        from common.compute.torch_backend import TorchBackend  # imports torch, which takes seconds

        return TorchBackend(use_gpu=use_gpu)
    from common.compute.native_backend import NativeBackend

    return NativeBackend()
