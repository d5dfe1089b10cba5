"""Whatever write of state is the last one, or finds no room: does everything work afterwards, with no hand repair?

    init · invite · remove · invite an observer · own renewal · a model's plan, record and its end · what a node serves
    · bringing a backup back

Each is tried with its first step failing, then its fourth, until the last step is behind (with SHARDMESH_THOROUGH=1 all
steps are the failing one in every way, otherwise each third one in one way): refused, refused with
all that come after it (a full disk), or the program's last (kill -9: nothing is cleaned up). A step is a change of a
file: make, sync, rename, remove. Then the program is started again and the same is asked again.
Covers: those. Does not cover: joining and renewing, which have two sides (test_trust_faults.py), real kills
(tests/e2e/test_killed_while_joining.py, tests/e2e/test_load_goes_on.py).
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from common.errors import DiskFull, ShardmeshError
from coordinator.membership.backup import Backup, bring_back, take_backup
from coordinator.membership.state import init_mesh, mend_mesh_state, open_mesh_state
from coordinator.models.records import LoadedModels
from shardnode.slices.slice_store import SliceStore
from tests.support.kept_mesh import PI, KeptMesh, issued
from tests.support.thorough import dealt_steps
from tests.support.trust_faults import FILE_KINDS, Fault, Faults, KilledHere, Kind

MADE = Path(__file__).resolve().parent / "made_by_e3cc05c" / "state"
"""Has the records of one model, tiny."""


@dataclass(frozen=True, kw_only=True)
class Change:
    """Something that changes state."""

    do: Callable[[Path], object]
    """May be done again until it is done."""
    is_done: Callable[[Path], bool]
    fewest_steps: int


def _names(state: Path) -> list[str]:
    return [member.name for member in open_mesh_state(state).members.all()]


def _remove(state: Path) -> None:
    if "kitchen" in _names(state):
        open_mesh_state(state).members.remove("kitchen")


def _renew_own(state: Path) -> None:
    mesh = open_mesh_state(state)
    from common.trust.identity import Identity, save_identity

    own = mesh.certifying.own(mesh.authority, mesh.peer)
    save_identity(state, Identity(authority=mesh.authority.certificate, own=own))


def _observe(state: Path) -> None:
    open_mesh_state(state).observers.admit("prometheus", lambda authority: issued("0b5"))


def _load(state: Path) -> None:
    made = LoadedModels(MADE)
    (model,) = made.all()
    here = LoadedModels(state)
    here.directory.mkdir(mode=0o700, exist_ok=True)
    future = here.future("tiny", Path("/nowhere"), model.description, model.node_names)
    here.plan_ahead(future)
    here.save(future)


def _unload(state: Path) -> None:
    if not (state / "models").exists():
        shutil.copytree(MADE / "models", state / "models")
    LoadedModels(state).forget("tiny")


def _serve(state: Path) -> None:
    SliceStore(state / "node").set_served("b" * 64)


def _bring_back(state: Path) -> None:
    bring_back(BACKUP[0], state, [])


BACKUP: list[Backup] = []
CHANGES = {
    "init": Change(
        do=lambda state: init_mesh(state / "new", "home") if not _is_mesh(state / "new") else None,
        is_done=lambda state: _is_mesh(state / "new"), fewest_steps=30,
    ),
    "invite": Change(
        do=lambda state: open_mesh_state(state).invites.make(60),
        is_done=lambda state: open_mesh_state(state).invites.any_open, fewest_steps=8,
    ),
    "remove": Change(do=_remove, is_done=lambda state: "kitchen" not in _names(state), fewest_steps=8),
    "invite an observer": Change(
        do=_observe, is_done=lambda state: open_mesh_state(state).observers.knows("0b5"), fewest_steps=16
    ),
    "own renewal": Change(do=_renew_own, is_done=lambda state: True, fewest_steps=8),
    "load": Change(do=_load, is_done=lambda state: [m.name for m in LoadedModels(state).all()] == ["tiny"],
                   fewest_steps=16),
    "unload": Change(do=_unload, is_done=lambda state: not LoadedModels(state).all(), fewest_steps=3),
    "serve": Change(do=_serve, is_done=lambda state: SliceStore(state / "node").served() == "b" * 64, fewest_steps=8),
    "restore": Change(do=_bring_back, is_done=lambda state: _names(state) == ["attic", "kitchen"], fewest_steps=32),
}  # fmt: skip


def _is_mesh(state: Path) -> bool:
    try:
        open_mesh_state(state)
    except ShardmeshError:
        return False
    return True


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the state of a mesh with two members, and of a node beside it; and keep a backup of it."""
    state = tmp_path_factory.mktemp("made") / "state"
    init_mesh(state, "home")
    mesh = KeptMesh(state)
    for name in ("kitchen", "attic"):
        mesh.let_in(name, f"{name}-1", key=name)
    (state / "node").mkdir(mode=0o700)
    SliceStore(state / "node").set_served("a" * 64)
    BACKUP[:] = [take_backup(state)]
    return state


@contextmanager
def copy_of_mesh(made: Path, directory: Path) -> Iterator[Path]:
    """Yield such a state, and remove it."""
    state = directory / "state"
    shutil.copytree(made, state)
    state.chmod(0o700)
    try:
        yield state
    finally:
        shutil.rmtree(state)


def check_nothing_is_lost(state: Path, change: str) -> None:
    """Start both programs: whoever belonged to the mesh does, and whatever was served is."""
    mesh = open_mesh_state(state)
    mend_mesh_state(mesh)
    assert not [path.name for path in state.iterdir() if path.name.startswith(".")], "what a killed writer left"
    assert set(_names(state)) >= {"attic"}
    if change != "remove":
        assert mesh.members.check("kitchen", "kitchen-1").name == "kitchen"
    assert mesh.members.check("attic", "attic-1").name == "attic"
    mesh.members.hear("attic", "10.0.0.2:1", PI, -1, "")
    assert SliceStore(state / "node").served() in ({"a" * 64} if change != "serve" else {"a" * 64, "b" * 64})


@pytest.mark.parametrize("kind", FILE_KINDS)
@pytest.mark.parametrize("name", CHANGES)
def test_every_write_may_be_the_last_or_find_no_room(made: Path, tmp_path: Path, name: str, kind: Kind) -> None:
    """Nobody is locked out, nothing is repaired by hand, and the same command ends what it began."""
    change = CHANGES[name]
    for at in dealt_steps(FILE_KINDS.index(kind), len(FILE_KINDS)):
        with copy_of_mesh(made, tmp_path) as state:
            with Faults(coordinator=state) as faults:
                fault = Fault(side="coordinator", kind=kind, at=at)
                faults.begin(fault)
                with suppress(ShardmeshError, OSError, KilledHere):
                    change.do(state)
                happened = faults.has_happened(fault)
            check_nothing_is_lost(state, name)
            change.do(state)
            assert change.is_done(state)
            check_nothing_is_lost(state, name)
        if not happened:
            break
    assert at > change.fewest_steps, "so many steps were there"


def test_a_disk_that_is_really_full_is_told_and_changes_nothing(made: Path, tmp_path: Path) -> None:
    """A file system of 256 KiB, filled to its last blocks; where this user may mount one."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k,mode=700", "tmpfs", str(place)]
    if shutil.which("mount") is None or subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("no file system can be mounted here")
    try:
        state, filler = place / "state", place / "filler"
        shutil.copytree(made, state)
        state.chmod(0o700)
        told = 0
        for left in range(40):
            filler.write_bytes(b"")
            free = shutil.disk_usage(place).free
            filler.write_bytes(bytes(max(0, free - 1024 * left)))
            try:
                open_mesh_state(state).invites.make(60)
            except DiskFull:
                told += 1
            assert _names(state) == ["attic", "kitchen"]
        assert told > 0
        filler.unlink()
        mend_mesh_state(open_mesh_state(state))
        open_mesh_state(state).invites.make(60)
        check_nothing_is_lost(state, "invite")
    finally:
        subprocess.run(["umount", str(place)], check=True)
