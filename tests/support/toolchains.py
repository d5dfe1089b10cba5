"""Which compilers can build our kernels here, for which processors, and how do their programs run?

Covers: the system's gcc and clang; Debian's cross compiler for 64-bit Arm, whose programs an emulator runs.
Does not cover: which sources and flags make the library (common/native/build.py).
"""

from __future__ import annotations

import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from common.native.build import KERNELS, SOURCE_DIRECTORY, build

ARM = "aarch64"
ARM_ROOT = "/usr/aarch64-linux-gnu"
"""Where Debian puts the C library of 64-bit Arm."""
ARM_PACKAGES = "gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user"
EMULATORS = ("qemu-aarch64", "qemu-aarch64-static")
EMULATED = ("-DPREADV2_IGNORES_FLAGS",)
"""Of programs for an emulator: replay.c says why."""
ADDRESS_AND_UNDEFINED = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-O1", "-g")
THREAD = ("-fsanitize=thread", "-O1", "-g")
RUN_LIMIT_SECONDS = 120.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Toolchain:
    """One compiler for one kind of processor."""

    name: str
    machine: str
    """As uname calls it."""
    compiler: tuple[str, ...]
    emulators: tuple[str, ...] = ()
    """One of them runs what comes out, where this processor cannot."""
    root: str = ""
    """Where the C library for that processor lies, when it is another one than this."""
    packages: str
    """Of Debian, which bring all of it."""

    def missing(self) -> str:
        """Return why it cannot be used here, for a person; empty when it can."""
        if self.machine not in KERNELS:
            return f"there are no kernels for {self.machine}"
        has_emulator = not self.emulators or _first_there(self.emulators)
        has_library = not self.root or Path(self.root, "include", "stdio.h").is_file()
        lacks = not (shutil.which(self.compiler[0]) and has_emulator and has_library)
        return f"{self.name} is not here; on Debian: apt-get install {self.packages}" if lacks else ""

    def library(self, directory: Path, flags: Sequence[str] = ()) -> Path:
        """Build the library in a directory, with flags beside those of an install."""
        return build(directory / "matmul.so", self.machine, self.compiler, flags)

    def program(self, source: Path, *, library: Path | None = None, flags: Sequence[str] = ()) -> Path:
        """Build a program that may include our headers, beside the library if it uses that, and return it.

        Raises: subprocess.CalledProcessError: the compiler refuses; its messages are in the test's output.
        """
        target = (library.parent if library else source.parent) / f"{source.stem}-{self.name}"
        linked = [str(library), "-Wl,-rpath,$ORIGIN"] if library else []
        command = [
            *self.compiler, "-std=c11", "-D_GNU_SOURCE", "-pthread", "-Wall", "-Wextra", "-Werror", *flags,
            f"-I{SOURCE_DIRECTORY}", str(source), *linked, "-o", str(target),
        ]  # fmt: skip
        subprocess.run(command, check=True, timeout=RUN_LIMIT_SECONDS)
        return target

    def command(self, program: Path, *arguments: str) -> list[str]:
        """Return what runs a program that was built."""
        emulator = _first_there(self.emulators)
        return [*([emulator, "-L", self.root] if emulator else []), str(program), *arguments]


@cache
def _first_there(names: tuple[str, ...]) -> str:
    return next((name for name in names if shutil.which(name)), "")


HERE = {"arm64": ARM, "amd64": "x86_64"}.get(platform.machine(), platform.machine())
GCC = Toolchain(name="gcc", machine=HERE, compiler=("gcc",), packages="gcc libc6-dev")
CLANG = Toolchain(name="clang", machine=HERE, compiler=("clang",), packages="clang")
ARM_GCC = Toolchain(
    name="gcc-aarch64",
    machine=ARM,
    compiler=("aarch64-linux-gnu-gcc",),
    emulators=EMULATORS,
    root=ARM_ROOT,
    packages=ARM_PACKAGES,
)
TOOLCHAINS = (GCC, CLANG, ARM_GCC)


@cache
def sanitizer_prefix(flags: tuple[str, ...]) -> tuple[str, ...] | None:
    """Return what has to stand before a program that gcc builds with a sanitizer; None where none runs.

    The one for threads wants its memory where newer systems may put other things: setarch keeps those away.
    """
    if GCC.missing() or sys.platform != "linux":  # what macOS calls gcc is none, and loads libraries its own way
        return None
    with tempfile.TemporaryDirectory() as directory:
        source = Path(directory, "nothing.c")
        source.write_text("int main(void) { return 0; }")
        try:
            program = str(GCC.program(source, flags=flags))
        except subprocess.CalledProcessError:
            return None
        return next((prefix for prefix in ((), ("setarch", "-R")) if _runs([*prefix, program])), None)


def _runs(command: Sequence[str]) -> bool:
    try:
        return subprocess.run(command, capture_output=True, timeout=RUN_LIMIT_SECONDS, check=False).returncode == 0
    except OSError:
        return False
