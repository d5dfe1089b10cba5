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
from common.machine.operating_system import give_way
from common.trust.certificates import LEAF_LIFETIME, KeyedCertificate, PeerName

MOST_SECONDS, _MOST_WORDS = 30.0, 200
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
        done = self._done("certify", {
            **_signs(authority, peer), "request": request.decode("latin-1"), "seconds": str(lifetime.total_seconds()),
        })  # fmt: skip
        return Certified(certificate=done["certificate"].encode(), key_hash=done["hash"])

    def certify_again(
        self, authority: KeyedCertificate, ended: bytes, request: bytes, peer: PeerName
    ) -> Certified:  # fmt: skip
        """Return a certificate for the key of one that has ended, whose key has signed the request.

        Raises: NotTrusted: it is not the authority's, or another key's; InputError, ResourceError: as certify.
        """
        done = self._done("certify", {
            **_signs(authority, peer), "request": request.decode("latin-1"), "ended": ended.decode("latin-1"),
            "seconds": str(LEAF_LIFETIME.total_seconds()),
        })  # fmt: skip
        return Certified(certificate=done["certificate"].encode(), key_hash=done["hash"])

    def own(self, authority: KeyedCertificate, peer: PeerName) -> KeyedCertificate:
        """Return a new key and its certificate. Raises: ResourceError: not now."""
        done = self._done("own", _signs(authority, peer))
        return KeyedCertificate(key=done["key"].encode(), certificate=done["certificate"].encode())

    def authority(self, mesh: str, of: str = "") -> KeyedCertificate:
        """Return a new authority. Args: of: as make_authority. Raises: ResourceError: not now."""
        done = self._done("authority", {"mesh": mesh, "of": of})
        return KeyedCertificate(key=done["key"].encode(), certificate=done["certificate"].encode())

    def sign(self, authority: KeyedCertificate, content: bytes) -> bytes:
        """Return an authority's signature of a list (member_list.py). Raises: ResourceError: not now."""
        done = self._done("sign", {"key": authority.key.decode("latin-1"), "content": content.hex()})
        return bytes.fromhex(done["signature"])

    def _done(self, duty: str, given: dict[str, str]) -> dict[str, str]:
        return _DUTIES[duty](given)


class CertifyingApart(CertifyingHere):
    """In a process that ends. Safe from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()

    def _done(self, duty: str, given: dict[str, str]) -> dict[str, str]:
        try:
            with self._lock:  # so that many who ask take no more memory than one
                ended = subprocess.run(
                    [sys.executable, "-m", __name__, duty], input=json.dumps(given).encode("ascii"), check=False,
                    capture_output=True, timeout=MOST_SECONDS,
                )  # fmt: skip
        except (OSError, subprocess.TimeoutExpired) as error:
            raise ResourceError("a certificate could not be signed; the coordinator's device is short of memory, of "
                                "processes or of time: try again") from error  # fmt: skip
        answer: dict[str, str] = json.loads(ended.stdout or b"{}")
        if "reason" in answer:
            raise _ERRORS.get(answer["reason"], InputError)(answer["message"])
        if ended.returncode or not answer:
            raise ResourceError(f"a certificate could not be signed on the coordinator's device: {_end_of(ended)}")
        return answer


def _end_of(process: subprocess.CompletedProcess[bytes]) -> str:
    """Return how it ended: killed, as for memory, or by its last words."""
    said = process.stderr.decode("utf-8", "replace").split("\n")
    words = next((line.strip() for line in reversed(said) if line.strip()), "without a word")
    if process.returncode < 0:
        return f"its process was ended by signal {-process.returncode}, as when memory is short; try again"
    return f"its process ended with {process.returncode}: {words[:_MOST_WORDS]}"


def _signs(authority: KeyedCertificate, peer: PeerName) -> dict[str, str]:
    """Return who signs, and for whom, as it is written to a process."""
    return {
        "key": authority.key.decode("latin-1"), "certificate": authority.certificate.decode("latin-1"),
        "mesh": peer.mesh, "role": peer.role, "name": peer.name,
    }  # fmt: skip


def _signer(given: dict[str, str]) -> tuple[KeyedCertificate, PeerName]:
    """Return it as it was."""
    key, certificate = given["key"].encode("latin-1"), given["certificate"].encode("latin-1")
    authority = KeyedCertificate(key=key, certificate=certificate)
    return authority, PeerName(mesh=given["mesh"], role=given["role"], name=given["name"])


def _certify(given: dict[str, str]) -> dict[str, str]:
    from common.trust.signing import certify, check_same_key, requested_key_hash

    authority, peer = _signer(given)
    request, lifetime = given["request"].encode("latin-1"), timedelta(seconds=float(given["seconds"]))
    if "ended" in given:
        check_same_key(authority, given["ended"].encode("latin-1"), request)
    made = certify(authority, request, peer, lifetime=lifetime)
    return {"certificate": made.decode("ascii"), "hash": requested_key_hash(request)}


def _own(given: dict[str, str]) -> dict[str, str]:
    from common.trust.signing import certify, make_key, make_request

    authority, peer = _signer(given)
    key = make_key()
    made = certify(authority, make_request(key), peer)
    return {"key": key.decode("ascii"), "certificate": made.decode("ascii")}


def _authority(given: dict[str, str]) -> dict[str, str]:
    from common.trust.signing import make_authority

    made = make_authority(given["mesh"], of=given["of"])
    return {"key": made.key.decode("ascii"), "certificate": made.certificate.decode("ascii")}


def _sign(given: dict[str, str]) -> dict[str, str]:
    from common.trust.signing import signature

    return {"signature": signature(given["key"].encode("latin-1"), bytes.fromhex(given["content"])).hex()}


_DUTIES: dict[str, Callable[[dict[str, str]], dict[str, str]]] = {
    "certify": _certify, "own": _own, "authority": _authority, "sign": _sign
}  # fmt: skip


def main() -> None:
    """Do one duty: named by the argument, asked on stdin, answered on stdout."""
    try:
        answer = _DUTIES[sys.argv[1]](json.loads(sys.stdin.buffer.read()))
    except ShardmeshError as error:
        answer = {"reason": error.reason, "message": str(error)}
    sys.stdout.write(json.dumps(answer))


if __name__ == "__main__":
    give_way()  # who asks for certificates waits for whom this device answers
    main()
