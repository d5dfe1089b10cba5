"""What do the rounds of one token cost over each transport, with nothing to compute?

Covers: comparing transports in turns. Does not cover: the nodes that answer at once (star.py).
"""

from __future__ import annotations

from dataclasses import asdict

from tests.bench.contenders import Turn
from tests.bench.inputs import sliced
from tests.bench.report import Result, Settings, Spread, Table
from tests.bench.star import TRANSPORTS, open_star
from tests.bench.workers import Worker

WORLD_SIZE = 4
TOKENS_PER_TURN = 10


def measure(settings: Settings) -> Result:
    """Run the rounds over each transport in turns. Raises: BenchBroken: a transport fails."""
    worker = Worker("the star", open_star, sliced(WORLD_SIZE), WORLD_SIZE)
    turns: dict[str, list[Turn]] = {transport: [] for transport in TRANSPORTS}
    try:
        worker.wait_until_ready()
        for transport in TRANSPORTS:
            worker.ask(transport, 1)
        for _ in range(settings.rounds):
            for transport in TRANSPORTS:
                turns[transport].append(worker.ask(transport, TOKENS_PER_TURN))
    finally:
        worker.close()
    result = Result(name="The star's bare floor: 60 rounds with 4 nodes that answer at once")
    rows = []
    for transport, own in turns.items():
        spread = Spread.of([turn.milliseconds_per_token(turn.seconds) for turn in own])
        rows.append((transport, *spread.cells(1)))
    result.tables = [Table(title="Milliseconds a token", header=("transport", "median", "least", "most"), rows=rows)]
    result.notes = ["bare frames: bytes of the same sizes over the same sockets, without messages, sessions and sums"]
    result.numbers = {transport: [asdict(turn) for turn in own] for transport, own in turns.items()}
    return result
