"""Is anybody locked out when an answer is lost, a write refused or a program killed, as devices join and renew?

Step by step, and a fault several times in a row; then the same is done once more without a fault. Each third step has
one of the faults of files, and with SHARDMESH_THOROUGH=1 (.ci/run) each step has each of them. A real coordinator and a
real device over TLS on loopback, with what is done to their files and answers counted. Real processes and real kills
are in tests/e2e/test_killed_while_joining.py, what is kept in tests/unit/test_members.py.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from common.errors import NodeLost, NotTrusted, ShardmeshError, TokenRefused
from common.trust.call_pace import CallPace
from common.trust.certificates import serial_of
from common.trust.identity import AUTHORITY_FILE, JOINING_KEY_FILE, RENEWING_KEY_FILE, Identity, load_identity
from common.trust.join_token import JoinToken, parse_token
from coordinator.membership.book import Book
from coordinator.membership.owner_client import OwnerClient
from coordinator.membership.state import init_mesh, open_mesh_state
from coordinator.program.daemon import Coordinator
from shardnode.membership.join import CONFIG_FILE, IDENTITY_DIRECTORY, join_mesh
from shardnode.membership.membership import Membership, Presence
from tests.support.free_ports import free_place
from tests.support.mesh_members import RequestMakerHere, aged_identity, beat, token_of
from tests.support.thorough import dealt_steps
from tests.support.trust_faults import CALL_KINDS, FILE_KINDS, Fault, Faults, KilledHere, Kind, Side

NAME, LISTEN = "kitchen", "127.0.0.1:9"
TIMES = 3
"""How often each fault comes before it stays away: two lost answers once locked a node out."""
FAULTS: list[tuple[Side, Kind]] = [
    *(("node", kind) for kind in FILE_KINDS), *(("coordinator", kind) for kind in FILE_KINDS),
    *(("call", kind) for kind in CALL_KINDS),
]  # fmt: skip


class Pair:
    """One mesh, and one device after another that joins it."""

    def __init__(self, directory: Path) -> None:
        self.state, self._directory = directory / "state", directory
        init_mesh(self.state, "home")
        self.faults = Faults(coordinator=self.state)
        self.coordinator = Coordinator(self.state, free_place())
        self._devices = 0
        self.begin_device()

    def begin_device(self) -> None:
        """Take a device that has never joined, and a token for it."""
        self._devices += 1
        self.data = self._directory / f"device{self._devices}"
        self.faults.directories["node"] = self.data
        self._secret = parse_token(token_of(self.state))
        self._has_joined = False
        self._membership: Membership | None = None

    @property
    def identity(self) -> Identity:
        """What the device has stored."""
        return load_identity(self.data / IDENTITY_DIRECTORY)

    @property
    def token(self) -> str:
        """The token, with where the coordinator lets devices in by now."""
        door = self.coordinator._door
        assert door is not None
        door.look()
        return JoinToken(
            addresses=door.addresses(), authority_fingerprint=self._secret.authority_fingerprint,
            secret=self._secret.secret,
        ).text  # fmt: skip

    def join(self) -> None:
        """Type the command unless it has worked, and be heard once."""
        if not self._has_joined:
            join_mesh(self.token, NAME, self.data, LISTEN)
            self._has_joined = True
        self.turns(1)

    def renew(self) -> None:
        """Have the node's program be heard, renew, and be heard again."""
        self.turns(2)

    def turns(self, count: int) -> None:
        """Send so many heartbeats from the node's program, which goes on running unless it is killed."""
        if self._membership is None:
            self._membership = Membership(self.data / IDENTITY_DIRECTORY, self.data, self.coordinator.address)
            self._membership._maker = RequestMakerHere()
        for _ in range(count):
            self._membership.turn(Presence(listen=LISTEN))

    def stop_node(self) -> None:
        """End the node's program; the next heartbeats are another one's."""
        if self._membership is not None:
            self._membership._hang_up()
            self._membership = None

    def try_with(self, fault: Fault, step: Callable[[], None]) -> bool:
        """Do it several times with a fault, and start again who died; return whether the fault has come."""
        happened = [self._try_once(fault, step) for _ in range(TIMES)]
        return any(happened)

    def _try_once(self, fault: Fault, step: Callable[[], None]) -> bool:
        self.faults.begin(fault)
        with suppress(ShardmeshError, KilledHere):
            step()
        has_happened = self.faults.has_happened(fault)
        dead = set(self.faults.dead)
        self.faults.begin(None)
        if dead:
            self.stop_node()
        if "coordinator" in dead:
            self.coordinator.close()
            self.coordinator = Coordinator(self.state, free_place())
        return has_happened

    def check_member(self, former: Identity | None) -> None:
        """See that the device is a member with one identity, and that nobody else is by what it has used."""
        identity = self.identity
        assert beat(self.coordinator, identity) is None
        kept = Book(self.state).kept
        assert kept.members[NAME].serials == (serial_of(identity.own.certificate),)
        assert self.coordinator._state.members.get(NAME).serials == kept.members[NAME].serials
        assert (kept.unseen, kept.invites) == ({}, {})
        assert (self.data / CONFIG_FILE).read_text().count("coordinator = ") == 1
        for name in (JOINING_KEY_FILE, RENEWING_KEY_FILE):  # one that could not be removed is no other key
            path = self.data / IDENTITY_DIRECTORY / name
            assert not path.exists() or path.read_bytes() == identity.own.key
        if former is not None:
            assert isinstance(beat(self.coordinator, former), NotTrusted)

    def check_stranger(self) -> None:
        """See that the token lets no other key in, once it has let the device in."""
        if NAME in Book(self.state).kept.members:
            with pytest.raises((TokenRefused, NodeLost)):
                join_mesh(self.token, "stranger", self._directory / "stranger", LISTEN)

    def end_device(self) -> None:
        """Remove the device and see that it stays away."""
        identity = self.identity
        self.stop_node()
        with OwnerClient(self.state) as owner:
            owner.remove(NAME)
        assert isinstance(beat(self.coordinator, identity), NotTrusted)
        self.begin_device()


def steps_with(kind: Kind) -> Iterator[int]:
    """Yield the steps at which a fault is tried, from 1: all, or of a file's faults those that no other is tried at."""
    return dealt_steps(FILE_KINDS.index(kind), len(FILE_KINDS)) if kind in FILE_KINDS else itertools.count(1)


@pytest.fixture
def pair(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Pair]:
    """Return a mesh whose coordinator runs; a hundred devices called the same join and renew in a few seconds."""
    monkeypatch.setattr("coordinator.membership.services.RENEWALS_AT_ONCE", 10_000)
    for name in ("daemon.pace_of_members", "door.pace_of_strangers"):
        monkeypatch.setattr(f"coordinator.program.{name}", lambda *owner: CallPace(10_000, 1.0))
    made = Pair(tmp_path)
    with made.faults:
        made.faults.begin(None)
        yield made
        made.stop_node()
    made.coordinator.close()


@pytest.mark.parametrize(("side", "kind"), FAULTS)
def test_a_device_that_could_not_join_joins_when_the_same_command_is_typed_again(
    pair: Pair, side: Side, kind: Kind
) -> None:
    """At whichever step it failed; it has one certificate, and a stranger with its token has none."""
    for at in steps_with(kind):
        fault = Fault(side=side, kind=kind, at=at)
        if not pair.try_with(fault, pair.join):
            break
        pair.check_stranger()
        pair.join()
        pair.check_member(None)
        pair.check_stranger()
        pair.end_device()
    assert at > {"node": 15, "coordinator": 8, "call": 2}[side]


@pytest.mark.parametrize(("side", "kind"), FAULTS)
def test_a_node_that_could_not_renew_its_certificate_renews_it_at_the_next_heartbeat(
    pair: Pair, side: Side, kind: Kind
) -> None:
    """At whichever step it failed; the former certificate is worth nothing then, and was good until then."""
    for at in steps_with(kind):
        pair.join()
        aged = aged_identity(pair.coordinator, pair.data / IDENTITY_DIRECTORY)
        pair.stop_node()
        fault = Fault(side=side, kind=kind, at=at)
        if not pair.try_with(fault, pair.renew):
            break
        pair.renew()
        pair.check_member(aged)
        pair.end_device()
    assert at > {"node": 8, "coordinator": 8, "call": 3}[side]


def test_a_device_on_which_an_earlier_build_broke_off_joins(pair: Pair) -> None:
    """It had written the authority and no certificate, and said that the device belongs to a mesh already."""
    (pair.data / IDENTITY_DIRECTORY).mkdir(parents=True, mode=0o700)
    (pair.data / IDENTITY_DIRECTORY / AUTHORITY_FILE).write_bytes((pair.state / AUTHORITY_FILE).read_bytes())
    pair.join()
    pair.check_member(None)


def test_a_coordinator_that_cannot_store_its_own_new_certificate_uses_it_all_the_same(
    pair: Pair, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Nodes ask who has signed it, not which one it is; so no handshake fails for want of room."""
    before = load_identity(pair.state)
    old = before.own.certificate
    monkeypatch.setattr("coordinator.membership.state.needs_renewal", lambda certificate: certificate == old)
    state = open_mesh_state(pair.state)
    pair.faults.begin(Fault(side="coordinator", kind="full", at=1))
    with caplog.at_level("WARNING"):
        assert state.identity() == state.identity() != before
    assert "is used and not kept" in caplog.text
    assert load_identity(pair.state) == before
    pair.faults.begin(None)
    assert (renewed := open_mesh_state(pair.state).identity()) != before
    assert load_identity(pair.state) == renewed
