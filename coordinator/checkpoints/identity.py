"""What a checkpoint is as a whole: its identity, its dtype, and whether its head is really tied.

Covers: what every format's reader settles once its tensors are checked.
Does not cover: finding and reading tensors (the readers).
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Mapping

import numpy as np

from common.model.model_spec import ModelSpec, canonical_json
from common.weights.stored_numbers import Stored, widened
from coordinator.checkpoints.source_tensor import SourceTensor
from coordinator.checkpoints.tensor_names import EMBEDDING, HEAD, MATRIX

ReadRows = Callable[[str, int, int], Stored]

_SAMPLE_BYTES = 4096
_COMPARED_BYTES = 1 << 20


def settled_spec(spec: ModelSpec, tensors: Mapping[str, SourceTensor], read_rows: ReadRows) -> ModelSpec:
    """Return `spec` with tied_embeddings as it is in truth.

    A configuration may say that the head is the embedding although the file holds another head; the file is right,
    as in transformers. (`.bin` files hold a tied matrix under both names.)
    """
    if not spec.tied_embeddings or HEAD not in tensors:
        return spec
    step = max(1, _COMPARED_BYTES // max(1, tensors[HEAD].row_bytes))
    for start in range(0, spec.vocab_size, step):
        stop = min(start + step, spec.vocab_size)
        if not np.array_equal(widened(read_rows(HEAD, start, stop)), widened(read_rows(EMBEDDING, start, stop))):
            return dataclasses.replace(spec, tied_embeddings=False)
    return spec


def matrix_dtype(tensors: Mapping[str, SourceTensor]) -> str:
    """Return the dtype that all matrices share, or float32, which holds every mixture exactly."""
    dtypes = {tensor.dtype for name, tensor in tensors.items() if MATRIX.fullmatch(name)}
    return dtypes.pop() if len(dtypes) == 1 else "float32"


def model_identity(spec: ModelSpec, tensors: Mapping[str, SourceTensor], read_rows: ReadRows) -> str:
    """Return a SHA-256, in hex, of the configuration, every tensor's header, and some bytes from its middle.

    The bytes tell a fine-tuned model from its base: all headers of the two are equal. The directory does not count,
    nor the name of a file that stands alone.
    """
    digest = hashlib.sha256(canonical_json(spec.to_json()).encode())
    alone = len({tensor.path for tensor in tensors.values()}) == 1
    for name, tensor in sorted(tensors.items()):
        file = "" if alone else tensor.path.name
        header = [name, tensor.stored_name, tensor.encoding, tensor.shape, file, tensor.offset_bytes, tensor.size_bytes]
        digest.update(canonical_json(header).encode())
        digest.update(_sample(tensor, read_rows))
    return digest.hexdigest()


def _sample(tensor: SourceTensor, read_rows: ReadRows) -> bytes:
    """Return up to _SAMPLE_BYTES of the tensor's middle rows."""
    row_bytes = max(1, tensor.row_bytes)
    row_count = min(tensor.shape[0], max(1, _SAMPLE_BYTES // row_bytes))
    start = (tensor.shape[0] - row_count) // 2
    return read_rows(tensor.name, start, start + row_count).tobytes()[:_SAMPLE_BYTES]
