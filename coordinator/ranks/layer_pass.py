"""One sweep through all layers, in two forms: round by round over several ranks, whole layers on one.

    hidden -> [ norm -> attention round -> finish -> norm -> FFN round -> finish ] x layers -> hidden

Covers: what lies between rounds; sequences that a rank refuses or spoils leave, and the others go on.
Does not cover: a round (ranks.py), norms and late biases (common/compute/residual.py).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from common.compute.residual import Residual
from common.errors import ShardmeshError
from common.weights.slice_format import BLOCK_KINDS
from common.weights.stored_numbers import Floats
from coordinator.ranks.ranks import Ranks
from coordinator.ranks.round_record import block_at
from coordinator.ranks.sweep import Sweep


@dataclass(frozen=True, kw_only=True, slots=True)
class Passed:
    """What is left of a sweep after the last layer."""

    sweep: Sweep
    """Without the sequences that have left."""
    hidden: Floats
    """The residual stream of its rows, float32 [row_count, hidden_size]."""
    spoiled: dict[int, ShardmeshError] = field(default_factory=dict)
    """By id: why sequences have left."""


class LayerPass(Protocol):
    """All layers, whoever computes them."""

    def run(self, sweep: Sweep, hidden: Floats) -> Passed:
        """Run a sweep. Args: hidden: embedding rows, float32 [row_count, hidden_size]; not kept as they are.

        Raises: NodeError and what nodes report; the ranks are of no more use then.
        """


def layer_pass(ranks: Ranks, residual: Residual) -> LayerPass:
    """Return the form that fits. Raises: NodeError: the only node is gone."""
    if ranks.is_one_node:
        ranks.load_norms(residual)
        return WholeLayers(ranks)
    return RoundByRound(ranks, residual)


class RoundByRound:
    """Several ranks, whose parts are added up here, between two blocks."""

    def __init__(self, ranks: Ranks, residual: Residual) -> None:
        self._ranks, self._residual = ranks, residual
        self._block_count = ranks.identity.spec.layer_count * len(BLOCK_KINDS)

    def run(self, sweep: Sweep, hidden: Floats) -> Passed:
        """See LayerPass."""
        residual, ranks, spoiled = self._residual, self._ranks, dict[int, ShardmeshError]()
        output: Floats | None = None
        next_block = 0
        while next_block < self._block_count:
            next_block, output, asked = ranks.run_blocks(residual, next_block, sweep, hidden, output)
            if next_block == self._block_count:
                break
            layer, kind = block_at(next_block)
            if asked is None:
                rows = residual.block_input(kind, layer, hidden, output, ranks.input_place(hidden.shape))
                summed = ranks.run_block(kind, layer, sweep, rows)
            else:
                summed = ranks.run_block(kind, layer, sweep, asked.rows, asked)
            output = summed.output
            if summed.spoiled:
                spoiled.update(summed.spoiled)
                kept = sweep.rows_of(summed.spoiled, others=True)
                sweep, hidden, output = sweep.without(summed.spoiled), hidden[kept], output[kept]
                if not sweep.segments:
                    break
            residual.finish(kind, layer, output)
            next_block += 1
        ranks.pass_on()
        return Passed(sweep=sweep, hidden=hidden if output is None else hidden + output, spoiled=spoiled)


class WholeLayers:
    """One node has nobody to add up with: it takes the steps between blocks too, and messages are saved."""

    def __init__(self, ranks: Ranks) -> None:
        self._ranks = ranks
        self._layer_count = ranks.identity.spec.layer_count

    def run(self, sweep: Sweep, hidden: Floats) -> Passed:
        """See LayerPass."""
        spoiled, next_layer = dict[int, ShardmeshError](), 0
        while next_layer < self._layer_count and sweep.segments:
            summed = self._ranks.run_layers(next_layer, sweep, hidden)
            hidden, next_layer = summed.output, summed.next_layer
            if summed.spoiled:
                spoiled.update(summed.spoiled)
                kept = sweep.rows_of(summed.spoiled, others=True)
                sweep, hidden = sweep.without(summed.spoiled), hidden[kept]
        self._ranks.pass_on()
        return Passed(sweep=sweep, hidden=hidden, spoiled=spoiled)
