"""A node that is frozen, killed, cut off or slow while it answers: is it named within five seconds, and all well after?

Covers: the four promises over links of 100 Mbit/s: no wrong token, named in time, nothing kept, no hand needed; also
after kills at random instants, a few here, twenty of each process in `make bench ARGS="--only kills"`.
Does not cover: a mesh that is well (test_mesh_in_namespaces.py).
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator

import pytest

from common.errors import EXIT_NODE
from tests.support.cli import Running
from tests.support.kill_points import KillPoints, write_small_model
from tests.support.mesh_of_hosts import MeshOfHosts
from tests.support.network_hosts import why_not
from tests.support.waiting import wait_until

pytestmark = pytest.mark.skipif(bool(why_not()), reason=why_not() or "there can be hosts")

PROMPT, LENGTH = "one two three", 10
PROMISED_SECONDS = 5.0
LETTERS = 500
MOST_TEXT = 80
"""Letters after which a kill comes at the latest: the right text, three times as long, is asked for before."""
LETTERS_AFTERWARDS = 100
ENDLESS = 20_000
LONG_PROMPT = "a long prompt fills a slow link " * 16
"""512 tokens: 512 kB a round each way, longer than a ping may take."""

Act = Callable[[MeshOfHosts], object]


@pytest.fixture(scope="module")
def points(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KillPoints]:
    """Return kills in a mesh of two nodes with a model of some megabytes; it knows what is right."""
    with MeshOfHosts(["attic", "kitchen"]) as made:
        yield KillPoints(made, write_small_model(tmp_path_factory.mktemp("models")), seed=5, most_text=MOST_TEXT)
    assert made.hosts.left() == []


@pytest.fixture(scope="module")
def mesh(points: KillPoints) -> MeshOfHosts:
    """Return that mesh."""
    return points.mesh


@pytest.fixture(scope="module")
def expected(mesh: MeshOfHosts) -> list[int]:
    """Return what the mesh answers while it is well."""
    return mesh.answer_here(PROMPT, length=LENGTH)


def signalled(number: signal.Signals) -> Act:
    """Return what sends kitchen a signal."""
    return lambda mesh: mesh.running["kitchen"].process.send_signal(number)


FAULTS: dict[str, tuple[Act, Act]] = {
    "frozen": (signalled(signal.SIGSTOP), signalled(signal.SIGCONT)),
    "killed": (lambda mesh: mesh.kill("kitchen"), lambda mesh: mesh.start_node("kitchen")),
    "cut off": (lambda mesh: mesh.hosts.cut("kitchen"), lambda mesh: mesh.hosts.mend("kitchen")),
    "partitioned": (lambda mesh: mesh.hosts.partition("kitchen"), lambda mesh: mesh.hosts.heal("kitchen")),
}


def check_kitchen_is_named(mesh: MeshOfHosts, asking: Running, end: Act, expected: list[int], fault: str) -> None:
    """Wait for a run's end: one error that names kitchen, in time; then, with the fault over, the right tokens."""
    seconds, finished = mesh.seconds_to_end(asking)
    end(mesh)
    print(f"{fault}: named after {seconds:.2f} s: {finished.err.strip()[-120:]}")
    assert "kitchen" in finished.error_line("coordinator-cli", EXIT_NODE)
    notes = [line for line in finished.err.splitlines() if line.startswith("note: ")]
    assert all(line.startswith("note: waiting for kitchen") for line in notes)
    assert seconds < PROMISED_SECONDS
    mesh.wait_until_alive()
    assert mesh.answer_here(PROMPT, length=LENGTH) == expected


@pytest.mark.parametrize("fault", FAULTS)
def test_a_node_that_is_lost_is_named_within_five_seconds(mesh: MeshOfHosts, expected: list[int], fault: str) -> None:
    """Whoever waits for the answer is told; afterwards the mesh answers again, with the right tokens."""
    begin, end = FAULTS[fault]
    asking = mesh.start_cli(*mesh.ask(PROMPT, ENDLESS))
    asking.wait_for_text()
    begin(mesh)
    check_kitchen_is_named(mesh, asking, end, expected, fault)


@pytest.mark.parametrize("fault", ["frozen", "partitioned"])
def test_a_node_that_is_lost_before_an_answer_begins_is_named_as_soon(
    mesh: MeshOfHosts, expected: list[int], fault: str
) -> None:
    """The coordinator has a session with it from the last answer, and nobody has missed the node yet."""
    begin, end = FAULTS[fault]
    begin(mesh)
    asking = mesh.start_cli(*mesh.ask(PROMPT, LENGTH))
    check_kitchen_is_named(mesh, asking, end, expected, f"{fault} before the answer")


def test_a_node_that_becomes_slow_is_named_within_five_seconds_and_the_answer_goes_on(mesh: MeshOfHosts) -> None:
    """Its link falls to a hundred kilobits a second: a round takes a hundred times as long, and nothing has failed."""
    asking = mesh.start_cli(*mesh.ask(PROMPT, ENDLESS))
    wait_until(lambda: len(asking.out) > LETTERS, limit_seconds=60.0, what="an answer at its usual speed")
    assert "note:" not in asking.err
    mesh.hosts.set_rate("kitchen", 0.1)
    started = time.monotonic()
    try:
        wait_until(lambda: "kitchen is slow" in asking.err, limit_seconds=PROMISED_SECONDS, what="its name")
        print(f"slow: named after {time.monotonic() - started:.2f} s: {asking.err.strip()}")
    finally:
        mesh.hosts.set_rate("kitchen", 100)
    letters = len(asking.out)
    wait_until(
        lambda: len(asking.out) > letters + LETTERS_AFTERWARDS, limit_seconds=60.0, what="the rest of the answer"
    )
    asking.process.send_signal(signal.SIGINT)
    finished = asking.finish()
    assert finished.out.startswith(mesh.cli(*mesh.ask(PROMPT, LENGTH)).out.strip())


def test_a_node_behind_a_slow_link_is_not_taken_for_a_lost_one(mesh: MeshOfHosts, expected: list[int]) -> None:
    """At one and a half megabits a second a prompt's round fills the link for seconds, and pings wait behind it."""
    long_answer = mesh.answer_here(LONG_PROMPT, length=1)
    mesh.hosts.set_rate("kitchen", 1.5)
    try:
        assert mesh.answer_here(LONG_PROMPT, length=1) == long_answer
    finally:
        mesh.hosts.set_rate("kitchen", 100)
    assert mesh.answer_here(PROMPT, length=LENGTH) == expected


def test_a_kill_at_a_random_instant_breaks_no_promise(points: KillPoints) -> None:
    """While it ships, and while it answers: right tokens or an error, told in time, nothing kept, no hand needed."""
    for phase, victim in dict(points.deal(1)).items():  # one of each phase
        print(points.run(phase, victim))
