"""What do the turns of the big model mean: tables, the bars that the project set itself, the picture's points?

Covers: ratios within each round and their medians; the ideal line between streaming and all in memory.
Does not cover: measuring (big.py), drawing (budget_picture.py).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from statistics import median

from tests.bench.big_inputs import BigModel
from tests.bench.budget_picture import BudgetPicture, Point
from tests.bench.command_runs import CommandRun, memory_groups_note
from tests.bench.contender_table import MESH, RESIDENT, SINGLE, TOKENS, Contender
from tests.bench.contenders import Turn
from tests.bench.first_token import first_token_bar
from tests.bench.raw_disk import RawRead
from tests.bench.report import DISTURBED, QUIET_SHARE, Bar, Result, Spread, Table

MOST_OF_DISK = 1.15
LEAST_OF_DISK = 0.95
"""Nobody reads faster than the disk gives: a ratio below says that the disk was slower while it was read alone. Then
the bar has to hold beside the fastest reading of the whole run too, raw or ours."""
MOST_OF_LINE = 1.15
MOST_NODE_MEGABYTES = 170


@dataclass(kw_only=True)
class BigTurns:
    """Everything that was measured; lists have an entry for each round."""

    ours: dict[str, list[CommandRun]] = field(default_factory=dict)
    raw: dict[str, list[RawRead]] = field(default_factory=dict)
    """The disk around the turn of each contender: the reading before it and the one after it together."""
    transformers: list[Turn] = field(default_factory=list)
    transformers_prompt: list[Turn] = field(default_factory=list)
    offloaded: list[Turn] = field(default_factory=list)
    offloaded_peak: list[int] = field(default_factory=list)
    prompt: dict[int, list[Turn]] = field(default_factory=dict)
    """After the long prompt, everything resident, by the number of nodes."""
    failed: dict[str, str] = field(default_factory=dict)
    """Contenders of ours that ended with an error, and the error."""
    left_out: list[str] = field(default_factory=list)


def big_result(model: BigModel, contenders: Sequence[Contender], turns: BigTurns) -> Result:
    """Return tables, bars, notes and the picture."""
    result = Result(name=f"Larger than memory: random weights of {model.shape.name}'s shape, float16 on disk, greedy")
    result.tables = [_streaming_table(model, turns), _others_table(turns)]
    result.bars = [
        _disk_bar(model, turns, MESH),
        _same_tokens_bar(turns),
        _disk_bar(model, turns, SINGLE),
        Bar(
            name=f"peak memory of the node, {SINGLE},", needed=MOST_NODE_MEGABYTES, at_least=False, unit=" MB",
            measured=_worst(run.memory("peak_rss_bytes", of_nodes_only=True)[0] / 1e6 for run in _runs(turns, SINGLE)),
        ),
        *(_line_bar(model, turns, one.name) for one in contenders if one.fraction is not None),
        *_first_token_bars(turns),
    ]  # fmt: skip
    result.notes = _notes(model, turns)
    result.picture = _picture(model, contenders, turns)
    result.numbers = {"slice_bytes": model.slice_bytes, **asdict(turns)}
    return result


def _runs(turns: BigTurns, name: str) -> list[CommandRun]:
    """Return a contender's runs; none if one of them failed, so that no bar holds by those that did not."""
    return [] if name in turns.failed else turns.ours[name]


def _worst(values: Iterable[float]) -> float:
    return max(values, default=math.inf)


def _middle(values: Sequence[float]) -> float:
    """Return the median; without any value, what no bar allows."""
    return median(values) if values else math.inf


def _disturbed(turns: BigTurns, name: str) -> str:
    """Return why a contender's speed proves nothing, if other programs were busy in most of its turns."""
    shares = [run.others_share for run in _runs(turns, name)]
    return DISTURBED if shares and median(shares) > QUIET_SHARE else ""


def _fraction(model: BigModel, run: CommandRun) -> float:
    """Return how much of the slices is in memory: windows and what stays, of nodes and head."""
    return (sum(run.memory("window_bytes")) + sum(run.memory("resident_bytes"))) / model.slice_bytes


def _disk_ratios(model: BigModel, turns: BigTurns, name: str) -> list[float]:
    """Return, for each round, the time of a token beside the time in which the disk alone gives the slices."""
    return [
        run.seconds_per_token * raw.bytes_per_second / model.slice_bytes
        for run, raw in zip(_runs(turns, name), turns.raw.get(name, []), strict=False)
    ]


def _line_ratios(model: BigModel, turns: BigTurns, name: str) -> list[float]:
    """Return, for each round, the time of a token beside the ideal line's at as much memory for weights."""
    ratios = []
    for run, streamed, resident in zip(_runs(turns, name), turns.ours[MESH], turns.ours[RESIDENT], strict=False):
        share = min(1.0, _fraction(model, run))
        ideal = streamed.seconds_per_token * (1 - share) + resident.seconds_per_token * share
        ratios.append(run.seconds_per_token / ideal)
    return ratios


def _streaming_table(model: BigModel, turns: BigTurns) -> Table:
    rows = []
    for name in turns.ours:
        runs = _runs(turns, name)
        if not runs:
            continue
        rows.append((
            name,
            *Spread.of([run.seconds_per_token for run in runs]).cells(2),
            f"{median(run.document['timings']['ttft_seconds'] for run in runs):.1f}",
            f"{max(run.peak_bytes for run in runs) / 1e6:.0f}",
            f"{100 * median(_fraction(model, run) for run in runs):.0f} %",
            f"{median(raw.bytes_per_second for raw in turns.raw[name]) / 1e9:.2f}",
            f"{median(_disk_ratios(model, turns, name)):.2f}",
            f"{median(_line_ratios(model, turns, name)):.2f}",
        ))  # fmt: skip
    return Table(
        title="Ours: seconds a token, memory of everything, weights in memory, beside the disk and the ideal line",
        header=(
            "contender", "s a token", "least", "most", "first, s", "peak MB", "weights", "disk GB/s", "/ disk", "/ line"
        ),
        rows=rows,
    )  # fmt: skip


def _others_table(turns: BigTurns) -> Table:
    rows = []
    if turns.transformers:
        spread = Spread.of([turn.seconds / len(turn.seconds_per_token) for turn in turns.transformers])
        rss_bytes = max(turn.rss_bytes for turn in turns.transformers)
        rows.append(("transformers, float32 in memory", *spread.cells(2), f"{rss_bytes / 1e6:.0f}"))
    if turns.offloaded:
        spread = Spread.of([turn.seconds / len(turn.seconds_per_token) for turn in turns.offloaded])
        rows.append(("accelerate, from disk in 4 GB", *spread.cells(2), f"{max(turns.offloaded_peak) / 1e6:.0f}"))
    for name, own in _first_tokens(turns).items():
        rows.append((f"first token after 512: {name}", *Spread.of(own).cells(2), ""))
    header = ("others, and the long prompt", "seconds", "least", "most", "MB")
    return Table(title="Transformers with as many threads; the long prompt with everything in memory",
                 header=header, rows=rows)  # fmt: skip


def _first_tokens(turns: BigTurns) -> dict[str, list[float]]:
    own = {f"ours on {size}": [turn.first_seconds for turn in answers] for size, answers in turns.prompt.items()}
    if turns.transformers_prompt:
        own["transformers"] = [turn.first_seconds for turn in turns.transformers_prompt]
    return own


def _disk_bar(model: BigModel, turns: BigTurns, name: str) -> Bar:
    ratio = _middle(_disk_ratios(model, turns, name))
    label, undecided = f"seconds a token beside the disk alone, {name},", _disturbed(turns, name)
    if ratio < LEAST_OF_DISK:
        seconds = _middle([run.seconds_per_token for run in _runs(turns, name)])
        strict = seconds * _fastest_reading(model, turns) / model.slice_bytes
        label += f" which is {strict:.2f} beside the fastest reading of the run,"
        if strict > MOST_OF_DISK:
            undecided = undecided or "the disk was slower while it was read alone: somebody else used it"
    return Bar(name=label, measured=ratio, needed=MOST_OF_DISK, at_least=False, undecided=undecided)


def _fastest_reading(model: BigModel, turns: BigTurns) -> float:
    """Return the most bytes a second that anybody got from the disk: raw readings, and our own runs that stream."""
    raw = [read.bytes_per_second for own in turns.raw.values() for read in own]
    ours = [
        (1 - _fraction(model, run)) * model.slice_bytes / run.seconds_per_token
        for name in (MESH, SINGLE) for run in _runs(turns, name)
    ]  # fmt: skip
    return max(raw + ours)


def _line_bar(model: BigModel, turns: BigTurns, name: str) -> Bar:
    fraction = _middle([_fraction(model, run) for run in _runs(turns, name)])
    return Bar(
        name=f"seconds a token beside the ideal line at {fraction:.0%} of the weights, {name},", needed=MOST_OF_LINE,
        at_least=False, measured=_middle(_line_ratios(model, turns, name)), undecided=_disturbed(turns, name),
    )  # fmt: skip


def _same_tokens_bar(turns: BigTurns) -> Bar:
    """Count the rounds' worst: tokens up to the first that differs."""
    counts = []
    for small, large in zip(turns.ours[MESH], turns.ours[RESIDENT], strict=True):
        equal = [one == other for one, other in zip(small.token_ids, large.token_ids, strict=True)]
        counts.append([*equal, False].index(False))
    return Bar(name=f"tokens of {MESH} that are those of {RESIDENT}", measured=min(counts), needed=TOKENS)


def _first_token_bars(turns: BigTurns) -> list[Bar]:
    bars = []
    for size, own in turns.prompt.items():
        count = min(len(own), len(turns.transformers_prompt))
        if count:
            title = f"first token after 512, {size} node(s) beside transformers"
            bars.append(first_token_bar(title, own[:count], turns.transformers_prompt[:count]))
    return bars


def _notes(model: BigModel, turns: BigTurns) -> list[str]:
    shares = [run.others_share for runs in turns.ours.values() for run in runs]
    notes = [
        f"{model.slice_bytes / 1e9:.2f} GB are read for a token when nothing stays; {memory_groups_note()}",
        f"other programs took {median(shares):.0%} of the cores' time; whether they used the disk is not known",
        "the ideal line goes from the streaming mesh's time of that round to that of the mesh with all in memory",
        *(f"left out: {what}" for what in turns.left_out),
        *(f"failed: {name}: {error.strip().splitlines()[-1]}" for name, error in turns.failed.items()),
    ]
    if not all(raw.is_direct for reads in turns.raw.values() for raw in reads):
        notes.append("the disk takes no direct reads: its speed was measured through the page cache, emptied before")
    gaps = [turn.smallest_gap for turn in [*turns.transformers, *turns.offloaded]]
    if gaps:
        notes.append(f"everybody says the same tokens; the closest two logits are {min(gaps):.4f} apart")
    return notes


def _picture(model: BigModel, contenders: Sequence[Contender], turns: BigTurns) -> BudgetPicture:
    def point(name: str) -> Point:
        runs = turns.ours[name]
        return Point(
            name=name, gigabytes=median(run.peak_bytes for run in runs) / 1e9,
            seconds=median(run.seconds_per_token for run in runs),
        )  # fmt: skip

    others = []
    if turns.transformers:
        others.append(Point(
            name="transformers, float32", gigabytes=max(turn.rss_bytes for turn in turns.transformers) / 1e9,
            seconds=median(turn.seconds / len(turn.seconds_per_token) for turn in turns.transformers),
        ))  # fmt: skip
    if turns.offloaded:
        others.append(Point(
            name="accelerate, from disk", gigabytes=max(turns.offloaded_peak) / 1e9,
            seconds=median(turn.seconds / len(turn.seconds_per_token) for turn in turns.offloaded),
        ))  # fmt: skip
    return BudgetPicture(
        title=f"{model.shape.name}'s shape, float16, 4 nodes on one machine",
        series=[point(MESH), *(point(one.name) for one in contenders if one.fraction and _runs(turns, one.name))],
        resident=point(RESIDENT), others=[*(point(name) for name in [SINGLE] if _runs(turns, name)), *others],
    )  # fmt: skip
