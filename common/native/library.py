"""Is there a library of matrix kernels that works here, and what are its functions called in Python?

Covers: loading it, refusing one that is stale or broken, the instruction set that this processor has.
Does not cover: building it (build.py), when it is used (common/compute/matmul.py).
Calls release the GIL. The library keeps one choice of instruction set and one thread count for the whole process.
"""

from __future__ import annotations

import ctypes
import logging
from dataclasses import dataclass
from enum import IntEnum
from functools import cache
from pathlib import Path

from common.native.build import LIBRARY, why_there_are_none
from common.native.choices import declare as declare_choices
from common.native.elf import is_cut_short
from common.native.peers import Peer, Stretch, Tally
from common.native.served import declare as declare_serving

ABI_VERSION = 12
"""interface.h has the same; it changes whenever a function does."""
LEAST_THREADED_BYTES = 1024 * 1024
"""One thread reads this much in 50 microseconds; waking another for less gains nothing."""
NONE = "none"
FLOAT_KINDS = ("float32", "float16", "bfloat16")
WEIGHT_KINDS = (
    *FLOAT_KINDS,
    "q8_0", "q4_0", "q4_1", "q5_0", "q5_1", "q2_k", "q3_k", "q4_k", "q5_k", "q6_k", "iq4_nl", "iq4_xs",
)  # fmt: skip
"""What weights may be, numbered as in encodings.h; beside floats, GGUF's blocks (common/weights/encodings.py)."""
ACTIVATIONS = ("silu", "gelu", "gelu_tanh")
"""What an FFN tile's gate may be, numbered as in steps.h."""
NUMBERS_PER_SCALE = 64
"""Of rows that travel in 8 bits (rounding.c)."""

logger = logging.getLogger(__name__)


class Attention(ctypes.Structure):
    """`struct attention` of steps.h, whose fields are explained there."""

    _fields_ = (
        ("projected", ctypes.c_void_p), ("row_count", ctypes.c_ssize_t), ("query_count", ctypes.c_ssize_t),
        ("kv_count", ctypes.c_ssize_t), ("head_size", ctypes.c_ssize_t), ("bias", ctypes.c_void_p),
        ("query_norm", ctypes.c_void_p), ("key_norm", ctypes.c_void_p), ("norm_epsilon", ctypes.c_float),
        ("cosine", ctypes.c_void_p), ("sine", ctypes.c_void_p), ("keys", ctypes.c_void_p),
        ("values", ctypes.c_void_p), ("head_pitch", ctypes.c_ssize_t), ("first_position", ctypes.c_ssize_t),
        ("sliding_window", ctypes.c_ssize_t), ("context", ctypes.c_void_p),
    )  # fmt: skip


class Matrix(ctypes.Structure):
    """`struct matrix` of tiles.h: weights in memory, or at an offset of a file, to be had from the page cache.

    `kind` is the place of a name in WEIGHT_KINDS; those after FLOAT_KINDS are packed (encodings.h).
    """

    _fields_ = (
        ("memory", ctypes.c_void_p), ("offset", ctypes.c_longlong), ("fd", ctypes.c_int), ("kind", ctypes.c_int),
        ("depth", ctypes.c_ssize_t), ("width", ctypes.c_ssize_t),
    )  # fmt: skip


class FfnTile(ctypes.Structure):
    """`struct ffn_tile` of tiles.h."""

    _fields_ = (
        ("gate_up", Matrix * 2), ("projection_count", ctypes.c_int), ("activation", ctypes.c_int), ("down", Matrix),
        ("down_skip", ctypes.c_ssize_t), ("gate_up_bias", ctypes.c_void_p),
    )  # fmt: skip


class AttentionTile(ctypes.Structure):
    """`struct attention_tile` of tiles.h."""

    _fields_ = (
        ("projections", Matrix * 3), ("projection_count", ctypes.c_int), ("output", Matrix),
        ("output_skip", ctypes.c_ssize_t),
    )  # fmt: skip


class HeadTile(ctypes.Structure):
    """`struct head_tile` of tiles.h."""

    _fields_ = (
        ("matrices", AttentionTile), ("bias", ctypes.c_void_p), ("query_norm", ctypes.c_void_p),
        ("key_norm", ctypes.c_void_p), ("query_count", ctypes.c_ssize_t), ("kv_count", ctypes.c_ssize_t),
        ("first_kv_head", ctypes.c_ssize_t),
    )  # fmt: skip


class LayerBlock(ctypes.Structure):
    """`struct layer_block` of tiles.h."""

    _fields_ = (
        ("ffn_tiles", ctypes.POINTER(FfnTile)), ("head_tiles", ctypes.POINTER(HeadTile)),
        ("tile_count", ctypes.c_ssize_t), ("norm", ctypes.c_void_p), ("late_bias", ctypes.c_void_p),
        ("sliding_window", ctypes.c_ssize_t),
    )  # fmt: skip


class SequenceRows(ctypes.Structure):
    """`struct sequence_rows` of tiles.h."""

    _fields_ = (
        ("row_count", ctypes.c_ssize_t), ("first_position", ctypes.c_ssize_t), ("capacity", ctypes.c_ssize_t),
        ("store", ctypes.c_void_p), ("cosine", ctypes.c_void_p), ("sine", ctypes.c_void_p),
        ("lengths", ctypes.c_void_p),
    )  # fmt: skip


class LayersModel(ctypes.Structure):
    """`struct layers_model` of tiles.h."""

    _fields_ = (
        ("hidden_size", ctypes.c_ssize_t), ("head_size", ctypes.c_ssize_t), ("kv_head_count", ctypes.c_ssize_t),
        ("norm_epsilon", ctypes.c_float),
    )  # fmt: skip


class Outcome(IntEnum):
    """What the functions that take a Matrix return (interface.h)."""

    DONE = 0
    REFUSED = 1
    """Shapes that do not fit each other, or a kind that is none; nothing is written."""
    NOT_CACHED = 2
    """Some of the weights are not in the page cache."""
    NEVER_CACHED = 3
    """This system, or this file's file system, does not read only what is in the page cache."""
    NO_MEMORY = 4
    """For what lies between two products of these rows."""
    NOT_SIMPLE = 5
    """Of messages: whoever calls has to go on by himself."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Kernels:
    """The library's functions, or why there are none. Addresses are those of CPU memory that stays where it is."""

    variants: tuple[str, ...]
    """Instruction sets of this processor that there are kernels for, best first."""
    reason: str
    """Why there are none; empty when there are."""
    functions: ctypes.CDLL | None
    can_be_built: bool = True
    """Whether a compiler would help where there are none."""

    @property
    def variant(self) -> str:
        """The instruction set chosen when the library was loaded, or NONE."""
        return self.variants[0] if self.variants else NONE

    def choose(self, variant: str) -> None:
        """Compute with one of `variants` from now on."""
        assert self.functions is not None
        names = _variant_names(self.functions)
        if self.functions.shardmesh_choose_variant(names.index(variant)) != 0:
            raise ValueError(f"this processor has no {variant}")

    def set_thread_count(self, thread_count: int, least_bytes: int = LEAST_THREADED_BYTES) -> None:
        """Let products with at least `least_bytes` of weights have that many threads, the caller's included.

        Without a library, do nothing.
        """
        if self.functions is not None:
            self.functions.shardmesh_use_threads(thread_count, least_bytes)

    def sum(self, address: int, count: int) -> float:
        """Return the sum of `count` float32: what reading them costs, for benchmarks."""
        assert self.functions is not None
        return float(self.functions.shardmesh_sum(address, count))


def absent(reason: str, *, can_be_built: bool = True) -> Kernels:
    """Return no kernels. Args: can_be_built: a compiler would help."""
    return Kernels(variants=(), reason=reason, functions=None, can_be_built=can_be_built)


def load(path: Path = LIBRARY) -> Kernels:
    """Load the library and choose the best instruction set; what does not work is logged once and left alone."""
    if reason := why_there_are_none():
        return absent(reason, can_be_built=False)
    if not path.exists():
        return absent("the library was not built; `python -m common.native.build` builds it")
    try:
        if is_cut_short(path):
            return _refused(path, "it is cut short")
        functions = ctypes.CDLL(str(path))
        _declare(functions)
        version = functions.shardmesh_abi_version()
    except (OSError, AttributeError) as error:
        return _refused(path, str(error))
    if version != ABI_VERSION:
        return _refused(path, f"it has interface {version}, and {ABI_VERSION} is needed")
    names = _variant_names(functions)
    variants = [name for index, name in enumerate(names) if functions.shardmesh_choose_variant(index) == 0]
    if not variants:
        return absent(f"this processor has none of {', '.join(names)}", can_be_built=False)
    functions.shardmesh_choose_variant(names.index(variants[0]))
    return Kernels(variants=tuple(variants), reason="", functions=functions)


@cache
def shared() -> Kernels:
    """Return the library as this process first loaded it: the choice of an instruction set is one for all of it."""
    return load()


def _refused(path: Path, reason: str) -> Kernels:
    logger.warning(
        "%s is not usable (%s); `python -m common.native.build` builds it anew",
        path, reason,
    )  # fmt: skip
    return absent(reason)


def _variant_names(functions: ctypes.CDLL) -> list[str]:
    names: list[str] = []
    while (name := functions.shardmesh_variant_name(len(names))) is not None:
        names.append(name.decode())
    return names


def _declare(functions: ctypes.CDLL) -> None:
    """Tell ctypes the functions of interface.h. Raises: AttributeError: one is missing."""
    address, size, integer = ctypes.c_void_p, ctypes.c_ssize_t, ctypes.c_int
    functions.shardmesh_abi_version.restype = integer
    functions.shardmesh_abi_version.argtypes = []
    functions.shardmesh_variant_name.restype = ctypes.c_char_p
    functions.shardmesh_variant_name.argtypes = [integer]
    functions.shardmesh_choose_variant.restype = integer
    functions.shardmesh_choose_variant.argtypes = [integer]
    functions.shardmesh_use_threads.restype = None
    functions.shardmesh_use_threads.argtypes = [integer, size]
    functions.shardmesh_use_activations.restype = integer
    functions.shardmesh_use_activations.argtypes = [integer]
    functions.shardmesh_multiply.restype = integer
    functions.shardmesh_multiply.argtypes = [address, size, size, address, integer, size, size, address]
    functions.shardmesh_multiply_matrix.restype = integer
    functions.shardmesh_multiply_matrix.argtypes = [address, size, ctypes.POINTER(Matrix), address]
    functions.shardmesh_feed_forward.restype = integer
    functions.shardmesh_feed_forward.argtypes = [address, size, ctypes.POINTER(FfnTile), address]
    functions.shardmesh_attention.restype = integer
    functions.shardmesh_attention.argtypes = [
        address, size, ctypes.POINTER(AttentionTile), ctypes.POINTER(Attention), size, address
    ]  # fmt: skip
    functions.shardmesh_run_block.restype = integer
    functions.shardmesh_run_block.argtypes = [
        address, size, ctypes.POINTER(LayersModel), ctypes.POINTER(LayerBlock), size,
        ctypes.POINTER(SequenceRows), size, address,
    ]  # fmt: skip
    functions.shardmesh_run_layers.restype = size
    functions.shardmesh_run_layers.argtypes = [
        address, size, ctypes.POINTER(LayersModel), ctypes.POINTER(LayerBlock), size, size,
        ctypes.POINTER(SequenceRows), size, ctypes.POINTER(ctypes.c_int64), ctypes.POINTER(integer),
    ]  # fmt: skip
    functions.shardmesh_add.restype = integer
    functions.shardmesh_add.argtypes = [address, size, size, size, address]
    functions.shardmesh_normalize.restype = integer
    functions.shardmesh_normalize.argtypes = [address, address, address, size, size, ctypes.c_float, address]
    for convert in (functions.shardmesh_widen, functions.shardmesh_narrow):
        convert.restype = integer
        convert.argtypes = [address, integer, size, address]
    functions.shardmesh_pack_blocks.restype = integer
    functions.shardmesh_pack_blocks.argtypes = [integer, address, size, size, size, address]
    functions.shardmesh_blocks_not_finite.restype = size
    functions.shardmesh_blocks_not_finite.argtypes = [integer, address, size, size, size]
    for unpack in (functions.shardmesh_unpack, functions.shardmesh_unpack_output):
        unpack.restype = integer
        unpack.argtypes = [integer, address, size, size, address]
    functions.shardmesh_round_rows.restype = integer
    functions.shardmesh_round_rows.argtypes = [address, size, size, address, address]
    functions.shardmesh_unround_rows.restype = integer
    functions.shardmesh_unround_rows.argtypes = [address, address, size, size, address]
    functions.shardmesh_exchange.restype = integer
    functions.shardmesh_exchange.argtypes = [
        ctypes.POINTER(Peer), size, integer, integer, ctypes.POINTER(ctypes.c_int64)
    ]  # fmt: skip
    functions.shardmesh_run_stretch.restype = size
    functions.shardmesh_run_stretch.argtypes = [ctypes.POINTER(Stretch), ctypes.POINTER(integer)]
    functions.shardmesh_tally.restype = integer
    functions.shardmesh_tally.argtypes = [ctypes.POINTER(Tally), address, address, size, size, address]
    functions.shardmesh_answer.restype = integer
    functions.shardmesh_answer.argtypes = [ctypes.POINTER(Peer), address, size, ctypes.c_char_p, size, address, size]
    declare_serving(functions)
    declare_choices(functions)
    functions.shardmesh_sum.restype = ctypes.c_double
    functions.shardmesh_sum.argtypes = [address, size]
