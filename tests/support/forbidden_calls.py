"""A program to which the kernel forbids what a unit's SystemCallFilter= does: here, changing its priority.

Covers: a filter of system calls (seccomp(2), a program of classic BPF) that outlives exec, on x86-64 and 64-bit Arm.
Does not cover: other calls, and real units (tests/systemd).
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
import sys
from pathlib import Path

_SETPRIORITY = {"x86_64": 141, "aarch64": 140}
_SET_NO_NEW_PRIVS, _SET_SECCOMP, _FILTER = 38, 22, 2
_LOAD, _JUMP_IF_EQUAL, _RETURN = 0x20, 0x15, 0x06
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000


def can_forbid() -> bool:
    """Say whether the call's number on this processor is known."""
    return sys.platform == "linux" and platform.machine() in _SETPRIORITY


def forbid_priorities() -> None:
    """Answer every setpriority of this process, and of what it starts, with EPERM. Raises: OSError: not to be had."""
    program = b"".join(struct.pack("HBBI", *step) for step in (
        (_LOAD, 0, 0, 0),  # the call's number
        (_JUMP_IF_EQUAL, 0, 1, _SETPRIORITY[platform.machine()]),
        (_RETURN, 0, 0, _ERRNO | errno.EPERM),
        (_RETURN, 0, 0, _ALLOW),
    ))  # fmt: skip
    held = ctypes.create_string_buffer(program, len(program))
    header = struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(held))
    libc = ctypes.CDLL(None, use_errno=True)
    for call in ((_SET_NO_NEW_PRIVS, 1, 0, 0, 0), (_SET_SECCOMP, _FILTER, header, 0, 0)):
        if libc.prctl(*call):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def interpreter_without_priorities(folder: Path) -> Path:
    """Return a program that is this interpreter, but may not change its priority."""
    program = folder / "python"
    program.write_text(
        f"#!{sys.executable}\n"
        "import os, sys\n"
        f"sys.path.insert(0, {str(Path(__file__).parents[2])!r})\n"
        f"from {__name__} import forbid_priorities\n"
        "forbid_priorities()\n"
        f"os.execv({sys.executable!r}, [{sys.executable!r}, *sys.argv[1:]])\n"
    )
    program.chmod(0o700)
    return program
