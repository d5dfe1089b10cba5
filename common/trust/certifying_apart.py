"""How does a coordinator that stays sign certificates? A process of its own does it each time, and ends.

Covers: what it is asked and answers, as JSON over its pipes; one at a time. Does not cover: what is signed
(signing.py), who may have it (coordinator/membership), a node's own keys (signing_apart.py).

What signs takes 10 MB, which would stay in a coordinator that needs it when a device joins and once in two months for
each. It takes 0.2 s instead, longer on a small device.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

from common.errors import InputError, NotTrusted, ResourceError, ShardmeshError
from common.trust.certificates import LEAF_LIFETIME, KeyedCertificate, PeerName

MOST_SECONDS = 30.0
_ERRORS = {error.reason: error for error in (InputError, NotTrusted)}


@dataclass(frozen=True, kw_only=True)
class Certified:
    """What comes of a request."""

    certificate: bytes
    """In PEM."""
    key_hash: str
    """By what the request's key is known again, in whichever request it comes."""


class CertifyingHere:
    """In this process: for programs that end soon, and for tests."""

    def certify(
        self, authority: KeyedCertificate, request: bytes, peer: PeerName, lifetime: timedelta = LEAF_LIFETIME
    ) -> Certified:  # fmt: skip
        """Return a certificate under the name of `peer`, whatever the request says.

        Raises: InputError: the request cannot be right; ResourceError: not now.
        """
        given = {"mesh": peer.mesh, "role": peer.role, "name": peer.name, "seconds": str(lifetime.total_seconds())}
        texts = {name: value.encode() for name, value in given.items()}
        done = self._done(
            "certify", key=authority.key, certificate=authority.certificate, request=request, **texts
        )  # fmt: skip
        return Certified(certificate=done["certificate"].encode(), key_hash=done["hash"])

    def own(self, authority: KeyedCertificate, peer: PeerName) -> KeyedCertificate:
        """Return a new key and its certificate. Raises: ResourceError: not now."""
        done = self._done(
            "own", key=authority.key, certificate=authority.certificate, mesh=peer.mesh.encode(),
            role=peer.role.encode(), name=peer.name.encode(),
        )  # fmt: skip
        return KeyedCertificate(key=done["key"].encode(), certificate=done["certificate"].encode())

    def authority(self, mesh: str, of: str = "") -> KeyedCertificate:
        """Return a new authority. Args: of: as make_authority. Raises: ResourceError: not now."""
        done = self._done("authority", mesh=mesh.encode(), of=of.encode())
        return KeyedCertificate(key=done["key"].encode(), certificate=done["certificate"].encode())

    def _done(self, duty: str, **given: bytes) -> dict[str, str]:
        return _DUTIES[duty]({name: value.decode("latin-1") for name, value in given.items()})


class CertifyingApart(CertifyingHere):
    """In a process that ends. Safe from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()

    def _done(self, duty: str, **given: bytes) -> dict[str, str]:
        asked = json.dumps({name: value.decode("latin-1") for name, value in given.items()}).encode("ascii")
        try:
            with self._lock:  # so that many who ask take no more memory than one
                ended = subprocess.run(
                    [sys.executable, "-m", __name__, duty], input=asked, capture_output=True, timeout=MOST_SECONDS,
                    check=False,
                )  # fmt: skip
        except (OSError, subprocess.TimeoutExpired) as error:
            raise ResourceError("a certificate could not be signed; the coordinator's device is short of memory, of "
                                "processes or of time: try again") from error  # fmt: skip
        answer: dict[str, str] = json.loads(ended.stdout or b"{}")
        if "reason" in answer:
            raise _ERRORS.get(answer["reason"], InputError)(answer["message"])
        if ended.returncode or not answer:
            raise ResourceError(f"a certificate could not be signed (its process ended with {ended.returncode}); the "
                                "coordinator's device is short of memory")  # fmt: skip
        return answer


def _certify(given: dict[str, str]) -> dict[str, str]:
    from common.trust.signing import certify, requested_key_hash

    authority = KeyedCertificate(key=given["key"].encode(), certificate=given["certificate"].encode())
    peer = PeerName(mesh=given["mesh"], role=given["role"], name=given["name"])
    lifetime = timedelta(seconds=float(given["seconds"]))
    request = given["request"].encode("latin-1")
    made = certify(authority, request, peer, lifetime=lifetime)
    return {"certificate": made.decode("ascii"), "hash": requested_key_hash(request)}


def _own(given: dict[str, str]) -> dict[str, str]:
    from common.trust.signing import certify, make_key, make_request

    authority = KeyedCertificate(key=given["key"].encode(), certificate=given["certificate"].encode())
    key = make_key()
    made = certify(
        authority, make_request(key), PeerName(mesh=given["mesh"], role=given["role"], name=given["name"])
    )  # fmt: skip
    return {"key": key.decode("ascii"), "certificate": made.decode("ascii")}


def _authority(given: dict[str, str]) -> dict[str, str]:
    from common.trust.signing import make_authority

    made = make_authority(given["mesh"], of=given["of"])
    return {"key": made.key.decode("ascii"), "certificate": made.certificate.decode("ascii")}


_DUTIES: dict[str, Callable[[dict[str, str]], dict[str, str]]] = {
    "certify": _certify, "own": _own, "authority": _authority
}  # fmt: skip


def main() -> None:
    """Do one duty: named by the argument, asked on stdin, answered on stdout."""
    try:
        answer = _DUTIES[sys.argv[1]](json.loads(sys.stdin.buffer.read()))
    except ShardmeshError as error:
        answer = {"reason": error.reason, "message": str(error)}
    sys.stdout.write(json.dumps(answer))


if __name__ == "__main__":
    main()
