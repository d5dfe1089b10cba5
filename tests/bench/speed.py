"""How fast is the mesh beside transformers, and where does a token's time go?

Covers: taking turns (A B C D A B C D ...), so that what else the machine does falls on all alike; medians of the
ratios of each round; bars judged by quiet rounds only; that all of them say the same tokens.
Does not cover: one turn (contenders.py, memory_sum.py), the floor's own transports (star_floor.py).
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict

from common.machine.operating_system import usable_core_count
from tests.bench.contenders import Turn, open_mesh, open_transformers
from tests.bench.inputs import MODEL_DIRECTORY, prompt_ids, sliced, transformers_directory
from tests.bench.memory_sum import decode_bytes, open_sum
from tests.bench.report import DISTURBED, QUIET_SHARE, Bar, BenchBroken, Result, Settings, Spread, Table
from tests.bench.star import open_star
from tests.bench.star_routes import DIRECT
from tests.bench.workers import Worker

TRANSFORMERS = "A transformers, 1 process"
MESH = "B mesh of 4, window 0"
WINDOWED = "C mesh of 4, window 2"
ONE_NODE = "D mesh of 1, window 0"
TWO_NODES = "E mesh of 2, window 0"
FLOOR = "F mesh of 4, no kernels"
FLOOR_OF_TWO = "H mesh of 2, no kernels"
ONE_WINDOWED = "G mesh of 1, window 2"
SUM = "S sum of as much memory"
WARM_UP_LENGTH = 4
STARS_ALLOWED = 1.5
"""How many times a star's rounds several nodes of one machine may add to one node's token."""
ROLES = ("here", "nodes", "others")
"""Who used the processors: the contender's own process, its node processes, everything else on this machine."""

Turns = dict[str, list[Turn]]


def measure(settings: Settings) -> Result:
    """Run all contenders in turns. Raises: BenchBroken: one fails, or says other tokens."""
    with ExitStack() as closing:
        workers = _start_workers(settings, closing)
        for name, worker in workers.items():
            worker.wait_until_ready()
            worker.ask(*_request(name, WARM_UP_LENGTH))
        turns: Turns = {name: [] for name in workers}
        for number in range(settings.rounds):
            print(f"speed: round {number + 1} of {settings.rounds}", flush=True)
            for name, worker in workers.items():
                turns[name].append(worker.ask(*_request(name, settings.length)))
    others = {name: turns.pop(name) for name in (FLOOR, FLOOR_OF_TWO, SUM) if name in turns}
    _check_tokens(turns)
    return _result(turns, others)


def _start_workers(settings: Settings, closing: ExitStack) -> dict[str, Worker]:
    prompt, cores = prompt_ids(), usable_core_count()
    # Those that are compared take their turns one after the other: what memory gives changes within seconds.
    meshes = {MESH: (4, 0), WINDOWED: (4, 2)}
    if not settings.is_quick:
        meshes |= {TWO_NODES: (2, 0), ONE_WINDOWED: (1, 2)}
    meshes[ONE_NODE] = (1, 0)
    splits = {world_size: sliced(world_size) for world_size, _ in meshes.values()}
    workers = {TRANSFORMERS: Worker(TRANSFORMERS, open_transformers, transformers_directory(), prompt, cores)}
    closing.callback(workers[TRANSFORMERS].close)
    for name, (world_size, memory_window) in meshes.items():
        workers[name] = Worker(name, open_mesh, MODEL_DIRECTORY, splits[world_size], world_size, memory_window, prompt)
        closing.callback(workers[name].close)
    workers[SUM] = Worker(SUM, open_sum, decode_bytes(splits[1]), cores)
    closing.callback(workers[SUM].close)
    for name, world_size in {FLOOR: 4, FLOOR_OF_TWO: 2}.items():
        if world_size in splits:
            workers[name] = Worker(name, open_star, splits[world_size], world_size, (DIRECT,))
            closing.callback(workers[name].close)
    return workers


def _request(name: str, length: int) -> tuple[object, ...]:
    return (DIRECT, length) if name in (FLOOR, FLOOR_OF_TWO) else (length,)


def _check_tokens(turns: Turns) -> None:
    expected = turns[TRANSFORMERS][0].token_ids
    for name, own in turns.items():
        for turn in own:
            if turn.token_ids != expected:
                raise BenchBroken(f"{name} says {turn.token_ids}\nand {TRANSFORMERS} says {expected}")


def _result(turns: Turns, others: Turns) -> Result:
    result = Result(name="Speed: SmolLM2-135M, float32, greedy, after a short prompt")
    result.tables = [_rates(turns), _ratios(turns), _parts(turns, (MESH, WINDOWED))]
    result.bars = [
        _bar("B / A, mesh of 4 beside transformers", turns[MESH], turns[TRANSFORMERS], 0.7),
        _bar("D / A, one node beside transformers", turns[ONE_NODE], turns[TRANSFORMERS], 1.0),
        _bar("C / B, window 2 beside everything resident", turns[WINDOWED], turns[MESH], 0.8),
        _bar("D / S, bytes a second of one node beside a plain sum", turns[ONE_NODE], others[SUM], 0.7),
        _shared_cores_bar("B, four nodes", turns[MESH], turns[ONE_NODE], others[FLOOR]),
    ]
    if TWO_NODES in turns:
        result.bars.append(
            _shared_cores_bar("E, two nodes", turns[TWO_NODES], turns[ONE_NODE], others[FLOOR_OF_TWO])
        )  # fmt: skip
    if ONE_WINDOWED in turns:
        result.bars.append(_bar("G / D, the same on one node", turns[ONE_WINDOWED], turns[ONE_NODE], 0.8))
    result.notes = [
        f"all say the same {len(turns[MESH][0].token_ids)} tokens in every round",
        _floor_note(turns[MESH], others[FLOOR]),
        _sum_note(turns[ONE_NODE], others[SUM]),
        _others_note(turns),
    ]
    result.numbers = {name: [asdict(turn) for turn in own] for name, own in {**turns, **others}.items()}
    return result


def _floor_note(mesh: Sequence[Turn], floors: Sequence[Turn]) -> str:
    floor = Spread.of([turn.milliseconds_per_token(turn.seconds) for turn in floors])
    overhead = Spread.of([turn.milliseconds_per_token(turn.parts["wire"] + turn.parts["reduction"]) for turn in mesh])
    return (f"the star without kernels ({DIRECT}, in the same rounds) takes {floor.median:.1f} ms a token "
            f"({floor.least:.1f} to {floor.most:.1f}); wire and reduction of B take {overhead.median:.1f} "
            f"({overhead.least:.1f} to {overhead.most:.1f}): the rest is nodes waiting for a core")  # fmt: skip


def _sum_note(node: Sequence[Turn], sums: Sequence[Turn]) -> str:
    byte_count = decode_bytes(sliced(1))
    rates = [Spread.of([byte_count * turn.tokens_per_second / 1e9 for turn in own]) for own in (node, sums)]
    return (f"D reads {byte_count / 1e6:.0f} MB of weights a token, {rates[0].median:.1f} GB/s; S, torch.sum over a "
            f"float32 buffer of that size with {usable_core_count()} threads, {rates[1].median:.1f} GB/s "
            f"({rates[1].least:.1f} to {rates[1].most:.1f})")  # fmt: skip


def _others_note(turns: Turns) -> str:
    shares = Spread.of([100 * turn.others_share for own in turns.values() for turn in own])
    return (f"other programs took {shares.median:.0f} % of the cores' time ({shares.least:.0f} to {shares.most:.0f}): "
            "they delay most those whose threads wait for each other, A and D")  # fmt: skip


def _bar(name: str, mine: Sequence[Turn], theirs: Sequence[Turn], needed: float) -> Bar:
    """Judge the rounds in which neither was disturbed: beside a busy program, transformers loses more than a mesh."""
    pairs = list(zip(mine, theirs, strict=True))
    quiet = [pair for pair in pairs if all(turn.others_share <= QUIET_SHARE for turn in pair)]
    ratios = [one.tokens_per_second / other.tokens_per_second for one, other in quiet or pairs]
    return Bar(
        name=f"{name}, in {len(quiet)} of {len(pairs)} rounds that were quiet,", measured=Spread.of(ratios).median,
        needed=needed, undecided="" if quiet else DISTURBED,
    )  # fmt: skip


def _shared_cores_bar(name: str, mesh: Sequence[Turn], node: Sequence[Turn], floors: Sequence[Turn]) -> Bar:
    """Judge what several nodes on one machine add to a token, by rounds in which none of the three was disturbed."""
    trios = list(zip(mesh, node, floors, strict=True))
    quiet = [trio for trio in trios if all(turn.others_share <= QUIET_SHARE for turn in trio)]
    found, alone, star = (
        Spread.of([turn.milliseconds_per_token(turn.seconds) for turn in own]).median
        for own in zip(*(quiet or trios), strict=True)
    )
    return Bar(
        name=f"{name} on these cores beside one node's {alone:.1f} ms and {STARS_ALLOWED:g} of their star's {star:.1f},"
             f" in {len(quiet)} of {len(trios)} rounds that were quiet,", measured=found,
        needed=round(alone + STARS_ALLOWED * star, 1), at_least=False, unit=" ms",
        undecided="" if quiet else DISTURBED,
    )  # fmt: skip


def _rates(turns: Turns) -> Table:
    rows = []
    for name, own in turns.items():
        rate = Spread.of([turn.tokens_per_second for turn in own])
        wall = Spread.of([turn.milliseconds_per_token(turn.seconds) for turn in own])
        processor = [
            Spread.of([turn.milliseconds_per_token(max(0.0, turn.processor[role])) for turn in own]) for role in ROLES
        ]
        rows.append((name, *rate.cells(1), f"{wall.median:.1f}", *(f"{spread.median:.1f}" for spread in processor)))
    return Table(
        title=f"Tokens a second; milliseconds a token, by the clock and of {usable_core_count()} cores' time",
        header=("contender", "tokens/s", "least", "most", "ms", *(f"{role}: core ms" for role in ROLES)), rows=rows,
    )  # fmt: skip


def _ratios(turns: Turns) -> Table:
    pairs = [(MESH, TRANSFORMERS), (WINDOWED, MESH), (ONE_NODE, TRANSFORMERS), (MESH, ONE_NODE)]
    if TWO_NODES in turns:
        pairs += [(TWO_NODES, TRANSFORMERS), (ONE_WINDOWED, ONE_NODE)]
    rows = [
        (f"{one[0]} / {other[0]}", *_ratio(turns, one, other).cells(2), f"{_undisturbed_ratio(turns, one, other):.2f}")
        for one, other in pairs
    ]
    return Table(
        title="Ratios of tokens a second within each round; undisturbed: of the fastest tenth of all tokens",
        header=("ratio", "median", "least", "most", "undisturbed"), rows=rows,
    )  # fmt: skip


def _ratio(turns: Turns, one: str, other: str) -> Spread:
    pairs = zip(turns[one], turns[other], strict=True)
    return Spread.of([mine.tokens_per_second / theirs.tokens_per_second for mine, theirs in pairs])


def _undisturbed_ratio(turns: Turns, one: str, other: str) -> float:
    """Return the ratio at the tenth percentile of seconds a token: tokens that nobody else delayed much."""
    mine, theirs = (
        statistics.quantiles([seconds for turn in turns[name] for seconds in turn.seconds_per_token], n=10)[0]
        for name in (one, other)
    )
    return theirs / mine


def _parts(turns: Turns, names: Sequence[str]) -> Table:
    """Return the parts of each contender's middle round, so that they add up."""
    middle = {name: _middle(turns[name]) for name in names}
    rows = []
    for part in middle[names[0]].parts:
        cells = [part]
        for turn in middle.values():
            cells += [
                f"{turn.milliseconds_per_token(turn.parts[part]):.2f}",
                f"{100 * turn.parts[part] / turn.seconds:.0f} %",
            ]
        rows.append(tuple(cells))
    total = ["together"]
    for turn in middle.values():
        total += [f"{turn.milliseconds_per_token(turn.seconds):.2f}", "100 %"]
    rows.append(tuple(total))
    header = ("part", *(cell for name in names for cell in (f"{name[0]}, ms", "share")))
    return Table(title="Where a token's time goes (middle quiet round of each; tiles and kernel: the slowest node's)",
                 header=header, rows=rows)  # fmt: skip


def _middle(own: Sequence[Turn]) -> Turn:
    """Return the turn of median time, of the quiet ones if there are any."""
    candidates = [turn for turn in own if turn.others_share <= QUIET_SHARE] or own
    return sorted(candidates, key=lambda turn: turn.seconds)[len(candidates) // 2]
