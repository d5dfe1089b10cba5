"""Which encoding has each matrix of a model? They need not be alike: a file of four bits keeps some matrices at six.

Covers: the text that peers exchange, read with distrust. Does not cover: where matrices lie (encoded_format.py), what
encodings are (encodings.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any

from common.errors import InputError
from common.model.model_spec import ModelSpec
from common.weights.encodings import ENCODINGS, grain
from common.weights.slice_format import ITEM_BYTES

AS_THE_FILE = "gguf"
"""What the dtype of a slice is called whose matrices are encoded as their GGUF file has them."""
ENCODED_DTYPES = (AS_THE_FILE, "q8_0", "q4_0")
"""Names of slices whose matrices have encodings of their own."""
WEIGHTS_DTYPES = (*ITEM_BYTES, *ENCODED_DTYPES)
"""What slices may be stored as, by the names of --weights-dtype."""
ALL_ENCODINGS = (*ITEM_BYTES, *ENCODINGS)


@dataclass(frozen=True, kw_only=True)
class LayerEncodings:
    """Of one layer's matrices, by the names that tiles give them."""

    query: str
    key: str
    value: str
    output: str
    gate: str
    up: str
    down: str


MATRICES = tuple(field.name for field in fields(LayerEncodings))


@dataclass(frozen=True, kw_only=True)
class ModelEncodings:
    """Of all matrices."""

    layers: tuple[LayerEncodings, ...]
    embedding: str
    head: str
    """The embedding's where the two are tied."""

    def of(self, matrix: str, layer: int = 0) -> str:
        """Return a matrix's encoding. Args: matrix: one of MATRICES, `embedding` or `head`."""
        encoding: str = getattr(self.layers[layer] if matrix in MATRICES else self, matrix)
        return encoding

    def names(self) -> Iterator[str]:
        """Yield the encoding of every matrix."""
        for layer in self.layers:
            yield from (getattr(layer, name) for name in MATRICES)
        yield self.embedding
        yield self.head

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values that `from_json` reads back: a kind of matrix that is alike in all layers once."""
        columns = {name: [getattr(layer, name) for layer in self.layers] for name in MATRICES}
        layers = {name: every[0] if len(set(every)) == 1 else every for name, every in columns.items()}
        return {"layers": layers, "embedding": self.embedding, "head": self.head}

    @classmethod
    def from_json(cls, value: Any, spec: ModelSpec) -> ModelEncodings:
        """Read what `to_json` wrote, and check that `spec` has such matrices. Raises: InputError: it makes no sense."""
        try:
            columns = {name: _column(value["layers"][name], spec.layer_count) for name in MATRICES}
            layers = tuple(
                LayerEncodings(**{name: columns[name][layer] for name in MATRICES}) for layer in range(spec.layer_count)
            )
            made = cls(layers=layers, embedding=value["embedding"], head=value["head"])
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"the encodings of a model cannot be read: {error}") from error
        made.check(spec)
        return made

    def check(self, spec: ModelSpec) -> None:
        """Raise InputError unless every encoding is known, and every matrix of `spec` is whole blocks of its own."""
        for name in self.names():
            if name not in ALL_ENCODINGS:
                raise InputError(f"the encoding {str(name)[:20]!r} is unknown; use one of {', '.join(ALL_ENCODINGS)}")
        for layer in self.layers:
            for name in MATRICES:
                _check_whole(name, getattr(layer, name), inputs_of(spec, name))
        _check_whole("embedding", self.embedding, spec.hidden_size)
        _check_whole("head", self.head, spec.hidden_size)
        if spec.tied_embeddings and self.head != self.embedding:
            raise InputError(f"a head that is the embedding cannot be {self.head} where that is {self.embedding}")


def inputs_of(spec: ModelSpec, matrix: str) -> int:
    """Return how many inputs a kind of matrix has."""
    if matrix == "output":
        return spec.query_head_count * spec.head_size
    return spec.ffn_size if matrix == "down" else spec.hidden_size


def _column(value: Any, layer_count: int) -> list[str]:
    column = [value] * layer_count if isinstance(value, str) else list(value)
    if len(column) != layer_count or not all(isinstance(one, str) for one in column):
        raise ValueError(f"{len(column)} encodings for {layer_count} layers")
    return column


def _check_whole(matrix: str, encoding: str, inputs: int) -> None:
    if inputs % grain(encoding):
        raise InputError(f"{inputs} inputs of '{matrix}' are not whole blocks of {encoding}")
