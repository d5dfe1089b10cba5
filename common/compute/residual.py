"""What lies between two blocks: the last block's output joins the residual stream, whose rows are normed for the next.

Covers: norms and late biases of all layers, and the one step that uses them; the same bits whoever takes it: the
coordinator between two rounds, or the only node of a plan between two blocks.
Does not cover: reading them from a slice (coordinator/engine/ends.py), the sum over ranks
(coordinator/ranks/reduction.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from common.compute.row_steps import add_and_normalize
from common.weights.stored_numbers import Floats


@dataclass(frozen=True, kw_only=True, slots=True)
class LayerVectors:
    """Vectors of one block in every layer, float32, each [hidden_size]."""

    norms: Sequence[Floats]
    """Of the block's input."""
    late_biases: Sequence[Floats] | None
    """Of the block's last projection: added once, to the sum over all ranks. None: the model has none."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Residual:
    """The steps between blocks of one model."""

    blocks: dict[str, LayerVectors]
    """By kind of block."""
    norm_epsilon: float

    def block_input(
        self, kind: str, layer: int, hidden: Floats, addend: Floats | None, into: Floats | None = None
    ) -> Floats:
        """Add the last block's output, if there is one, to `hidden` in place; return the normed input of this block.

        Args: into: where to write it, of the same shape; new memory if not given.
        Returns: float32 [row_count, hidden_size], as both arguments.
        """
        return norm_rows(hidden, addend, self.blocks[kind].norms[layer], self.norm_epsilon, into)

    def finish(self, kind: str, layer: int, output: Floats) -> None:
        """Do once, in place, what a block's sum over all ranks is due: its last projection's bias, if it has one."""
        biases = self.blocks[kind].late_biases
        if biases is not None:
            output += biases[layer]


def norm_rows(
    hidden: Floats, addend: Floats | None, weight: Floats, epsilon: float, into: Floats | None = None
) -> Floats:
    """Add `addend` to `hidden` in place; return its rows by their root mean square, times `weight`.

    Args: into: where to write them; new memory if not given.
    """
    return add_and_normalize(hidden, addend, weight, epsilon, into)
