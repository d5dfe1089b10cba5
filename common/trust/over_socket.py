"""What do both kinds of TLS connections do with their sockets alike (native_tls.py, tls_connection.py)?"""

from __future__ import annotations

import socket
from collections.abc import Sequence


class OverSocket:
    """A connection over a socket, which it owns."""

    plain: socket.socket

    def sendall(self, data: bytes | memoryview) -> None:
        """Send all of it. Raises: OSError."""
        raise NotImplementedError

    def sendmsg(self, parts: Sequence[bytes | memoryview]) -> int:
        """Send all of several parts, and return how many bytes that were. Raises: OSError."""
        for part in parts:
            self.sendall(part)
        return sum(len(part) for part in parts)

    def shutdown(self, how: int) -> None:
        """End sending, receiving or both. From any thread. Raises: OSError."""
        self.plain.shutdown(how)

    def close(self) -> None:
        """Close the socket. May be called twice."""
        self.plain.close()
