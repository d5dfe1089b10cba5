"""What do the rounds of one token cost over each transport, with nothing to compute, here and over links of 1 Gbit/s?

Covers: comparing transports in turns, by the clock and by the coordinator's processor time, with bare sockets of the
standard library; what the bytes alone take on such a link. Does not cover: the nodes that answer at once (star.py).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path

from common.weights.manifest import read_manifest
from tests.bench.contenders import Turn
from tests.bench.inputs import sliced
from tests.bench.link_rate import LINKS, limit_links, passed_bytes, wire_seconds
from tests.bench.report import DISTURBED, QUIET_SHARE, Bar, Result, Settings, Spread, Table
from tests.bench.star import LINKED_TRANSPORTS, TRANSPORTS, open_star, round_count
from tests.bench.star_routes import LANE
from tests.bench.star_seats import Place
from tests.bench.star_sockets import FLOAT_BYTES, TLS
from tests.bench.workers import Worker
from tests.support.network_hosts import NetworkHosts, why_not

WORLD_SIZE = 4
TOKENS_PER_TURN = 20
DESK, HOSTS = "desk", tuple(f"host{rank}" for rank in range(WORLD_SIZE))
MOST_OF_BARE, MOST_OF_WIRE = 1.3, 1.25
BARE_NOTE = (
    "bare frames: bytes of the same sizes over Unix sockets, without messages, sessions and sums; bare TCP and TLS: "
    "tensors alone, sent to all, received from all, added in rank order"
)

Turns = dict[str, list[Turn]]
Linked = dict[str, list[int]]
"""By transport, of each turn: the bytes that passed the coordinator's link, both ways, headers included."""


def measure(settings: Settings) -> Result:
    """Run the rounds over each transport in turns. Raises: BenchBroken: a transport fails."""
    split = sliced(WORLD_SIZE)
    turns: Turns = {name: [] for name in TRANSPORTS}
    linked_turns: Turns = {name: [] for name in LINKED_TRANSPORTS}
    byte_counts: Linked = {name: [] for name in LINKED_TRANSPORTS}
    reason = why_not()
    with ExitStack() as closing:
        here = _open(split, TRANSPORTS, (), closing)
        linked = None if reason else _LinkedStar(split, closing)
        for _ in range(settings.rounds):
            for name in TRANSPORTS:
                turns[name].append(here.ask(name, TOKENS_PER_TURN))
            for name in LINKED_TRANSPORTS:
                if linked is None:
                    break
                turn, byte_count = linked.turn(name)
                linked_turns[name].append(turn)
                byte_counts[name].append(byte_count)
    return _result(split, turns, linked_turns, byte_counts, reason)


class _LinkedStar:
    """A star whose processes have a host each."""

    def __init__(self, split: Path, closing: ExitStack) -> None:
        self._hosts = closing.enter_context(NetworkHosts([DESK, *HOSTS]))
        limit_links(self._hosts, [DESK, *HOSTS])
        places = [
            Place(address=self._hosts.address(name), network=self._hosts.network(name)) for name in (DESK, *HOSTS)
        ]
        self._worker = _open(split, LINKED_TRANSPORTS, places, closing)

    def turn(self, transport: str) -> tuple[Turn, int]:
        """Return a turn, and the bytes that passed the coordinator's link in it."""
        before = passed_bytes(self._hosts, DESK)
        turn: Turn = self._worker.ask(transport, TOKENS_PER_TURN)
        return turn, passed_bytes(self._hosts, DESK) - before


def _open(split: Path, transports: Sequence[str], places: Sequence[Place], closing: ExitStack) -> Worker:
    """Start a star and have every transport run once."""
    worker = Worker("the star", open_star, split, WORLD_SIZE, transports, places)
    closing.callback(worker.close)
    worker.wait_until_ready()
    for transport in transports:
        worker.ask(transport, 1)
    return worker


def _result(split: Path, turns: Turns, linked_turns: Turns, byte_counts: Linked, reason: str) -> Result:
    manifest = read_manifest(split / "node0")
    rounds, hidden = round_count(manifest), manifest.spec.hidden_size
    wire = 1000 * wire_seconds(2 * rounds * WORLD_SIZE * hidden * FLOAT_BYTES)
    result = Result(name=f"The star's bare floor: {rounds} rounds of [1, {hidden}] with 4 nodes that answer at once")
    result.tables = [_table("Milliseconds a token on this machine", turns, {})]
    result.bars = [
        _bar(f"{LANE} / {TLS}, by the clock", turns, _clock),
        _bar(f"{LANE} / {TLS}, by the coordinator's processor time", turns, _processor),
    ]
    result.notes = [BARE_NOTE]
    if reason:
        result.notes.append(f"no links: {reason}")
    else:
        result.tables.append(_table(f"Milliseconds a token over {LINKS}", linked_turns, byte_counts))
        result.bars.append(_linked_bar(turns, linked_turns, wire))
        result.notes.append(f"the wire's own time: both ways' tensors at the link's rate are {wire:.2f} ms a token")
    result.numbers = {name: [asdict(turn) for turn in own] for name, own in turns.items()}
    for name, own in linked_turns.items():
        counted = zip(own, byte_counts[name], strict=True)
        result.numbers[f"{name}, linked"] = [{**asdict(turn), "link_bytes": count} for turn, count in counted]
    return result


def _clock(turn: Turn) -> float:
    return turn.milliseconds_per_token(turn.seconds)


def _processor(turn: Turn) -> float:
    return turn.milliseconds_per_token(turn.processor["here"])


def _table(title: str, turns: Turns, byte_counts: Linked) -> Table:
    rows = []
    for name, own in turns.items():
        clock = Spread.of([_clock(turn) for turn in own])
        here = Spread.of([_processor(turn) for turn in own])
        of_nodes = Spread.of([turn.milliseconds_per_token(turn.processor["nodes"]) for turn in own])
        cells = [*clock.cells(1), f"{here.median:.1f}", f"{of_nodes.median:.1f}"]
        if byte_counts:
            count = Spread.of(byte_counts[name]).median / TOKENS_PER_TURN
            cells += [f"{count / 1000:.0f}", f"{1000 * wire_seconds(count):.1f}"]
        rows.append((name, *cells))
    header = ("transport", "median", "least", "most", "coordinator: core ms", "nodes: core ms")
    more = ("kB on its link, both ways", "these at the rate, ms") if byte_counts else ()
    return Table(title=title, header=(*header, *more), rows=rows)


def _bar(name: str, turns: Turns, of: Callable[[Turn], float]) -> Bar:
    """Compare the lane with bare TLS, in the rounds in which neither was disturbed."""
    pairs = list(zip(turns[LANE], turns[TLS], strict=True))
    quiet = [pair for pair in pairs if all(turn.others_share <= QUIET_SHARE for turn in pair)]
    ratios = [of(lane) / of(bare) for lane, bare in quiet or pairs]
    return Bar(
        name=f"{name}, in {len(quiet)} of {len(pairs)} rounds that were quiet,", measured=Spread.of(ratios).median,
        needed=MOST_OF_BARE, at_least=False, undecided="" if quiet else DISTURBED,
    )  # fmt: skip


def _linked_bar(turns: Turns, linked: Turns, wire: float) -> Bar:
    triples = list(zip(linked[LANE], turns[TLS], strict=True))
    quiet = [pair for pair in triples if all(turn.others_share <= QUIET_SHARE for turn in pair)]
    allowed = Spread.of([MOST_OF_BARE * _clock(bare) + MOST_OF_WIRE * wire for _, bare in quiet or triples]).median
    return Bar(
        name=f"{LANE} over the links, in {len(quiet)} of {len(triples)} rounds that were quiet,",
        measured=Spread.of([_clock(lane) for lane, _ in quiet or triples]).median, needed=round(allowed, 1),
        at_least=False, unit=" ms", undecided="" if quiet else DISTURBED,
    )  # fmt: skip
