"""A mesh whose node is slowed, and what `why` says of it: for tests that name causes and follow advice.

    with SlowedMesh(tmp_path) as slowed:
        with slowed.answering():
            slowed.slow_processor(0.2)
            slowed.wait_for("core_wait")
            slowed.why()["advice"]

Covers: two nodes, of which kitchen has a budget that its slice does not fit, or others as they are told; slowing one
three ways; asking meanwhile; loading the model again, as a person does who follows what is advised.
Does not cover: what has to come of it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

from coordinator.cli.why_words import bound_of
from coordinator.membership.owner_client import OwnerClient
from protos.shardmesh.v1 import observe_pb2
from tests.support.cli import Running
from tests.support.mesh_of_hosts import DESK, MeshOfHosts
from tests.support.process_limits import ProcessLimits
from tests.support.random_models import build, save
from tests.support.waiting import wait_until

SLOW, OTHER, SPARE = "kitchen", "attic", "cellar"
PROMPT, ENDLESS = "one two three", 8_000
SHORTER, OTHERS_PROMPT = 1_500, 6_000
"""Tokens, of which both have to find room at once."""
RATE_MBIT = 400
LIMIT_SECONDS, LOOKED_AT_SECONDS, BETWEEN_LOOKS_SECONDS = 90.0, 10.0, 0.5
STEADY_SECONDS, LEAST_SWEEPS = 6.0, 5
SHAPE: dict[str, Any] = {
    "hidden_size": 1024, "intermediate_size": 2048, "layers": 6, "query_heads": 16, "kv_heads": 4, "head_size": 64,
    "vocab_size": 320, "max_position_embeddings": 32768,
}  # fmt: skip
BUDGET = "240MB"
BUDGETS: Mapping[str, str] = {OTHER: "", SLOW: BUDGET}


class SlowedMesh:
    """Use as a context manager."""

    def __init__(self, directory: Path, budgets: Mapping[str, str] = BUDGETS) -> None:
        """Start everything and load a model over the first two. Args: budgets: by node; empty: the node has none."""
        self.model = save(build(**SHAPE), directory / "slowed")
        options = {name: ["--memory-budget", budget] if budget else [] for name, budget in budgets.items()}
        self.mesh = MeshOfHosts([*budgets], rate_mbit=RATE_MBIT, options=options)
        self._limited: dict[str, ProcessLimits] = {}
        self.load(self.mesh.nodes[:2])

    def load(self, names: Sequence[str], strategy: str = "uniform") -> None:
        """Load the model over these nodes, instead of those that it is on. Args: strategy: empty: none is named."""
        self.mesh.load(self.model, "--nodes", ",".join(names), *(["--split-strategy", strategy] if strategy else []))

    def slow_processor(self, share: float, name: str = SLOW) -> None:
        """Let a node have so much of one core."""
        self._limits(name).set_processor(share)

    def slow_disk(self, bytes_per_second: float, name: str = SLOW) -> None:
        """Let a node read no faster."""
        self._limits(name).set_disk(bytes_per_second, self.mesh.data(name))

    def slow_link(self, rate_mbit: float) -> None:
        """Let the slow node's link carry no more, each way."""
        self.mesh.hosts.set_rate(SLOW, rate_mbit)

    def lift(self) -> None:
        """Have all nodes be as quick as they were."""
        self._lift_limits()
        self.mesh.hosts.set_rate(SLOW, RATE_MBIT)

    def restart_node(self, budget: str = BUDGET) -> None:
        """Start the slow node with another budget, without limits."""
        self._lift_limits()
        self.mesh.stop(SLOW)
        self.mesh.set_options(SLOW, "--memory-budget", budget)
        self.mesh.start_node(SLOW)
        self.mesh.wait_until_alive()

    def restart_coordinator(self, *options: str) -> None:
        """Start the coordinator with other options."""
        self.mesh.stop(DESK)
        self.mesh.start_coordinator(*options)
        self.mesh.wait_until_alive()

    @contextmanager
    def answering(self, length: int = ENDLESS) -> Iterator[Running]:
        """Have an answer go on meanwhile."""
        asking = self.mesh.start_cli(*self.mesh.ask(PROMPT, length))
        try:
            asking.wait_for_text()
            yield asking
        finally:
            asking.process.terminate()
            asking.finish()

    @contextmanager
    def read_for_another(self) -> Iterator[None]:
        """Have a coordinator of its own read a long prompt on the same nodes meanwhile."""
        asking = self.mesh.start_cli(
            "generate", "--model", str(self.model), "--nodes", f"{OTHER},{SLOW}", "--split-strategy", "uniform",
            "--save-dir", str(self.model.with_name("elsewhere")), "--prompt", "x" * OTHERS_PROMPT, "--length", "1",
        )  # fmt: skip
        try:
            yield
        finally:
            asking.process.terminate()
            print(asking.finish().err[-500:])

    def why(self, seconds: float = LOOKED_AT_SECONDS) -> dict[str, Any]:
        """Return what `why --json` says."""
        found: dict[str, Any] = json.loads(self.mesh.cli("why", "--json", "--seconds", str(seconds)).out)
        return found

    def wait_for(self, cause: str, names: Collection[str] = (SLOW,)) -> dict[str, Any]:
        """Wait until a cause is named, of some of these nodes and no other; return what is said then."""

        def is_named(response: observe_pb2.ExplainResponse) -> bool:
            parts = [(part.node, part.cause, part.seconds) for part in response.parts]
            bound = bound_of(parts) if parts else {}
            return bound.get("cause") == cause and {*bound["node_names"]} <= {*names}

        took = self._wait(is_named, f"{' or '.join(names)} is named for {cause}")
        found = self.why()
        print(f"{cause}: named after {took:.1f} s: {found['said']}")
        return found

    def steady(self) -> dict[str, Any]:
        """Wait until there are enough sweeps of nothing but this; return what is said of them."""
        since = time.monotonic() + BETWEEN_LOOKS_SECONDS

        def is_enough(response: observe_pb2.ExplainResponse) -> bool:
            return time.monotonic() - since > STEADY_SECONDS and response.sweep_count >= LEAST_SWEEPS

        self._wait(is_enough, f"{LEAST_SWEEPS} sweeps", lambda: max(1.0, time.monotonic() - since))
        found = self.why(time.monotonic() - since)
        parts = ", ".join(f"{one['node']} {one['cause']} {1000 * one['seconds']:.0f}" for one in found["parts"])
        print(f"{1000 * found['seconds_per_sweep']:.0f} ms ({parts}): {found['said']}")
        return found

    def _wait(
        self,
        holds: Callable[[observe_pb2.ExplainResponse], bool],
        what: str,
        seconds: Callable[[], float] = lambda: LOOKED_AT_SECONDS,
    ) -> float:
        """Wait until something holds for the last sweeps; asked from here: a program for each look delays them."""
        next_look = 0.0

        def is_so() -> bool:
            nonlocal next_look
            if time.monotonic() < next_look:
                return False
            next_look = time.monotonic() + BETWEEN_LOOKS_SECONDS
            with OwnerClient(Path(self.mesh.state)) as owner:
                return holds(owner.explain(seconds()))

        return wait_until(is_so, limit_seconds=LIMIT_SECONDS, what=what)

    def _limits(self, name: str) -> ProcessLimits:
        if name not in self._limited:
            self._limited[name] = ProcessLimits(self.mesh.running[name].process.pid)
        return self._limited[name]

    def _lift_limits(self) -> None:
        while self._limited:
            self._limited.popitem()[1].close()

    def close(self) -> None:
        """End everything."""
        self._lift_limits()
        self.mesh.close()

    def __enter__(self) -> SlowedMesh:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
