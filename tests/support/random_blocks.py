"""Models of random blocks of any encoding of GGUF: every bit random, but for scales that give values like a model's.

    blocks = random_blocks("Q4_K", 64, 512, generator)       # uint8 [64, bytes of a row]

Covers: what the `gguf` package reads and cannot make.
Does not cover: single matrices (encoded_weights.py), files of them (gguf_models.py).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import gguf
import numpy as np
import numpy.typing as npt

from tests.support.encoded_weights import SCALE_PLACES
from tests.support.model_tensors import RandomModel

Bytes = npt.NDArray[np.uint8]
EncodedRows = tuple[str, Bytes]
"""The name of an encoding, and blocks as random_blocks makes them."""

ENCODINGS = tuple(name.upper() for name in SCALE_PLACES)
"""Those that slices keep, as GGUF spells them."""
_SCALED_LEAST = ("Q2_K", "Q4_K", "Q5_K")
"""Blocks that take a multiple of their second number away; of others it is added."""
_LEAST = {"Q4_1": -7.5, "Q5_1": -15.5, **dict.fromkeys(_SCALED_LEAST, 1.0)}
"""The second number, in scales."""


def random_blocks(
    encoding: str, row_count: int, column_count: int, generator: np.random.Generator, deviation: float = 0.1
) -> Bytes:
    """Return rows of blocks. Args: deviation: of the values, about; the same generator gives the same bytes."""
    kind = gguf.GGMLQuantizationType[encoding]
    block_values, block_bytes = gguf.GGML_QUANT_SIZES[kind]
    count = row_count * column_count // block_values
    blocks: Bytes = generator.integers(0, 256, (count, block_bytes), np.uint8)
    _put_scales(blocks, encoding, np.ones(count), np.full(count, _LEAST.get(encoding, 0.0)))
    values = gguf.dequantize(blocks, kind)
    least = _LEAST.get(encoding, 0.0)
    if encoding in _SCALED_LEAST:  # so that values have a mean of nothing: a model's do
        _put_scales(blocks, encoding, np.ones(count), np.zeros(count))
        without = gguf.dequantize(blocks, kind)
        least = without.mean() / max(1e-9, (without - values).mean()) * _LEAST[encoding]
        _put_scales(blocks, encoding, np.ones(count), np.full(count, least))
        values = gguf.dequantize(blocks, kind)
    scales = deviation / values.std() * generator.uniform(0.5, 1.5, count)
    _put_scales(blocks, encoding, scales, scales * least)
    return blocks.reshape(row_count, -1)


def encoded(
    model: RandomModel, encodings: Callable[[str], str], *, seed: int = 0
) -> tuple[RandomModel, dict[str, EncodedRows]]:
    """Return a model whose matrices are the values of random blocks, and these, by name.

    Args: encodings: of a matrix, by the tensor's name: one of ENCODINGS, or a plain one of GGUF.
    """
    generator = np.random.default_rng(seed)
    tensors, blocks = dict(model.tensors), {}
    for name, tensor in model.tensors.items():
        if tensor.ndim > 1:
            encoding = encodings(name)
            deviation = 1.5 / math.sqrt(tensor.shape[1])
            if encoding in ENCODINGS:
                rows = random_blocks(encoding, tensor.shape[0], tensor.shape[1], generator, deviation=deviation)
            else:
                values = generator.normal(0, deviation, tensor.shape).astype(np.float32)
                rows = gguf.quantize(values, gguf.GGMLQuantizationType[encoding])
            blocks[name] = encoding, rows
            tensors[name] = gguf.dequantize(rows, gguf.GGMLQuantizationType[encoding]).astype(np.float32)
    return replace(model, tensors=tensors), blocks


def _put_scales(
    blocks: Bytes, encoding: str, scales: npt.NDArray[np.float64], least: npt.NDArray[np.float64]
) -> None:  # fmt: skip
    for at, values in zip(SCALE_PLACES[encoding.lower()], (scales, least), strict=False):
        blocks[:, at : at + 2] = values.astype(np.float16).view(np.uint8).reshape(-1, 2)
