"""Does another authority take the place of a mesh's while everybody goes on, wherever that is broken off?

Covers: coordinator and nodes in this process, who shakes hands with whom at every stage, nodes that are off, kills at
every change of a file of either side. Does not cover: observers, who get the new certificate by hand.
"""

from __future__ import annotations

import itertools
import shutil
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from common.errors import NodeError, NotTrusted, ShardmeshError
from common.trust.certificates import certificates_in, fingerprint, is_signed_by
from common.trust.identity import Identity, load_identity
from common.trust.tls_contexts import client_context, server_context
from coordinator.membership.good_list import FILE
from coordinator.membership.owner_client import OwnerClient
from coordinator.membership.state import NEXT_FILE, init_mesh, open_mesh_state
from coordinator.program.daemon import Coordinator
from shardnode.membership.join import IDENTITY_DIRECTORY
from shardnode.membership.membership import Membership, Presence
from tests.support.free_ports import free_place
from tests.support.mesh_members import LIMIT_SECONDS, RequestMakerHere, beat, joined
from tests.support.thorough import THOROUGH
from tests.support.trust_faults import Fault, Faults, KilledHere, Side
from tests.support.waiting import wait_until

NAMES = ("attic", "kitchen")
MOST_TURNS = 12


class Home:
    """A mesh of two nodes below one directory, whose programs are started again when a test likes."""

    def __init__(self, directory: Path) -> None:
        self.directory, self.state = directory, directory / "state"
        self.address = free_place()
        self.coordinator = Coordinator(self.state, self.address)
        self.nodes = {name: self._node(name) for name in NAMES}

    def _node(self, name: str) -> Membership:
        made = Membership(self.directory / name / IDENTITY_DIRECTORY, self.directory / name, self.address)
        made._maker = RequestMakerHere()
        return made

    def close(self) -> None:
        """End all programs."""
        for node in self.nodes.values():
            node.close()
            node._hang_up()
        self.coordinator.close()

    def restart(self) -> None:
        """Start all programs again."""
        self.close()
        self.coordinator = Coordinator(self.state, self.address)
        self.nodes = {name: self._node(name) for name in NAMES}

    def turn(self, *names: str) -> None:
        """Have each node send a heartbeat. Raises: ShardmeshError."""
        for name in names or NAMES:
            self.nodes[name].turn(Presence(listen="127.0.0.1:5"))
            assert shake_hands(self.coordinator._state.identity(), self.nodes[name].identity())

    def rotate(self, *names: str) -> bool:
        """Begin, or go on, and have nodes send heartbeats until it is over; tell whether it is."""
        with OwnerClient(self.state) as owner:
            done = owner.rotate(begin=True, leave_behind=False).is_done
            for _ in range(MOST_TURNS):
                if done:
                    break
                self.turn(*names)
                done = owner.rotate(begin=False, leave_behind=False).is_done
            return done


def shake_hands(coordinator: Identity, node: Identity) -> bool:
    """Tell whether a coordinator reaches a node, each by what it has now, as it does for rounds and slices."""
    ours, theirs = socket.socketpair()
    server, client = server_context(node, node.authority), client_context(coordinator)

    def serve() -> None:
        with suppress(ssl.SSLError, OSError), server.wrap_socket(theirs, server_side=True) as secure:
            secure.sendall(b"x")

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        with client.wrap_socket(ours, server_hostname=node.peer.dns) as secure:
            return secure.recv(1) == b"x"
    except (ssl.SSLError, OSError):
        return False
    finally:
        theirs.close()
        thread.join()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the directories of such a mesh."""
    directory = tmp_path_factory.mktemp("made")
    init_mesh(directory / "state", "home")
    coordinator = Coordinator(directory / "state", free_place())
    identities = [joined(directory / "state", name, directory / name) for name in NAMES]
    assert [beat(coordinator, identity) for identity in identities] == [None] * len(NAMES)
    signed = directory / "state" / FILE  # else it is written while the directory is copied
    wait_until(signed.exists, limit_seconds=LIMIT_SECONDS, what="a list of both")
    coordinator.close()
    return directory


@pytest.fixture
def home(made: Path, tmp_path: Path) -> Iterator[Home]:
    """Return such a mesh, running."""
    yield from running(made, tmp_path / "home")


def running(made: Path, directory: Path) -> Iterator[Home]:
    """Yield a copy of a mesh, running, and remove it."""
    shutil.copytree(made, directory)
    for path in (directory / "state", *(directory / name / IDENTITY_DIRECTORY for name in NAMES)):
        path.chmod(0o700)
    home = Home(directory)
    try:
        yield home
    finally:
        home.close()
        shutil.rmtree(directory)


def check_rotated(home: Home, before: bytes) -> None:
    """Everybody has the new authority alone, and who was signed by the old one alone is nobody."""
    (authority,) = certificates_in(home.coordinator._state.identity().authority)
    assert fingerprint(authority) != fingerprint(before)
    home.turn()
    home.turn()
    for name, node in home.nodes.items():
        identity = load_identity(home.directory / name / IDENTITY_DIRECTORY)
        assert identity == node.identity()
        assert certificates_in(identity.authority) == [authority]
        assert is_signed_by(identity.own.certificate, authority)
    assert not (home.state / NEXT_FILE).exists()
    state = open_mesh_state(home.state)
    assert state.authority.certificate == authority
    assert is_signed_by(state.identity().own.certificate, authority)


def test_a_mesh_gets_another_authority_while_it_runs(made: Path, home: Home) -> None:
    """Nobody joins again; who joins later is of the new one; the old one's certificates open nothing."""
    before = load_identity(home.state).authority
    old = load_identity(made / "kitchen" / IDENTITY_DIRECTORY)
    assert home.rotate()
    check_rotated(home, before)
    home.restart()
    check_rotated(home, before)
    assert isinstance(beat(home.coordinator, old), NodeError)
    late = joined(home.state, "late", home.directory / "late")
    assert certificates_in(late.authority) == certificates_in(home.coordinator._state.trusted)
    assert beat(home.coordinator, late) is None


def test_a_node_that_is_off_is_waited_for_and_may_be_left_behind(home: Home) -> None:
    """Meanwhile all goes on under both, also over restarts; a device that joins meanwhile is moved too."""
    before = load_identity(home.state).authority
    assert not home.rotate("attic")
    with OwnerClient(home.state) as owner:
        assert owner.rotate(begin=False, leave_behind=False).waiting == ["kitchen"]
    home.restart()
    late = joined(home.state, "late", home.directory / "late")
    assert beat(home.coordinator, late) is None
    home.turn("attic")
    with OwnerClient(home.state) as owner:
        assert owner.rotate(begin=False, leave_behind=False).waiting == ["kitchen", "late"]
    home.coordinator._state.members.remove("late")
    assert home.rotate()
    check_rotated(home, before)
    assert not home.rotate("attic")
    with OwnerClient(home.state) as owner:
        assert owner.rotate(begin=False, leave_behind=True).is_done
    home.turn("attic")
    home.nodes["kitchen"]._hang_up()
    with pytest.raises((NodeError, NotTrusted)):
        home.turn("kitchen")


def test_who_is_removed_meanwhile_is_in_under_neither_authority(home: Home) -> None:
    """It is not waited for either; also after a restart in the midst, and when all is over."""
    old = home.nodes["kitchen"].identity()
    assert not home.rotate("attic")
    both = home.nodes["kitchen"].identity()
    home.coordinator._state.members.remove("kitchen")
    home.coordinator.close()
    home.coordinator = Coordinator(home.state, home.address)
    assert isinstance(beat(home.coordinator, old), NotTrusted)
    with pytest.raises(NotTrusted):
        home.turn("kitchen")
    assert home.rotate("attic")
    for identity in (old, both, home.nodes["kitchen"].identity()):
        assert beat(home.coordinator, identity) is not None
    home.turn("attic")


@pytest.mark.timeout(600)  # thoroughly it is 117 and 64 meshes
@pytest.mark.parametrize("side", ["coordinator", "node"])
def test_a_rotation_goes_on_wherever_it_was_killed(made: Path, tmp_path: Path, side: Side) -> None:
    """At every change of a file, or a few of them: both programs are started again, and the same command ends it."""
    for at in itertools.count(1) if THOROUGH else itertools.count(5, 31 if side == "coordinator" else 13):
        for home in running(made, tmp_path / "home"):
            before = load_identity(home.state).authority
            fault = Fault(side=side, kind="killed", at=at)
            with Faults(coordinator=home.state, node=home.directory / "kitchen") as faults:
                faults.begin(fault)
                is_done = False
                for _ in range(3):  # a call may be too late on a machine that is busy, which is no end of all steps
                    with suppress(ShardmeshError, KilledHere, OSError):
                        is_done = home.rotate()
                    if is_done or faults.has_happened(fault):
                        break
                happened = faults.has_happened(fault)
                faults.begin(None)
            home.restart()
            if happened or (home.state / NEXT_FILE).exists():
                assert home.rotate() or load_identity(home.state).authority != before
            check_rotated(home, before)
        if not happened:
            assert is_done, "neither killed nor over"
            break
    assert at > {"coordinator": 100, "node": 60}[side], "117 and 64 changes of files are tried"
