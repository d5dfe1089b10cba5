"""Which matrix of which layer is a tensor, by the names that encodings and tiles have for them?"""

from __future__ import annotations

import re

from coordinator.checkpoints.tensor_names import EMBEDDING, HEAD

PROJECTIONS = {
    "query": "self_attn.q_proj", "key": "self_attn.k_proj", "value": "self_attn.v_proj", "output": "self_attn.o_proj",
    "gate": "mlp.gate_proj", "up": "mlp.up_proj", "down": "mlp.down_proj",
}  # fmt: skip
_MATRICES = {tensor: matrix for matrix, tensor in PROJECTIONS.items()}
_OF_LAYER = re.compile(r"model\.layers\.(\d+)\.([a-z_.]+)\.weight")


def matrix_of(name: str) -> tuple[str, int]:
    """Return the matrix that a tensor is, and its layer; 0 of those that have none. Raises: KeyError: it is none."""
    if name in (EMBEDDING, HEAD):
        return ("embedding" if name == EMBEDDING else "head"), 0
    match = _OF_LAYER.fullmatch(name)
    if match is None:
        raise KeyError(name)
    return _MATRICES[match[2]], int(match[1])


def tensor_of(matrix: str, layer: int) -> str:
    """Return the tensor's name of a layer's matrix."""
    return f"model.layers.{layer}.{PROJECTIONS[matrix]}.weight"
