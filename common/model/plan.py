"""Who holds what: query heads, KV heads and FFN columns of each rank. Pure arithmetic.

Covers: the split strategies `uniform` and `ratio:a,b,...`, for any number of nodes.
Does not cover: bytes on disk (weights/slice_format.py), measuring devices.

Query heads are dealt out one by one and every rank's heads are neighbours; a KV head is copied to
every rank that has one of its query heads; a rank may hold no head at all. FFN columns are dealt at
fine grain so that they even out what whole heads cannot.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from common.errors import InputError
from common.model.model_spec import ModelSpec, canonical_json
from common.wording import counted

MAX_WORLD_SIZE = 1024
MAX_RATIO = 1e30
"""Beyond, sums need not be finite. Bytes and rates of devices are ratios too."""
COLUMN_GRAIN = 8
"""FFN columns are dealt in groups of this many: 32 bytes of float32, a kernel's vector."""


@dataclass(frozen=True, kw_only=True)
class RankShare:
    """What one rank holds of every layer: half-open ranges."""

    query_head_start: int
    query_head_stop: int
    ffn_column_start: int
    ffn_column_stop: int

    @property
    def query_head_count(self) -> int:
        return self.query_head_stop - self.query_head_start

    @property
    def ffn_column_count(self) -> int:
        return self.ffn_column_stop - self.ffn_column_start

    def kv_heads(self, spec: ModelSpec) -> range:
        """Return the KV heads that this rank's query heads read, in order."""
        if not self.query_head_count:
            return range(0)
        return range(self.query_head_start // spec.group_size, (self.query_head_stop - 1) // spec.group_size + 1)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """One share per rank; together they cover every query head and FFN column exactly once."""

    strategy: str
    shares: tuple[RankShare, ...]

    @property
    def world_size(self) -> int:
        return len(self.shares)

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values that `from_json` reads back to an equal plan."""
        return {
            "strategy": self.strategy,
            "query_heads": [[s.query_head_start, s.query_head_stop] for s in self.shares],
            "ffn_columns": [[s.ffn_column_start, s.ffn_column_stop] for s in self.shares],
        }

    @classmethod
    def from_json(cls, value: Any, spec: ModelSpec) -> Plan:
        """Read what `to_json` wrote and check that it covers `spec`.

        Raises: InputError: not a plan, or not one for this model.
        """
        try:
            shares = tuple(
                RankShare(
                    query_head_start=int(heads[0]), query_head_stop=int(heads[1]),
                    ffn_column_start=int(columns[0]), ffn_column_stop=int(columns[1]),
                )
                for heads, columns in zip(value["query_heads"], value["ffn_columns"], strict=True)
            )  # fmt: skip
            plan = cls(strategy=str(value["strategy"]), shares=shares)
        except (TypeError, KeyError, ValueError, IndexError) as error:
            raise InputError(f"the plan cannot be read: {error}") from error
        plan.check_covers(spec)
        return plan

    def check_covers(self, spec: ModelSpec) -> None:
        """Raise InputError unless the shares tile all query heads and FFN columns in rank order."""
        if not 1 <= self.world_size <= MAX_WORLD_SIZE:
            raise InputError(f"a plan for {counted(self.world_size, 'node')}; from 1 to {MAX_WORLD_SIZE} are possible")
        head = column = 0
        for share in self.shares:
            if share.query_head_start != head or share.ffn_column_start != column:
                raise InputError("the plan leaves out or repeats a head or an FFN column")
            if share.query_head_count < 0 or share.ffn_column_count < 0:
                raise InputError("the plan has a share of negative size")
            head, column = share.query_head_stop, share.ffn_column_stop
        if head != spec.query_head_count or column != spec.ffn_size:
            raise InputError(f"the plan covers {head} heads and {column} FFN columns, not this model's "
                             f"{spec.query_head_count} and {spec.ffn_size}")  # fmt: skip

    @property
    def digest(self) -> str:
        """SHA-256, in hex, of who holds what; the strategy's name does not matter to it."""
        body = self.to_json()
        del body["strategy"]
        return hashlib.sha256(canonical_json(body).encode()).hexdigest()


def parse_ratios(strategy: str, world_size: int) -> list[float]:
    """Return one positive number per rank for a `--split-strategy` text.

    Raises: InputError: unknown strategy, wrong count, or a number that is not positive and finite.
    """
    if not 1 <= world_size <= MAX_WORLD_SIZE:
        raise InputError(f"--world-size is {world_size}; it must be from 1 to {MAX_WORLD_SIZE}")
    if strategy == "uniform":
        return [1.0] * world_size
    name, separator, numbers = strategy.partition(":")
    if name != "ratio" or not separator:
        raise InputError(f"unknown --split-strategy '{strategy}'; use 'uniform' or 'ratio:3,1,1', and on a mesh "
                         "'memory' or 'measured'")  # fmt: skip
    try:
        ratios = [float(text) for text in numbers.split(",")]
    except ValueError:
        raise InputError(f"--split-strategy '{strategy}' has something that is not a number") from None
    if len(ratios) != world_size:
        raise InputError(f"--split-strategy '{strategy}' names {counted(len(ratios), 'ratio')} for "
                         f"{counted(world_size, 'node')}")  # fmt: skip
    if not all(1 / MAX_RATIO <= ratio <= MAX_RATIO for ratio in ratios):
        raise InputError(f"--split-strategy '{strategy}': every ratio must be a number above 0, up to {MAX_RATIO:.0e}")
    return ratios


@dataclass(frozen=True, kw_only=True)
class Weighing:
    """What columns are dealt by: the bytes of what a rank's heads need, and those of one column."""

    attention_bytes: Callable[[RankShare], float]
    column_bytes: float
    column_grain: int = COLUMN_GRAIN


def alike(spec: ModelSpec) -> Weighing:
    """Return the weighing of a model whose matrices are all of one dtype, in rows of hidden_size values."""

    def attention_rows(share: RankShare) -> float:
        # q and o have one row or column set per query head, k and v one per KV head.
        return 2 * spec.head_size * (share.query_head_count + len(share.kv_heads(spec)))

    return Weighing(attention_bytes=attention_rows, column_bytes=3)  # gate, up, down


def make_plan(spec: ModelSpec, strategy: str, world_size: int, weighing: Weighing | None = None) -> Plan:
    """Deal the model out over `world_size` ranks. Args: weighing: of matrices that are not alike.

    Raises: InputError: the strategy is unknown or does not fit the world size.
    """
    ratios, weighing = parse_ratios(strategy, world_size), weighing or alike(spec)
    heads = _deal(spec.query_head_count, ratios)
    head_ends = _running_sum(heads)
    attention_bytes = [
        weighing.attention_bytes(
            RankShare(query_head_start=start, query_head_stop=stop, ffn_column_start=0, ffn_column_stop=0)
        )
        for start, stop in zip([0, *head_ends], head_ends, strict=False)
    ]
    column_ends = _running_sum(_deal_columns(spec, ratios, attention_bytes, weighing))
    shares = tuple(
        RankShare(
            query_head_start=head_stop - head_count, query_head_stop=head_stop,
            ffn_column_start=column_start, ffn_column_stop=column_stop,
        )
        for head_count, head_stop, column_start, column_stop in zip(
            heads, head_ends, [0, *column_ends], column_ends, strict=False
        )
    )  # fmt: skip
    plan = Plan(strategy=strategy, shares=shares)
    plan.check_covers(spec)
    return plan


def _deal(total: int, weights: Sequence[float]) -> list[int]:
    """Split `total` whole things in proportion to `weights` (largest remainder, lower rank first)."""
    weight_sum = sum(weights)
    exact = [total * weight / weight_sum for weight in weights]
    counts = [int(value) for value in exact]
    by_remainder = sorted(range(len(weights)), key=lambda i: (counts[i] - exact[i], i))
    for i in by_remainder[: total - sum(counts)]:
        counts[i] += 1
    return counts


def _deal_columns(
    spec: ModelSpec, ratios: Sequence[float], attention_bytes: Sequence[float], weighing: Weighing
) -> list[int]:
    """Deal FFN columns so that attention and FFN together come as near to the ratios as they can.

    A rank whose heads alone exceed its share gets no column, and the others divide what is left.
    """
    sharing = set(range(len(ratios)))
    while True:
        total = weighing.column_bytes * spec.ffn_size + sum(attention_bytes[i] for i in sharing)
        ratio_sum = sum(ratios[i] for i in sharing)
        wanted = {i: total * ratios[i] / ratio_sum - attention_bytes[i] for i in sharing}
        overfull = {i for i, value in wanted.items() if value <= 0}
        if not overfull or overfull == sharing:
            break
        sharing -= overfull
    weights = [max(wanted.get(i, 0.0), 0.0) for i in range(len(ratios))]
    if not any(weights):
        weights = list(ratios)
    grains, rest = divmod(spec.ffn_size, weighing.column_grain)
    columns = [weighing.column_grain * count for count in _deal(grains, weights)]
    columns[max(range(len(columns)), key=lambda i: (weights[i], -i))] += rest
    return columns


def _running_sum(counts: Sequence[int]) -> list[int]:
    total = 0
    sums = []
    for count in counts:
        total += count
        sums.append(total)
    return sums
