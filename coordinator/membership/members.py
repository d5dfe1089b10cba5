"""Who belongs to the mesh: names, the certificates that are good for them, what each last said of itself.

Covers: letting in, renewing, removing. Does not cover: how they are asked (membership/services.py), the file that
survives a restart (book.py), making tokens (invites.py). Safe to call from several threads.

A certificate is good from when it is made until a newer one is seen, so no answer that is lost locks a node out. Who
asks again with the same key gets the same certificate, so however often that happens there are two of them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import replace

from common.errors import InputError, NameTaken, NoSuchNode, NotTrusted, ResourceError, TokenRefused
from common.trust.certificates import LEAF_LIFETIME, SLACK, check_name
from coordinator.membership.book import Book, Device, Issued, Member, Unseen
from coordinator.membership.claims import Claims
from coordinator.membership.invites import hash_of
from coordinator.membership.moves import Moves

MAX_MEMBERS = 256
MOST_SERIALS = 8
"""Of one member: the one that it shows, and the newest that it asked for with other keys and has not shown."""


def not_a_member(name: str) -> str:
    """Return what is told to who is no member, or not any more."""
    return f"{name} is no node of this mesh, or was removed; let it join again with a new token"


class Members:
    """The members of one mesh."""

    def __init__(self, book: Book) -> None:
        self._book = book
        self._claims = Claims(book.clock)
        self._moves = Moves(book.clock)

    def all(self) -> list[Member]:
        """Return the members, by name."""
        with self._book.lock:
            return sorted(self._book.kept.members.values(), key=lambda member: member.name)

    def get(self, name: str) -> Member:
        """Return one member. Raises: NoSuchNode."""
        with self._book.lock:
            return self._get(name)

    def find(self, name: str) -> Member | None:
        """Return one member, or None. Without a lock: a moment's view."""
        return self._book.kept.members.get(name)

    def has(self, name: str) -> bool:
        """Tell whether there is such a member."""
        return self.find(name) is not None

    def knows(self, name: str, serial: str, made_at: float = 0.0) -> bool:
        """Tell whether a certificate is one that `check` lets in. Without a lock: a moment's view."""
        member = self.find(name)
        return member is not None and (serial in member.serials or self._is_of_lost_time(member, made_at))

    def take_list(self, good: Collection[str], made_at: float) -> list[str]:
        """Take a list of the time that a backup does not know; return who was removed by it, and is not a member now.

        Who has not been seen since is let in only with a certificate of the list, or a later one. Args: good: serials
        on the list; made_at: when it was signed, seconds since 1970.
        """
        with self._book.lock:
            kept = self._book.kept
            gone = [
                name for name, member in kept.members.items()
                if member.returned and member.returned[0] not in good and member.returned[1] <= made_at
            ]  # fmt: skip
            members = {
                name: replace(member, serials=tuple(serial for serial in member.serials if serial in good))
                if member.restored_from else member
                for name, member in kept.members.items() if name not in gone
            }  # fmt: skip
            if members != kept.members:
                unseen = {name: one for name, one in kept.unseen.items() if name not in gone}
                try:
                    self._book.change(members=members, unseen=unseen)
                except ResourceError:  # it is so here, and on the disk with the next change
                    self._book.note(members=members)
            return gone

    def check_token(self, secret: bytes) -> None:
        """Refuse a token that lets nobody in. Raises: TokenRefused."""
        with self._book.lock:
            if self._let_in_by(hash_of(secret)) is None:
                self._check_open(hash_of(secret))

    def admit(self, name: str, secret: bytes, key_hash: str, device: Device, issue: Callable[[], Issued]) -> Issued:
        """Let a device in by a token and return its certificate.

        The token is used up by the device that it lets in, and by no failure: until its certificate is seen the same
        key may ask again, with the same token or with another one.
        Raises: TokenRefused, NameTaken, InputError; ResourceError: it cannot be written down; what `issue` raises.
        """
        invite = hash_of(secret)
        with self._book.lock:
            if (holder := self._let_in_by(invite)) is not None:
                issued = self._same_device(name, key_hash, *holder)
                self._book.settle()
                return issued
            ends = self._check_open(invite)
            check_name(name)
            kept = self._book.kept
            self._check_free(name, key_hash)
            issued = issue()
            member = Member(name=name, serials=(issued.serial,), certificate_ends=issued.ends, device=device)
            unseen = Unseen(issued=issued, key_hash=key_hash, invite_hash=invite, invite_ends=ends)
            self._book.change(
                members={**kept.members, name: member}, unseen={**kept.unseen, name: unseen},
                invites={other: end for other, end in kept.invites.items() if other != invite},
            )  # fmt: skip
            return issued

    def remove(self, name: str) -> None:
        """Revoke every certificate of a node. Raises: NoSuchNode; ResourceError: it cannot be written down."""
        with self._book.lock:
            self._book.settle()
            self._get(name)
            kept = self._book.kept
            self._book.change(
                members={other: member for other, member in kept.members.items() if other != name},
                unseen={other: unseen for other, unseen in kept.unseen.items() if other != name},
            )
            self._moves.forget(name)

    def check_listed(self, name: str, serial: str) -> None:
        """Refuse a certificate that is none of a member's good ones; it is not taken for seen. Raises: NotTrusted."""
        if not self.lists(name, serial):
            raise NotTrusted(not_a_member(name))

    def lists(self, name: str, serial: str) -> bool:
        """Tell whether a certificate is written down as one of a member's good ones. Without a lock: as `knows`."""
        member = self.find(name)
        return member is not None and serial in member.serials

    def any_ended(self) -> bool:
        """Tell whether some member's newest certificate is out of its time, so that TLS lets it in nowhere."""
        now = self._book.wall_clock()
        longest = (LEAF_LIFETIME + SLACK).total_seconds()
        ends = [member.certificate_ends for member in self._book.kept.members.values()]
        return any(not now - 1 <= end <= now + longest for end in ends)

    def check(self, name: str, serial: str, made_at: float = 0.0) -> Member:
        """Return the member that shows this certificate; older ones are worth nothing from now on.

        Args: made_at: when the certificate was made, seconds since 1970: a member that was brought back from a backup
        is let in with one that was made after it, since nobody else has his name.
        Raises: NotTrusted: it is no member, or not any more.
        """
        with self._book.lock:
            kept = self._book.kept
            member = kept.members.get(name)
            if member is not None and member.restored_from:
                member = self._seen_again(member, serial, made_at)
                kept = self._book.kept
            if member is None or serial not in member.serials:
                raise NotTrusted(not_a_member(name))
            place = member.serials.index(serial)
            unseen = kept.unseen.get(name)
            is_news = unseen is not None and unseen.issued.serial == serial
            if place or is_news:
                member = replace(member, serials=member.serials[place:])
                others = {other: kept.unseen[other] for other in kept.unseen if other != name or not is_news}
                with suppress(ResourceError):  # the older one stays good a while longer
                    self._book.change(members={**kept.members, name: member}, unseen=others)
            return member

    def renew(
        self, name: str, shown: str, key_hash: str, issue: Callable[[], Issued], made_at: float = 0.0
    ) -> Issued:  # fmt: skip
        """Return one more good certificate of a member; the same one for the same key, until it is seen.

        Args: shown: the serial of the certificate that asks, which stays good; made_at: as `check`.
        Raises: NoSuchNode; NotTrusted: it is not good any more; ResourceError: it cannot be written down.
        """
        with self._book.lock:
            member, kept = self._get(name), self._book.kept
            if shown not in member.serials:
                raise NotTrusted(f"{name} has shown a newer certificate than this one")
            unseen = kept.unseen.get(name)
            if member.restored_from:
                member = replace(member, restored_from=0, returned=(shown, made_at))
            if unseen is not None and unseen.key_hash == key_hash and self._lasts(unseen.issued):
                self._book.settle()
                return unseen.issued
            issued = issue()
            newer = member.serials[member.serials.index(shown) + 1 :]
            serials = (shown, *newer[-(MOST_SERIALS - 2) :], issued.serial)
            renewed = replace(member, serials=serials, certificate_ends=issued.ends)
            self._book.change(
                members={**kept.members, name: renewed},
                unseen={**kept.unseen, name: Unseen(issued=issued, key_hash=key_hash)},
            )
            return issued

    def hear(
        self, name: str, address: str, device: Device, rank: int, model_identity: str,
        clock_skew_seconds: float | None = None, metrics: str = "",
    ) -> None:  # fmt: skip
        """Note what a member has just said. Args: clock_skew_seconds: None where it cannot be told; then it stays.

        Raises: NoSuchNode; NotTrusted: it is a copy of one that is heard.
        """
        with self._book.lock:
            member = self._get(name)
            self._claims.check(name, address, member.address, member.heard_at)
            heard = replace(
                member, address=address, device=device, rank=rank, model_identity=model_identity, metrics=metrics,
                heard_at=self._book.clock(),
                clock_skew_seconds=member.clock_skew_seconds if clock_skew_seconds is None else clock_skew_seconds,
            )  # fmt: skip
            self._book.note(members={**self._book.kept.members, name: heard})
            before, place = (member.address, member.metrics), (heard.address, heard.metrics)
            if self._moves.is_worth_a_write(name, before, place):  # the rest is news of a moment
                self._book.try_to_write()  # after a restart it says so again
                self._moves.written(name)

    def silent_seconds(self, member: Member) -> float:
        """Return how long a member has said nothing; negative when it never did since the coordinator started."""
        return -1.0 if member.heard_at is None else self._book.clock() - member.heard_at

    def _seen_again(self, member: Member, serial: str, made_at: float) -> Member:
        """Return a member that was brought back, once it has shown which certificate it has now."""
        if serial not in member.serials and not self._is_of_lost_time(member, made_at):
            return member
        serials = member.serials if serial in member.serials else (serial,)
        member = replace(member, serials=serials, restored_from=0, returned=(serial, made_at))
        with suppress(ResourceError):  # it is known by its name a while longer
            self._book.change(members={**self._book.kept.members, member.name: member})
        return member

    def _is_of_lost_time(self, member: Member, made_at: float) -> bool:
        """Tell whether a certificate may be a restored member's that the backup does not know: all later ones are."""
        latest = self._book.kept.lost[1] + SLACK.total_seconds()
        return 0 < member.restored_from < made_at <= latest

    def _get(self, name: str) -> Member:
        member = self._book.kept.members.get(name)
        if member is None:
            known = ", ".join(sorted(self._book.kept.members)) or "none"
            raise NoSuchNode(f"there is no node called '{name[:60]}' in this mesh; there are: {known}")
        return member

    def _let_in_by(self, invite: str) -> tuple[str, Unseen] | None:
        """Return whom this token has let in and has not been seen since."""
        now = self._book.clock()
        for name, unseen in self._book.kept.unseen.items():
            if unseen.invite_hash == invite and unseen.invite_ends > now:
                return name, unseen
        return None

    def _check_open(self, invite: str) -> float:
        """Return when an invitation ends. Raises: TokenRefused."""
        ends = self._book.kept.invites.get(invite, 0.0)
        if ends <= self._book.clock():
            raise TokenRefused("this token was used already, has expired, or was never made here; make another with "
                               "`coordinator-cli mesh invite`")  # fmt: skip
        return ends

    def _same_device(self, name: str, key_hash: str, called: str, unseen: Unseen) -> Issued:
        """Return again what a device has got by its token. Raises: TokenRefused: it is another one; InputError."""
        if unseen.key_hash != key_hash:
            raise TokenRefused("this token was used already, by another device; make another with `coordinator-cli "
                               "mesh invite`")  # fmt: skip
        if name != called:
            raise InputError(f"this token has let this device in as {called}; repeat it with --name {called}, or "
                             f"remove that node (coordinator-cli mesh remove {called}) and make another token"
                             )  # fmt: skip
        return unseen.issued

    def _check_free(self, name: str, key_hash: str) -> None:
        """Refuse a name that a device cannot have. Raises: InputError, NameTaken."""
        kept = self._book.kept
        if name in kept.members:
            unseen = kept.unseen.get(name)
            if unseen is None or not unseen.invite_hash or unseen.key_hash != key_hash:
                raise NameTaken(f"there is a node called {name} already; choose another --name, or remove that one: "
                                f"coordinator-cli mesh remove {name}")  # fmt: skip
        elif name in kept.observers:
            raise NameTaken(f"there is an observer called {name}; choose another --name, or remove that one: "
                            f"coordinator-cli mesh remove {name}")  # fmt: skip
        elif len(kept.members) >= MAX_MEMBERS:
            raise InputError(f"a mesh has at most {MAX_MEMBERS} nodes; remove some")

    def _lasts(self, issued: Issued) -> bool:
        """Tell whether a certificate that was made for an answer that was lost is still worth its way."""
        return issued.ends - self._book.wall_clock() > LEAF_LIFETIME.total_seconds() / 2
