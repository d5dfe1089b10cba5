"""Where are the functions of the OpenSSL that Python's own ssl module uses, and what do they take?

    found = libssl()        # None: this Python has another library, or keeps it to itself; Python's ssl does all then

Covers: finding them through that very module, so that it is the same library with the same settings of the system;
their arguments; what has gone wrong, in words. Does not cover: what they are called for (native_tls.py), the hot path
(common/native/exchange.c, which gets the addresses of some).

Only functions that OpenSSL documents and whose form has not changed since 3.0 are here. Python's own objects of TLS are
never looked into.
"""

from __future__ import annotations

import ctypes
import functools
import ssl

from common.native.peers import TlsFunctions

LEAST_VERSION = (3, 0)
_POINTER, _INT, _LONG, _TEXT, _SIZE = ctypes.c_void_p, ctypes.c_int, ctypes.c_long, ctypes.c_char_p, ctypes.c_size_t
_DECLARED: dict[str, tuple[object, tuple[object, ...]]] = {
    "TLS_client_method": (_POINTER, ()),
    "TLS_server_method": (_POINTER, ()),
    "SSL_CTX_new": (_POINTER, (_POINTER,)),
    "SSL_CTX_free": (None, (_POINTER,)),
    "SSL_CTX_ctrl": (_LONG, (_POINTER, _INT, _LONG, _POINTER)),
    "SSL_CTX_set_options": (ctypes.c_uint64, (_POINTER, ctypes.c_uint64)),
    "SSL_CTX_set_verify": (None, (_POINTER, _INT, _POINTER)),
    "SSL_CTX_get0_param": (_POINTER, (_POINTER,)),
    "SSL_CTX_set_session_id_context": (_INT, (_POINTER, _TEXT, ctypes.c_uint)),
    "SSL_CTX_set_num_tickets": (_INT, (_POINTER, _SIZE)),
    "SSL_CTX_use_certificate_chain_file": (_INT, (_POINTER, _TEXT)),
    "SSL_CTX_use_PrivateKey_file": (_INT, (_POINTER, _TEXT, _INT)),
    "SSL_CTX_check_private_key": (_INT, (_POINTER,)),
    "SSL_CTX_load_verify_locations": (_INT, (_POINTER, _TEXT, _TEXT)),
    "X509_VERIFY_PARAM_set_flags": (_INT, (_POINTER, ctypes.c_ulong)),
    "X509_VERIFY_PARAM_set_hostflags": (None, (_POINTER, ctypes.c_uint)),
    "X509_VERIFY_PARAM_set1_host": (_INT, (_POINTER, _TEXT, _SIZE)),
    "X509_verify_cert_error_string": (_TEXT, (_LONG,)),
    "X509_free": (None, (_POINTER,)),
    "i2d_X509": (_INT, (_POINTER, ctypes.POINTER(_POINTER))),
    "SSL_new": (_POINTER, (_POINTER,)),
    "SSL_free": (None, (_POINTER,)),
    "SSL_ctrl": (_LONG, (_POINTER, _INT, _LONG, _TEXT)),
    "SSL_get0_param": (_POINTER, (_POINTER,)),
    "SSL_set_bio": (None, (_POINTER, _POINTER, _POINTER)),
    "SSL_set_accept_state": (None, (_POINTER,)),
    "SSL_set_connect_state": (None, (_POINTER,)),
    "SSL_do_handshake": (_INT, (_POINTER,)),
    "SSL_get_error": (_INT, (_POINTER, _INT)),
    "SSL_get_verify_result": (_LONG, (_POINTER,)),
    "SSL_get1_peer_certificate": (_POINTER, (_POINTER,)),
    "SSL_read": (_INT, (_POINTER, _POINTER, _INT)),
    "SSL_write": (_INT, (_POINTER, _POINTER, _INT)),
    "SSL_pending": (_INT, (_POINTER,)),
    "PEM_read_bio_X509": (_POINTER, (_POINTER, _POINTER, _POINTER, _POINTER)),
    "X509_get0_pubkey": (_POINTER, (_POINTER,)),
    "EVP_sha256": (_POINTER, ()),
    "EVP_MD_CTX_new": (_POINTER, ()),
    "EVP_MD_CTX_free": (None, (_POINTER,)),
    "EVP_DigestVerifyInit": (_INT, (_POINTER, _POINTER, _POINTER, _POINTER, _POINTER)),
    "EVP_DigestVerify": (_INT, (_POINTER, _TEXT, _SIZE, _TEXT, _SIZE)),
    "BIO_s_mem": (_POINTER, ()),
    "BIO_new": (_POINTER, (_POINTER,)),
    "BIO_free": (_INT, (_POINTER,)),
    "BIO_read": (_INT, (_POINTER, _POINTER, _INT)),
    "BIO_write": (_INT, (_POINTER, _POINTER, _INT)),
    "BIO_ctrl_pending": (_SIZE, (_POINTER,)),
    "ERR_get_error": (ctypes.c_ulong, ()),
    "ERR_clear_error": (None, ()),
    "ERR_reason_error_string": (_TEXT, (ctypes.c_ulong,)),
}
_GIVEN = {
    "read": "SSL_read", "write": "SSL_write", "get_error": "SSL_get_error", "take": "BIO_read", "put": "BIO_write",
    "pending": "BIO_ctrl_pending", "clear_errors": "ERR_clear_error",
}  # fmt: skip


class Libssl:
    """The library's functions, by their own names."""

    def __init__(self, library: ctypes.CDLL) -> None:
        """Declare them. Raises: AttributeError: one is not there."""
        self._library = library
        for name, (result, arguments) in _DECLARED.items():
            function = getattr(library, name)
            function.restype, function.argtypes = result, arguments
            setattr(self, name, function)
        self.given = TlsFunctions(**{
            field: ctypes.cast(getattr(library, name), ctypes.c_void_p).value for field, name in _GIVEN.items()
        })  # fmt: skip
        """What C is given."""

    def __getattr__(self, name: str) -> ctypes._NamedFuncPointer:
        raise AttributeError(f"{name} is not declared here")  # those that are lie beside it

    def error(self) -> ssl.SSLError:
        """Return the first thing that has gone wrong in this thread, and forget the rest."""
        reason = self._library.ERR_reason_error_string(self._library.ERR_get_error())
        self._library.ERR_clear_error()
        words = reason.decode("ascii", "replace") if reason else "it ended without a word"
        return ssl.SSLError(1, f"[SSL: {words.upper().replace(' ', '_')}] {words}")


@functools.cache
def libssl() -> Libssl | None:
    """Return the library, once a process; None: Python's ssl has to do."""
    if not ssl.OPENSSL_VERSION.startswith("OpenSSL ") or ssl.OPENSSL_VERSION_INFO < LEAST_VERSION:
        return None
    try:
        import _ssl  # what it is linked with is what is looked for

        return Libssl(ctypes.CDLL(_ssl.__file__))
    except (ImportError, AttributeError, OSError):  # built in, or linked with a library that nobody else sees
        return None
