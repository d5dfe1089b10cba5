"""Which sequences does a round end, and why: those that a rank refuses, those whose numbers are not finite.

Covers: blame, of the node by name. Does not cover: taking their rows out of the sweep (layer_pass.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from common.errors import NodeFault, ShardmeshError
from common.weights.stored_numbers import Floats
from common.wire.rpc import Status, error_from
from common.wording import counted
from coordinator.ranks.sweep import Sweep
from protos.shardmesh.v1 import shard_pb2


def refusals(
    sweep: Sweep, refused: Mapping[int, Sequence[shard_pb2.SequenceRefused]], names: Sequence[str]
) -> dict[int, ShardmeshError]:
    """Return why sequences were refused, by id; the lowest rank's word counts. Args: refused, names: by rank.

    Raises: NodeFault: a node refuses what nobody asked of it.
    """
    found: dict[int, ShardmeshError] = {}
    for rank, sequences in sorted(refused.items()):
        if len(sequences) > len(sweep.sequence_ids):
            raise NodeFault(f"{names[rank]} refuses {counted(len(sequences), 'sequence')} of {len(sweep.sequence_ids)}")
        for one in sequences:
            if one.sequence_id not in sweep.sequence_ids:
                raise NodeFault(f"{names[rank]} refuses sequence {one.sequence_id}, which has no rows in this sweep")
            status = Status(code=one.failure.status, reason=one.failure.reason, message=one.failure.message)
            found.setdefault(one.sequence_id, error_from(status, names[rank]))
    return found


def not_finite(
    sweep: Sweep, total: Floats, ranks: Sequence[int], partials: Sequence[Floats], names: Sequence[str],
    where: str,
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
        raise error
    return found
