"""Five devices, each with its own address, memory group and a link of 100 Mbit/s: from mesh init to the right tokens.

Covers: uneven ratios with a rank without heads, a link of 2 ms, restarts of one and of all, shipping over a cable that
is pulled, a disk that is full. Does not cover: nodes that fail while they answer (test_faults_in_namespaces.py).
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from common.errors import EXIT_RESOURCE
from tests.support.mesh_of_hosts import DESK, MeshOfHosts
from tests.support.network_hosts import NetworkHosts, why_not
from tests.support.random_models import build, save
from tests.support.reference_models import SMALL
from tests.support.waiting import wait_until

pytestmark = pytest.mark.skipif(bool(why_not()), reason=why_not() or "there can be hosts")

NODES = ("attic", "cellar", "garage", "kitchen")
PROMPT, LENGTH = SMALL.prompt, SMALL.length
MEMORY_BYTES = 2 << 30
UNEVEN = ("--split-strategy", "ratio:6,2,1,3")
MOST_SENT = 1.05


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a model on disk whose answer is known."""
    return save(SMALL.build(), tmp_path_factory.mktemp("models") / "small")


@pytest.fixture(scope="module")
def expected() -> list[int]:
    """Return what transformers answers."""
    return SMALL.token_ids


@pytest.fixture(scope="module")
def mesh() -> Iterator[MeshOfHosts]:
    """Return four nodes and a coordinator, one of them behind a long link."""
    with MeshOfHosts(NODES, memory_bytes=MEMORY_BYTES, delays={"garage": 2.0}) as made:
        yield made
    assert made.hosts.left() == []


@pytest.fixture(scope="module")
def loaded(mesh: MeshOfHosts, model: Path) -> str:
    """Have the mesh hold the model in uneven parts; return what was said."""
    return mesh.load(model, *UNEVEN)


def test_five_devices_answer_what_transformers_does(mesh: MeshOfHosts, loaded: str, expected: list[int]) -> None:
    """With shares of 6, 2, 1 and 3: garage has no head at all."""
    assert loaded.count("MB sent") == 4
    assert mesh.answer(PROMPT, length=LENGTH) == expected
    peaks = {name: mesh.hosts.peak_memory_bytes(name) for name in (DESK, *NODES)}
    print({name: f"{peak / 1e6:.0f} MB" for name, peak in peaks.items()})
    assert max(peaks.values()) < MEMORY_BYTES


@pytest.mark.usefixtures("loaded")
def test_the_doctor_names_the_long_link(mesh: MeshOfHosts) -> None:
    """In one sentence, with what was measured; devices count as small PCs, which nobody has measured here."""
    said = mesh.cli("doctor", "--no-measure").out
    assert "what limits it: garage's link" in said, said
    (row,) = [line.split() for line in said.splitlines() if line.startswith("garage")]
    assert 4.0 < float(row[1]) < 20.0  # two milliseconds each way


@pytest.mark.usefixtures("loaded")
def test_a_node_that_restarts_rejoins_and_is_sent_nothing(mesh: MeshOfHosts, model: Path, expected: list[int]) -> None:
    """Stopped and started as systemd does it; then the coordinator and all nodes are killed and started."""
    assert mesh.stop("kitchen").code == 0
    mesh.start_node("kitchen")
    mesh.wait_until_alive()
    assert mesh.answer_here(PROMPT, length=LENGTH) == expected
    for name in (DESK, *NODES):
        mesh.kill(name)
    mesh.start_coordinator()
    with ThreadPoolExecutor(len(NODES)) as pool:
        list(pool.map(mesh.start_node, NODES))
    mesh.wait_until_alive()
    assert mesh.answer_here(PROMPT, length=LENGTH) == expected
    before = {name: mesh.hosts.bytes_to(name) for name in NODES}
    assert mesh.load(model).count("all was there") == 4
    assert all(mesh.hosts.bytes_to(name) - before[name] < 100_000 for name in NODES)


def test_a_cable_that_is_pulled_at_a_third_costs_less_than_a_twentieth(
    mesh: MeshOfHosts, model: Path, expected: list[int]
) -> None:
    """Frames counted on the link itself, beside a transfer that nobody disturbs; the command goes on by itself."""
    load = ("load", str(model), "--nodes", "attic", "--split-strategy", "uniform")
    mesh.try_cli("unload", "small")
    before = mesh.hosts.bytes_to("attic")
    mesh.cli(*load)
    undisturbed = mesh.hosts.bytes_to("attic") - before
    mesh.cli("unload", "small")
    before = mesh.hosts.bytes_to("attic")
    loading = mesh.start_cli(*load)
    wait_until(
        lambda: mesh.hosts.bytes_to("attic") - before > 0.3 * undisturbed, limit_seconds=30, what="a third is sent"
    )
    mesh.hosts.cut("attic")
    wait_until(lambda: mesh.is_silent("attic"), limit_seconds=30, what="attic is missed")
    mesh.hosts.mend("attic")
    finished = loading.finish()
    assert finished.code == 0, finished.err
    sent = mesh.hosts.bytes_to("attic") - before
    print(f"{sent} bytes over the link, {undisturbed} undisturbed: {sent / undisturbed:.3f}")
    assert sent < MOST_SENT * undisturbed
    assert mesh.answer_here(PROMPT, length=LENGTH) == expected
    mesh.cli("unload", "small")


def test_a_full_disk_is_one_line_and_the_old_slice_works(mesh: MeshOfHosts, model: Path, expected: list[int]) -> None:
    """A real one: a file system of 30 MB on cellar."""
    mesh.stop("cellar")
    data = mesh.data("cellar")
    kept = data.with_name("kept")
    data.rename(kept)
    data.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=34m", "tmpfs", str(data)], check=True)
    try:
        subprocess.run(["cp", "-a", f"{kept}/.", str(data)], check=True)
        mesh.start_node("cellar")
        mesh.wait_until_alive()
        mesh.load(model, "--nodes", "cellar", "--split-strategy", "uniform")
        larger = save(build(hidden_size=256, intermediate_size=1024, layers=6, vocab_size=320), model.parent / "larger")
        refused = mesh.try_cli("load", str(larger), "--nodes", "cellar", "--split-strategy", "uniform")
        line = refused.error_line("coordinator-cli", EXIT_RESOURCE)
        assert "cellar: the slice needs" in line
        assert "free some" in line
        assert mesh.answer_here(PROMPT, length=LENGTH, model="small") == expected
    finally:
        mesh.kill("cellar")
        subprocess.run(["umount", str(data)], check=True)


def test_hosts_leave_nothing() -> None:
    """No namespace, no link, no group, also when what ran on them failed."""
    made: list[NetworkHosts] = []

    def fail_on_hosts() -> None:
        with NetworkHosts(["a", "b"], memory_bytes=1 << 28) as hosts:
            made.append(hosts)
            assert hosts.left()
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_on_hosts()
    assert made[0].left() == []
