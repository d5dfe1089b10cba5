"""How is a model dealt out so that every rank has as many bytes as its ratio says, whatever its encodings?

Covers: what heads and columns weigh, cuts between blocks where those are even enough, else through them.
Does not cover: dealing (common/model/plan.py), where matrices lie (encoded_format.py), measured devices
(coordinator/planning).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from common.model.plan import Plan, RankShare, Weighing, make_plan, parse_ratios
from common.weights.encoded_format import bytes_per_value, column_grains
from common.weights.slice_description import SliceDescription
from common.weights.slice_format import ATTENTION, FFN

MOST_UNEVEN = 1.03
"""Bytes of the fullest rank, of the mean (by ratios), that cuts between blocks may give: above it they go through
blocks, which are copied to both sides."""
STEPS = 8
"""Of balancing cuts through blocks: what a cut copies is known once it is made."""


def balanced_plan(description: SliceDescription, strategy: str, world_size: int) -> Plan:
    """Deal a model out over `world_size` ranks. Args: description: of any of its slices; the plan does not matter.

    Raises: InputError: the strategy is unknown or does not fit the world size.
    """
    spec, encodings = description.spec, description.encodings
    if encodings is None:
        return make_plan(spec, strategy, world_size)
    ratios = parse_ratios(strategy, world_size)
    whole, *finer = column_grains(encodings)
    plan = make_plan(spec, strategy, world_size, _weighing(description, whole))
    best, best_uneven = plan, _uneven(description, plan, ratios)
    for column_grain in finer if best_uneven > MOST_UNEVEN else ():
        weighing = _weighing(description, column_grain)
        for _ in range(STEPS):
            plan = make_plan(spec, strategy, world_size, weighing)
            uneven = _uneven(description, plan, ratios)
            if uneven < best_uneven:
                best, best_uneven = plan, uneven
            weighing = _weighed_anew(description, plan, weighing)
    return best


def _weighing(description: SliceDescription, column_grain: int) -> Weighing:
    spec, encodings = description.spec, description.encodings
    assert encodings is not None
    values = [
        bytes_per_value(own.gate) + bytes_per_value(own.up) + bytes_per_value(own.down) for own in encodings.layers
    ]

    def attention_bytes(share: RankShare) -> float:
        """Return what lies on a rank for these heads, blocks at its edges whole."""
        whole = Plan(strategy="", shares=(share,))
        return _bytes_of(replace(description, plan=whole, rank=0), (ATTENTION,))

    return Weighing(
        attention_bytes=attention_bytes, column_bytes=spec.hidden_size * sum(values), column_grain=column_grain
    )  # fmt: skip


def _weighed_anew(description: SliceDescription, plan: Plan, weighing: Weighing) -> Weighing:
    """Return a weighing that counts what a plan's ranks hold beside their columns as what their heads need."""
    beside = {
        (share.query_head_start, share.query_head_stop): _bytes_of(replace(description, plan=plan, rank=rank))
        - weighing.column_bytes * share.ffn_column_count
        for rank, share in enumerate(plan.shares)
    }
    return replace(
        weighing, attention_bytes=lambda share: beside[share.query_head_start, share.query_head_stop]
    )  # fmt: skip


def _uneven(description: SliceDescription, plan: Plan, ratios: list[float]) -> float:
    """Return the bytes of the rank that has most, of what each would have if all were as full, by ratios."""
    held = [_bytes_of(replace(description, plan=plan, rank=rank)) for rank in range(plan.world_size)]
    return max(own / ratio for own, ratio in zip(held, ratios, strict=True)) * sum(ratios) / sum(held)


def _bytes_of(description: SliceDescription, kinds: Sequence[str] = (ATTENTION, FFN)) -> float:
    layouts = description.block_layouts()
    return sum(tile.byte_count for kind in kinds for layout in layouts[kind] for tile in layout.tiles)
