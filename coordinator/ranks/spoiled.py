"""Which sequences does a round end, and why: those that a rank refuses, those whose numbers are not finite.

Covers: blame, of the node by name. Does not cover: taking their rows out of the sweep (layer_pass.py).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from common.errors import NodeFault, ShardmeshError
from common.weights.stored_numbers import Floats
from common.wire.rpc import Status, error_from
from common.wording import counted
from coordinator.ranks.sweep import Sweep
from protos.shardmesh.v1 import shard_pb2

Blame = Callable[[int | None, ShardmeshError], object]
"""Called with every error that is found, and the rank that is to blame for it, if one is."""


def _nobody(rank: int | None, error: ShardmeshError) -> None:
    """Blame nobody."""


def refusals(
    sweep: Sweep, refused: Mapping[int, Sequence[shard_pb2.SequenceRefused]], names: Sequence[str],
    blame: Blame = _nobody,
) -> dict[int, ShardmeshError]:  # fmt: skip
    """Return why sequences were refused, by id; the lowest rank's word counts. Args: refused, names: by rank.

    Raises: NodeFault: a node refuses what nobody asked of it.
    """
    found: dict[int, ShardmeshError] = {}
    for rank, sequences in sorted(refused.items()):
        if len(sequences) > len(sweep.sequence_ids):
            fault = f"refuses {counted(len(sequences), 'sequence')} of {len(sweep.sequence_ids)}"
            raise _blamed(blame, rank, NodeFault(f"{names[rank]} {fault}"))
        for one in sequences:
            if one.sequence_id not in sweep.sequence_ids:
                fault = f"refuses sequence {one.sequence_id}, which has no rows in this sweep"
                raise _blamed(blame, rank, NodeFault(f"{names[rank]} {fault}"))
            status = Status(code=one.failure.status, reason=one.failure.reason, message=one.failure.message)
            if one.sequence_id not in found:
                found[one.sequence_id] = _blamed(blame, rank, error_from(status, names[rank]))
    return found


def _blamed(blame: Blame, rank: int | None, error: ShardmeshError) -> ShardmeshError:
    blame(rank, error)
    return error


def not_finite(
    sweep: Sweep, total: Floats, ranks: Sequence[int], partials: Sequence[Floats], names: Sequence[str],
    where: str, blame: Blame = _nobody,
) -> dict[int, ShardmeshError]:  # fmt: skip
    """Return the sequences whose sum is not finite; none where all is well after all.

    Args: total: the sum of `partials`, which are of `ranks`, all float32 [row_count, hidden_size]; names: by rank;
    where: which block.
    Raises: NodeFault: all of several sequences, which no prompt alone can be the cause of.
    """
    is_finite = np.logical_and.reduce(np.isfinite(total), axis=1)
    if bool(is_finite.all()):
        return {}
    blamed = next((rank for rank, part in zip(ranks, partials, strict=True) if not np.isfinite(part).all()), None)
    if blamed is None:
        error = NodeFault(f"{where} adds up to numbers that are not finite")
    else:
        error = NodeFault(f"{names[blamed]} computed numbers that are not finite in {where}; its weights or its memory "
                          "are damaged, or this prompt is more than the model can compute")  # fmt: skip
    found: dict[int, ShardmeshError] = {
        sequence_id: error for sequence_id in sweep.sequence_ids if not is_finite[sweep.rows_of([sequence_id])].all()
    }
    if len(found) == len(sweep.sequence_ids) > 1:
        raise _blamed(blame, blamed, error)
    for _ in found:
        blame(blamed, error)
    return found
