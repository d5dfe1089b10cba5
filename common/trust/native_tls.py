"""TLS for rounds by OpenSSL's own functions, so that C encrypts and decrypts between two system calls.

    handshakes = NativeHandshakes.client(identity)        # or .server(identity, authority)
    connection = handshakes.wrap(plain, peer.dns)
    connection.do_handshake()

Covers: who shows and believes what, to the letter as tls_contexts.py says it to Python's ssl; one connection with the
names of tls_connection.py. Does not cover: finding the library (libssl.py), which of the two is used (rounds_tls.py),
the hot path (common/native/exchange.c). Not safe for several threads, but one may send while no other does anything.
"""

from __future__ import annotations

import ctypes
import socket
import ssl

from common.machine.named_files import named_file
from common.native.peers import Tls
from common.trust.identity import Identity
from common.trust.libssl import Libssl
from common.trust.over_socket import OverSocket
from common.trust.tls_contexts import client_context, server_context

READ_BYTES = WRITE_BYTES = 1 << 18
"""As in tls_connection.py."""
_MIN_PROTOCOL, _TLS_1_3, _PEM, _VERIFY_OK = 123, 0x0304, 1, 0
_SERVER_NAME, _HOST_NAME, _NO_PARTIAL_WILDCARDS = 55, 0, 4
_VERIFY = {ssl.CERT_NONE: 0, ssl.CERT_OPTIONAL: 1, ssl.CERT_REQUIRED: 3}
"""SSL_VERIFY_PEER, and SSL_VERIFY_FAIL_IF_NO_PEER_CERT."""
_WANT_READ, _ZERO_RETURN = 2, 6


class NativeHandshakes:
    """How handshakes go: a context of OpenSSL, with the settings of one of Python's that is never used."""

    def __init__(self, found: Libssl, settings: ssl.SSLContext, identity: Identity, authority: bytes) -> None:
        """Args: settings: as Python's ssl would have it. Raises: OSError: these are no certificates."""
        self.found, self.is_server = found, settings.protocol == ssl.PROTOCOL_TLS_SERVER
        self.checks_name = settings.check_hostname
        method = found.TLS_server_method if self.is_server else found.TLS_client_method
        self.context: int = found.SSL_CTX_new(method())
        self._check(self.context)
        self._check(found.SSL_CTX_ctrl(self.context, _MIN_PROTOCOL, _TLS_1_3, None))
        found.SSL_CTX_set_options(self.context, int(settings.options) & 0xFFFFFFFFFFFFFFFF)
        found.SSL_CTX_set_verify(self.context, _VERIFY[settings.verify_mode], None)
        parameters = found.SSL_CTX_get0_param(self.context)
        self._check(found.X509_VERIFY_PARAM_set_flags(parameters, int(settings.verify_flags)))
        found.X509_VERIFY_PARAM_set_hostflags(parameters, _NO_PARTIAL_WILDCARDS)
        self._check(found.SSL_CTX_set_session_id_context(self.context, b"rounds", 6))
        self._check(found.SSL_CTX_set_num_tickets(self.context, 0))
        with named_file(identity.own.key + identity.own.certificate) as name:
            self._check(found.SSL_CTX_use_certificate_chain_file(self.context, name.encode()))
            self._check(found.SSL_CTX_use_PrivateKey_file(self.context, name.encode(), _PEM))
        self._check(found.SSL_CTX_check_private_key(self.context))
        with named_file(authority) as name:
            self._check(found.SSL_CTX_load_verify_locations(self.context, name.encode(), None))

    @classmethod
    def server(cls, found: Libssl, identity: Identity, authority: bytes) -> NativeHandshakes:
        """Return a server's. Args, Raises: as tls_contexts.server_context."""
        return cls(found, server_context(identity, authority), identity, authority)

    @classmethod
    def client(cls, found: Libssl, identity: Identity) -> NativeHandshakes:
        """Return a client's. Args, Raises: as tls_contexts.client_context."""
        return cls(found, client_context(identity), identity, identity.authority)

    def wrap(self, plain: socket.socket, server_hostname: str | None = None) -> NativeTlsConnection:
        """Return a connection over a connected socket that blocks; nothing is sent yet."""
        return NativeTlsConnection(plain, self, server_hostname)

    def __del__(self) -> None:
        """Let the context go once no connection needs it: each keeps this."""
        if context := getattr(self, "context", None):
            self.found.SSL_CTX_free(context)

    def _check(self, outcome: int | None) -> None:
        if not outcome or outcome < 0:
            raise self.found.error()


class NativeTlsConnection(OverSocket):
    """As TlsConnection, and C may take part. It owns the socket."""

    def __init__(self, plain: socket.socket, handshakes: NativeHandshakes, server_hostname: str | None) -> None:
        """Args: server_hostname: whom the peer has to be. Raises: OSError: there is no memory for it."""
        self.plain, self._handshakes = plain, handshakes  # the latter for as long as OpenSSL may look at it
        self._found = found = handshakes.found
        self._ssl: int = found.SSL_new(handshakes.context)
        if not self._ssl:
            raise found.error()
        self._in: int = found.BIO_new(found.BIO_s_mem())
        self._out: int = found.BIO_new(found.BIO_s_mem())
        found.SSL_set_bio(self._ssl, self._in, self._out)  # they are the connection's from now on
        (found.SSL_set_accept_state if handshakes.is_server else found.SSL_set_connect_state)(self._ssl)
        if server_hostname is not None:
            name = server_hostname.encode("ascii")
            found.SSL_ctrl(self._ssl, _SERVER_NAME, _HOST_NAME, name)
            if not found.X509_VERIFY_PARAM_set1_host(found.SSL_get0_param(self._ssl), name, len(name)):
                raise found.error()
        elif handshakes.checks_name:
            raise ValueError("a client has to say whom it wants")
        self._buffer = (ctypes.c_char * READ_BYTES)()
        self._view = memoryview(self._buffer).cast("B")
        self.native: Tls | None = Tls(ctypes.pointer(found.given), self._ssl, self._in, self._out)
        """What C is given; good as long as this is there."""

    def __del__(self) -> None:
        """Let its memory go. Not when it is closed: another thread may still be within a call."""
        if connection := getattr(self, "_ssl", None):
            self._found.SSL_free(connection)

    def do_handshake(self) -> None:
        """See TlsConnection."""
        while True:
            self._found.ERR_clear_error()
            outcome = self._found.SSL_do_handshake(self._ssl)
            if outcome == 1:
                self._send_out()
                return
            if self._found.SSL_get_error(self._ssl, outcome) != _WANT_READ:
                failed = self._handshake_error()
                self._send_out()  # why, so that the peer can say it
                raise failed
            self._send_out()
            if not self._take_in():
                raise ConnectionAbortedError("the peer broke off the handshake")

    @property
    def peer_certificate(self) -> bytes:
        """See TlsConnection."""
        certificate = self._found.SSL_get1_peer_certificate(self._ssl)
        if not certificate:
            return b""
        try:
            length = self._found.i2d_X509(certificate, None)
            written = (ctypes.c_char * max(length, 1))()
            place = ctypes.c_void_p(ctypes.addressof(written))
            return written.raw if self._found.i2d_X509(certificate, ctypes.byref(place)) == length > 0 else b""
        finally:
            self._found.X509_free(certificate)

    def sealed(self, framed: bytes) -> bytes:
        """See TlsConnection."""
        self._write(framed)
        return self.unsent()

    def unsent(self) -> bytes:
        """Return what is encrypted already and was not sent; whoever asks sends it."""
        count = self._found.BIO_ctrl_pending(self._out)
        if not count:
            return b""
        taken = ctypes.create_string_buffer(count)
        read = self._found.BIO_read(self._out, taken, count)
        return taken.raw[: max(0, read)]

    def opened(self, received: memoryview) -> bytes:
        """See TlsConnection; C gives what is decrypted already."""
        return bytes(received)

    def sendall(self, data: bytes | memoryview) -> None:
        """Send all of it. Raises: OSError."""
        view = memoryview(data).cast("B")
        for first in range(0, len(view), WRITE_BYTES):
            self._write(bytes(view[first : first + WRITE_BYTES]))
            self._send_out()

    def recv_into(self, view: memoryview) -> int:
        """See TlsConnection."""
        if not self.is_holding and not self._take_in():
            return 0
        place = ctypes.c_char.from_buffer(view)
        while True:
            self._found.ERR_clear_error()
            count: int = self._found.SSL_read(self._ssl, ctypes.byref(place), len(view))
            if count > 0:
                return count
            error = self._found.SSL_get_error(self._ssl, count)
            if error == _ZERO_RETURN:
                return 0
            if error != _WANT_READ:
                raise self._found.error()
            self._send_out()  # an answer to a change of keys, if anything
            if not self._take_in():
                return 0

    @property
    def is_holding(self) -> bool:
        """See TlsConnection."""
        return bool(self._found.SSL_pending(self._ssl) or self._found.BIO_ctrl_pending(self._in))

    def _write(self, data: bytes) -> None:
        self._found.ERR_clear_error()
        if data and self._found.SSL_write(self._ssl, data, len(data)) != len(data):
            raise self._found.error()

    def _send_out(self) -> None:
        if data := self.unsent():
            self.plain.sendall(data)

    def _take_in(self) -> int:
        count = self.plain.recv_into(self._view)
        if count and self._found.BIO_write(self._in, self._buffer, count) != count:
            raise self._found.error()
        return count

    def _handshake_error(self) -> ssl.SSLError:
        """Return why a handshake has failed."""
        verified = self._found.SSL_get_verify_result(self._ssl)
        failed = self._found.error()
        if verified == _VERIFY_OK or "certificate verify failed" not in str(failed):
            return failed
        words = self._found.X509_verify_cert_error_string(verified).decode("ascii", "replace")
        refused = ssl.SSLCertVerificationError(1, f"{failed.strerror}: {words}")
        refused.verify_code, refused.verify_message = verified, words
        return refused
