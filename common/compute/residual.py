"""What lies between two blocks: the last block's output joins the residual stream, whose rows are normed for the next.

Covers: norms and late biases of all layers, and the one step that uses them; the same bits whoever takes it: the
coordinator between two rounds, or the only node of a plan between two blocks.
Does not cover: reading them from a slice (coordinator/engine/ends.py), the sum over ranks
(coordinator/ranks/reduction.py).
Source of the norm: arXiv:1910.07467.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.nn import functional

from common.compute.row_steps import add_and_normalize, can_add_up


@dataclass(frozen=True, kw_only=True, slots=True)
class LayerVectors:
    """Vectors of one block in every layer, float32, each [hidden_size]."""

    norms: Sequence[torch.Tensor]
    """Of the block's input."""
    late_biases: Sequence[torch.Tensor] | None
    """Of the block's last projection: added once, to the sum over all ranks. None: the model has none."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Residual:
    """The steps between blocks of one model."""

    blocks: dict[str, LayerVectors]
    """By kind of block."""
    norm_epsilon: float

    def block_input(
        self, kind: str, layer: int, hidden: torch.Tensor, addend: torch.Tensor | None,
        into: torch.Tensor | None = None,
    ) -> torch.Tensor:  # fmt: skip
        """Add the last block's output, if there is one, to `hidden` in place; return the normed input of this block.

        Args: into: where to write it, of the same shape; new memory if not given.
        Returns: float32 [row_count, hidden_size], as both arguments.
        """
        return norm_rows(hidden, addend, self.blocks[kind].norms[layer], self.norm_epsilon, into)

    def finish(self, kind: str, layer: int, output: torch.Tensor) -> None:
        """Do once, in place, what a block's sum over all ranks is due: its last projection's bias, if it has one."""
        biases = self.blocks[kind].late_biases
        if biases is not None:
            output += biases[layer]


def norm_rows(
    hidden: torch.Tensor, addend: torch.Tensor | None, weight: torch.Tensor, epsilon: float,
    into: torch.Tensor | None = None,
) -> torch.Tensor:  # fmt: skip
    """Add `addend` to `hidden` in place; return its rows by their root mean square, times `weight`.

    Args: into: where to write them; new memory if not given.
    """
    if can_add_up(hidden):
        return add_and_normalize(hidden, addend, weight, epsilon, into)
    if addend is not None:
        hidden += addend
    normed = functional.rms_norm(hidden, (hidden.shape[1],), weight, epsilon)
    return normed if into is None else into.copy_(normed)
