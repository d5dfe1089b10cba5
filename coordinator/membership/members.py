"""Who belongs to the mesh: names, the certificates that are good for them, what each last said of itself.

Covers: admitting, renewing, removing; what survives a restart (members.json). Does not cover: how they are asked
(membership/services.py), certificates (common/trust). Safe to call from several threads.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from common.errors import DiskFull, InputError, NameTaken, NoSuchNode, NotTrusted, ResourceError
from common.machine.durable_files import is_full, replace_private
from common.trust.certificates import check_name
from coordinator.membership.claims import Claims

MEMBERS_FILE = "members.json"
FORMAT = 1
MAX_MEMBERS = 256


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
    """Of its good certificates, newest last: two while a renewed one has not been seen."""
    certificate_ends: int
    """When the newest ends, seconds since 1970."""
    address: str = ""
    """host:port; empty before its first heartbeat."""
    device: Device = field(default_factory=Device)
    rank: int = -1
    model_identity: str = ""
    heard_at: float | None = field(default=None, compare=False)
    """Monotonic seconds; not kept over a restart."""


class Members:
    """The members of one mesh, kept in one file."""

    def __init__(self, directory: Path, clock: Callable[[], float] = time.monotonic) -> None:
        """Read the members of before. Raises: InputError: the file is damaged or of another version."""
        self._path = directory / MEMBERS_FILE
        self._clock = clock
        self._lock = threading.Lock()
        self._members = _read(self._path)
        self._claims = Claims(clock)

    def all(self) -> list[Member]:
        """Return the members, by name."""
        with self._lock:
            return sorted(self._members.values(), key=lambda member: member.name)

    def get(self, name: str) -> Member:
        """Return one member. Raises: NoSuchNode."""
        with self._lock:
            return self._get(name)

    def check_free(self, name: str) -> None:
        """Refuse a name that a new node cannot have. Raises: InputError, NameTaken."""
        check_name(name)
        with self._lock:
            if name in self._members:
                raise NameTaken(f"there is a node called {name} already; choose another --name, or remove that one: "
                                f"coordinator-cli mesh remove {name}")  # fmt: skip
            if len(self._members) >= MAX_MEMBERS:
                raise InputError(f"a mesh has at most {MAX_MEMBERS} nodes; remove some")

    def admit(self, name: str, serial: str, certificate_ends: int, device: Device) -> None:
        """Take a node in. Raises: NameTaken, InputError; ResourceError: it cannot be written down."""
        self.check_free(name)
        with self._lock:
            if name in self._members:
                raise NameTaken(f"there is a node called {name} already")
            new = Member(name=name, serials=(serial,), certificate_ends=certificate_ends, device=device)
            self._change({**self._members, name: new})

    def remove(self, name: str) -> None:
        """Revoke every certificate of a node. Raises: NoSuchNode; ResourceError: it cannot be written down."""
        with self._lock:
            self._get(name)
            self._change({other: member for other, member in self._members.items() if other != name})

    def check(self, name: str, serial: str) -> Member:
        """Return the member that shows this certificate.

        An older certificate is good until a newer one is seen. Raises: NotTrusted: it is no member, or not any more.
        """
        with self._lock:
            member = self._members.get(name)
            if member is None or serial not in member.serials:
                raise NotTrusted(f"{name} is no node of this mesh, or was removed; let it join again with a new token")
            if serial == member.serials[-1] and len(member.serials) > 1:
                member = replace(member, serials=(serial,))
                with suppress(ResourceError):  # the older one stays good a while longer
                    self._change({**self._members, name: member})
            return member

    def renew(self, name: str, serial: str, certificate_ends: int) -> None:
        """Make one more certificate of a member good. Raises: NoSuchNode; ResourceError: it cannot be written down."""
        with self._lock:
            member = self._get(name)
            serials = (*member.serials[-1:], serial)
            renewed = replace(member, serials=serials, certificate_ends=certificate_ends)
            self._change({**self._members, name: renewed})

    def hear(self, name: str, address: str, device: Device, rank: int, model_identity: str) -> None:
        """Note what a member has just said. Raises: NoSuchNode; NotTrusted: it is a copy of one that is heard."""
        with self._lock:
            member = self._get(name)
            self._claims.check(name, address, member.address, member.heard_at)
            heard = replace(
                member, address=address, device=device, rank=rank, model_identity=model_identity,
                heard_at=self._clock(),
            )  # fmt: skip
            self._members[name] = heard
            if heard.address != member.address:  # the rest is news of a moment, not worth a write each time
                with suppress(ResourceError):  # after a restart it says so again
                    self._change(self._members)

    def silent_seconds(self, member: Member) -> float:
        """Return how long a member has said nothing; negative when it never did since the coordinator started."""
        return -1.0 if member.heard_at is None else self._clock() - member.heard_at

    def _get(self, name: str) -> Member:
        member = self._members.get(name)
        if member is None:
            known = ", ".join(sorted(self._members)) or "none"
            raise NoSuchNode(f"there is no node called '{name[:60]}' in this mesh; there are: {known}")
        return member

    def _change(self, changed: dict[str, Member]) -> None:
        """Make it so on the disk and then here: what a restart would undo is never told to anybody as done.

        Raises: DiskFull, ResourceError: nothing has changed.
        """
        members = []
        for member in changed.values():
            kept = asdict(member)
            del kept["heard_at"]
            members.append(kept)
        try:
            replace_private(self._path, json.dumps({"format": FORMAT, "members": members}, indent=1).encode())
        except OSError as error:
            raise (DiskFull if is_full(error) else ResourceError)(
                f"cannot write {self._path}: {error.strerror}; make room there and ask again, nothing has changed"
            ) from error  # fmt: skip
        self._members = changed


def _read(path: Path) -> dict[str, Member]:
    try:
        document = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read {path}: {error}; restore it from a copy, or remove it and let all nodes join "
                         "again") from error  # fmt: skip
    try:
        if document["format"] != FORMAT:
            raise InputError(f"{path} is of format {document['format']} and this program writes {FORMAT}; use the "
                             "version of shardmesh that wrote it")  # fmt: skip
        members = [
            Member(**{**kept, "serials": tuple(kept["serials"]), "device": Device(**kept["device"])})
            for kept in document["members"]
        ]
    except (KeyError, TypeError) as error:
        raise InputError(f"{path} is damaged ({error}); restore it from a copy, or remove it and let all nodes join "
                         "again") from error  # fmt: skip
    return {member.name: member for member in members}
