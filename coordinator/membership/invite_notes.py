"""Why might a device not be able to use a token, as far as the coordinator can tell? A sentence for each reason.

Covers: addresses that only this device has, looking around where nothing is announced, a clock that is wrong.
Does not cover: firewalls, networks that are not connected: who joins is told of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timezone

from common.trust.certificates import lifetime_of
from common.wire.addresses import is_loopback, is_number, split_host_port


def invite_notes(
    addresses: Sequence[str], *, without_addresses: bool, authority: bytes, own: bytes, now: datetime | None = None
) -> list[str]:
    """Return what speaks against a token.

    Args: addresses: where devices reach the join port; without_addresses: whether the token leaves them out;
    authority, own: certificates of the mesh and of its coordinator.
    """
    notes = _of_the_clock(authority, own, now or datetime.now(timezone.utc))
    hosts = [split_host_port(address)[0] for address in addresses]
    if hosts and all(map(is_loopback, hosts)):
        notes.append(f"no other device can use this token: the coordinator is reached at {hosts[0]}, which every "
                     "device takes for itself; start it with --master-ip 0.0.0.0, or with --advertise HOST"
                     )  # fmt: skip
    elif not hosts:
        notes.append("the token names no address, since this coordinator has none that means something beyond one "
                     "link: a device on that link finds it by looking around")  # fmt: skip
    elif without_addresses and not any(is_number(host) and not is_loopback(host) for host in hosts):
        notes.append("no device will find this coordinator by looking around: it is announced by numbers only, and has "
                     "none that others reach; make a token without --no-address")  # fmt: skip
    return notes


def _of_the_clock(authority: bytes, own: bytes, now: datetime) -> list[str]:
    """Return what speaks against certificates that are made at this time: devices go by their own clocks."""
    said = f"this device's clock says {now:%Y-%m-%d %H:%M}"
    made, ends = lifetime_of(authority)
    begins = max(made, lifetime_of(own)[0])
    notes = []
    if now > ends:
        notes.append(f"{said}, and the mesh's authority ended on {ends:%Y-%m-%d}: if the clock is right, no device is "
                     "let in any more, and a new mesh is needed (coordinator-cli mesh init)")  # fmt: skip
    elif now < begins:
        notes.append(f"{said}, which is before the mesh's certificates begin ({begins:%Y-%m-%d}): nobody whose clock "
                     "is right will trust what is made now; set it first (timedatectl)")  # fmt: skip
    return notes
