"""What has a coordinator written down about its mesh? Members, observers, invitations, certificates not yet seen.

Covers: reading and replacing members.json, all of it in one step, so that no crash leaves half of a change.
Does not cover: who may change what (members.py, observers.py, invites.py), certificates (common/trust).

Times lie in the file as seconds since 1970 and in memory on a clock that nobody sets, so that a clock which jumps ends
no invitation while the coordinator runs.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from common.errors import InputError, ResourceError
from common.machine.durable_files import failure_to_write
from common.program.state_files import DAMAGE, is_there, mend_state, read_state, sealed, write_state

MEMBERS_FILE = "members.json"
FORMAT = 1
MAX_INVITE_SECONDS = 24 * 3600
AFTER_DAMAGE = ("bring a backup back (coordinator-cli mesh restore FILE); without one, remove this directory, make a "
                "new mesh and let all nodes join it")  # fmt: skip
"""What a person does whose list of members is lost: the mesh's authority alone knows nobody."""


@dataclass(frozen=True, kw_only=True)
class Device:
    """What a device has, as it says."""

    version: str = ""
    core_count: int = 0
    memory_bytes: int = 0
    free_memory_bytes: int = 0
    free_disk_bytes: int = 0
    memory_bytes_per_second: float = 0.0
    disk_bytes_per_second: float = 0.0
    arithmetic_per_second: float = 0.0
    program_bytes: int = 0
    """Memory of the program itself, without a slice."""
    budget_bytes: int = 0
    """The most memory that it was allowed; 0: it was told none."""


@dataclass(frozen=True, kw_only=True)
class Member:
    """One node of the mesh."""

    name: str
    serials: tuple[str, ...]
    """Of its good certificates, oldest first: the one that it shows, and those made since that were not seen yet."""
    certificate_ends: int
    """When the newest ends, seconds since 1970."""
    address: str = ""
    """host:port; empty before its first heartbeat."""
    device: Device = field(default_factory=Device)
    rank: int = -1
    model_identity: str = ""
    metrics: str = ""
    """URL of its metrics page without a path, as this machine reaches it; empty: it has none."""
    restored_from: int = 0
    """When the backup was made that it was brought back from, seconds since 1970; 0: seen since, or never was."""
    returned: tuple[str, float] | tuple[()] = ()
    """With which certificate it was seen again then: its serial, and when it was made, seconds since 1970."""
    heard_at: float | None = field(default=None, compare=False)
    """Monotonic seconds; not kept over a restart."""
    clock_skew_seconds: float | None = field(default=None, compare=False)
    """How far its clock is ahead of ours, as of its last heartbeat that tells; not kept over a restart."""


@dataclass(frozen=True, kw_only=True)
class Issued:
    """A certificate that was made."""

    certificate: bytes
    """In PEM."""
    serial: str
    ends: int
    """Seconds since 1970."""


@dataclass(frozen=True, kw_only=True)
class Unseen:
    """The newest certificate of a member that has not shown it yet: the answer with it may have been lost."""

    issued: Issued
    key_hash: str
    """Who asks again with this key gets the same certificate again."""
    invite_hash: str = ""
    """Of the token's secret by which its device was let in; empty: it was renewed."""
    invite_ends: float = 0.0
    """Until when the same device may ask again with that token; in memory's time."""


@dataclass(frozen=True, kw_only=True)
class Observer:
    """Somebody who may read metrics pages and nothing else."""

    name: str
    serials: tuple[str, ...]
    """Of its good certificates, oldest first."""
    certificate_ends: int
    """When the newest ends, seconds since 1970."""


@dataclass(frozen=True, kw_only=True)
class Kept:
    """Everything that is written down."""

    members: Mapping[str, Member] = field(default_factory=dict)
    unseen: Mapping[str, Unseen] = field(default_factory=dict)
    """By the member's name."""
    invites: Mapping[str, float] = field(default_factory=dict)
    """When each open one ends, in memory's time, by the SHA-256 of its secret."""
    observers: Mapping[str, Observer] = field(default_factory=dict)
    lost: tuple[int, int] = (0, 0)
    """Of which time nothing is written down here, since a backup was brought back: from when it was made until then."""


class Book:
    """What is kept of one mesh. Hold `lock` from reading until the change that follows from it."""

    def __init__(
        self, directory: Path, clock: Callable[[], float] = time.monotonic, wall_clock: Callable[[], float] = time.time
    ) -> None:  # fmt: skip
        """Read it. Raises: InputError: the file is damaged or of another version."""
        self._path = directory / MEMBERS_FILE
        self.clock, self.wall_clock = clock, wall_clock
        self.lock = threading.Lock()
        self.kept = self._read()
        self._is_settled = True

    def change(
        self, *, members: Mapping[str, Member] | None = None, unseen: Mapping[str, Unseen] | None = None,
        invites: Mapping[str, float] | None = None, observers: Mapping[str, Observer] | None = None,
    ) -> None:  # fmt: skip
        """Make it so on the disk and then here: what a restart would undo is never told to anybody as done.

        Args: what is not given stays. Raises: DiskFull, ResourceError: nothing has changed.
        """
        now = self.clock()
        changed = Kept(
            members=self.kept.members if members is None else members,
            unseen=self.kept.unseen if unseen is None else unseen,
            invites={key: end for key, end in (self.kept.invites if invites is None else invites).items() if end > now},
            observers=self.kept.observers if observers is None else observers,
            lost=self.kept.lost,
        )
        content = json.dumps(self._document(changed), indent=1).encode()
        try:
            write_state(self._path, content)
        except OSError as error:
            kind = failure_to_write(error)
            if self._holds(content):  # in its place, if the power stays
                self.kept, self._is_settled = changed, False
                raise kind(f"cannot make sure that {self._path} is on the disk: {error.strerror}; ask again") from error
            raise kind(f"cannot write {self._path}: {error.strerror}; make room there and ask again, nothing has "
                       "changed") from error  # fmt: skip
        self.kept, self._is_settled = changed, True

    def _holds(self, content: bytes) -> bool:
        """Tell whether the file is that already."""
        with suppress(OSError):
            return self._path.read_bytes() == sealed(content)
        return False

    @classmethod
    def of(cls, content: bytes, change: Callable[[Kept], Kept]) -> Book:
        """Return a book of such content, changed, that is in no file. Raises: InputError or ValueError: as its file."""
        book = cls(Path())
        book.kept = change(book._parsed(content))
        return book

    @property
    def content(self) -> bytes:
        """What is written of it."""
        return json.dumps(self._document(self.kept), indent=1).encode()

    def without(self, removed: Collection[str]) -> bytes:
        """Return what would be written without these members."""
        kept = self.kept
        return json.dumps(
            self._document(replace(
                kept, members={name: one for name, one in kept.members.items() if name not in removed},
                unseen={name: one for name, one in kept.unseen.items() if name not in removed},
            )), indent=1,
        ).encode()  # fmt: skip

    def settle(self) -> None:
        """Make sure of a change that could not be made sure of, before anybody is told of it. Raises: as change."""
        if not self._is_settled:
            self.change()

    def note(self, *, members: Mapping[str, Member] | None = None, invites: Mapping[str, float] | None = None) -> None:
        """Change what may be forgotten with this process: it is written when there is room, or with the next change."""
        kept = self.kept
        self.kept = replace(
            kept, members=kept.members if members is None else members,
            invites=kept.invites if invites is None else invites,
        )  # fmt: skip

    def try_to_write(self) -> None:
        """Write what is kept, if there is room."""
        with suppress(ResourceError):
            self.change()

    def _document(self, kept: Kept) -> dict[str, Any]:
        now = self.clock()
        behind = self.wall_clock() - now
        members = [asdict(replace(member, heard_at=None)) for member in kept.members.values()]
        for member in members:
            late = [key for key in ("restored_from", "returned") if not member[key]]  # earlier builds do not know them
            for key in ("heard_at", "clock_skew_seconds", *late):
                del member[key]
        return {
            "format": FORMAT, "members": members,
            "unseen": [
                {
                    "name": name, "key": unseen.key_hash, "serial": unseen.issued.serial, "ends": unseen.issued.ends,
                    "certificate": unseen.issued.certificate.decode("ascii"), "invite": unseen.invite_hash,
                    "invite_ends": unseen.invite_ends + behind, "invite_left": max(0.0, unseen.invite_ends - now),
                }
                for name, unseen in kept.unseen.items()
            ],
            "invites": [{"hash": key, "ends": end + behind, "left": end - now} for key, end in kept.invites.items()],
            "observers": [asdict(observer) for observer in kept.observers.values()],
            **({"lost": list(kept.lost)} if any(kept.lost) else {}),
        }  # fmt: skip

    def _read(self) -> Kept:
        try:
            return read_state(self._path, self._parsed)
        except FileNotFoundError:
            return Kept()
        except OSError as error:
            raise InputError(f"cannot read {self._path}: {error.strerror}; run as its owner") from error
        except InputError:
            raise
        except DAMAGE as error:
            raise InputError(f"{self._path} is damaged, its copy too ({error}); {AFTER_DAMAGE}") from error

    def mend(self) -> None:
        """Have the file and its copy be whole and alike, also where there was none yet; for the coordinator alone.

        Raises: DiskFull, ResourceError, InputError: as `change`, and as at its reading.
        """
        try:
            if not is_there(self._path):
                self.change()
            mend_state(self._path, self._parsed)
        except OSError as error:
            raise failure_to_write(error)(f"cannot write {self._path}: {error.strerror}") from error

    def _parsed(self, content: bytes) -> Kept:
        document = json.loads(content)
        if document["format"] != FORMAT:
            raise InputError(f"{self._path} is of format {document['format']} and this program writes {FORMAT}; "
                             "use the version of shardmesh that wrote it")  # fmt: skip
        return self._kept_of(document)

    def _kept_of(self, document: dict[str, Any]) -> Kept:
        """Return what a file says; files of earlier builds have members only. Raises: any of what _read translates."""
        unseen = {
            str(entry["name"]): Unseen(
                issued=Issued(
                    certificate=entry["certificate"].encode("ascii"), serial=entry["serial"], ends=int(entry["ends"])
                ),
                key_hash=entry["key"], invite_hash=entry["invite"],
                invite_ends=self._remembered(entry["invite_ends"], entry["invite_left"]),
            )
            for entry in document.get("unseen", [])
        }  # fmt: skip
        invites = {
            str(entry["hash"]): self._remembered(entry["ends"], entry["left"]) for entry in document.get("invites", [])
        }
        observers = [Observer(**{**one, "serials": tuple(one["serials"])}) for one in document.get("observers", [])]
        members = [_member(entry) for entry in document["members"]]
        lost = document.get("lost", (0, 0))
        return Kept(
            members={member.name: member for member in members}, unseen=unseen, invites=invites,
            observers={observer.name: observer for observer in observers}, lost=(int(lost[0]), int(lost[1])),
        )  # fmt: skip

    def _remembered(self, ends: float, left: float) -> float:
        """Return in memory's time when an invitation of before ends; a clock that was set back makes none longer.

        Args: left: seconds that it had left when it was last written down.
        """
        return self.clock() + min(float(MAX_INVITE_SECONDS), float(left), float(ends) - self.wall_clock())


def _member(kept: dict[str, Any]) -> Member:
    device, returned = Device(**kept["device"]), tuple(kept.get("returned", ()))
    return Member(**{**kept, "serials": tuple(kept["serials"]), "device": device, "returned": returned})
