"""How is the library of matrix kernels built? `python -m common.native.build`, and hatch_build.py at install, do it.

Covers: which compiler, which flags for which object, putting the library beside its source in one step; whether that is
needed, and which other machines it would run on.
Does not cover: loading it (library.py), builds that only check something (tests/support/toolchains.py).
Uses nothing but Python: it runs where nothing is installed yet.
"""

from __future__ import annotations

import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

SOURCE_DIRECTORY = Path(__file__).resolve().parent
LIBRARY = SOURCE_DIRECTORY / ("matmul.dylib" if sys.platform == "darwin" else "matmul.so")
COMPILERS = ("cc", "gcc", "clang")
FLAGS = ("-std=c11", "-O3", "-fPIC", "-fvisibility=hidden", "-ffp-contract=off", "-pthread", "-D_GNU_SOURCE")
STRICT_FLAGS = ("-Wall", "-Wextra", "-Werror")
"""What `make verify` adds."""
PLAIN_SOURCES = (
    "matmul.c", "many_rows.c", "ranges.c", "groups.c", "tiles.c", "layers.c", "conversions.c", "pack.c", "rounding.c",
    "rounded.c", "exchange.c", "rounds.c", "serving.c", "sweep.c", "tally.c", "sampling.c", "workers.c",
    "waiting.c",
)  # fmt: skip
KERNEL_SOURCES = ("blocks.c", "kernel.c", "gemm.c", "steps.c", "attend.c", "attend_block.c", "stored.c", "weigh.c")
INTEGER_SOURCE = "integers.c"
"""Which each of INTEGER_KERNELS compiles too, for instructions that whole numbers alone have."""
X86_KERNELS: dict[str, tuple[str, ...]] = {
    "avx512": ("-DSHARDMESH_AVX512", "-mavx512f", "-mfma"),
    "avx2": ("-DSHARDMESH_AVX2", "-mavx2", "-mfma", "-mf16c"),
}
ARM_KERNELS: dict[str, tuple[str, ...]] = {"neon": ("-DSHARDMESH_NEON",)}
X86_INTEGERS = {
    "avx512vnni": ("-DSHARDMESH_AVX512", "-DSHARDMESH_VNNI", "-mavx512f", "-mavx512bw", "-mavx512vnni", "-mfma"),
    "avx2": X86_KERNELS["avx2"],
}
ARM_INTEGERS = {"neon_dotprod": ("-DSHARDMESH_NEON", "-DSHARDMESH_DOTPROD", "-march=armv8.2-a+dotprod"), **ARM_KERNELS}
KERNELS = {"x86_64": X86_KERNELS, "amd64": X86_KERNELS, "aarch64": ARM_KERNELS, "arm64": ARM_KERNELS}
"""For each machine, the flags of each object that a kernel source becomes; matmul.c has the same list."""
INTEGER_KERNELS = {"x86_64": X86_INTEGERS, "amd64": X86_INTEGERS, "aarch64": ARM_INTEGERS, "arm64": ARM_INTEGERS}
COMPILE_LIMIT_SECONDS = 120.0
GLIBC_VERSION = re.compile(rb"\0GLIBC_2\.(\d+)(?:\.\d+)?(?=\0)")
"""As the table of an ELF file's strings names the versions of the C library that its functions are of."""
LEAST_GLIBC = 17
"""2.17: pip knows no older name on every machine, and no Python that we take runs on an older one."""


INSTALL_COMPILER = (
    "install gcc or clang and do this again, or install a wheel that `make wheel` made on another machine of this kind"
)
TAKE_TORCH = "compute with torch: pip install 'shardmesh[torch]', then --backend torch"


class BuildFailed(Exception):
    """There is no library now; one line says why, `remedy` what helps."""

    def __init__(self, reason: str, remedy: str = INSTALL_COMPILER) -> None:
        super().__init__(reason)
        self.remedy = remedy


def build(
    target: Path = LIBRARY, machine: str = "", compiler: Sequence[str] = (), more_flags: Sequence[str] = ()
) -> Path:
    """Compile the library to `target`, replacing it in one step, and return it.

    Args: machine: as uname calls it, when it is not this one; compiler: the command to use instead of the system's;
    more_flags: for the compiler and the linker, after our own. An install has none: a compiler that warns of more than
    ours do is no reason to go without kernels. Checks have STRICT_FLAGS.
    Raises: BuildFailed: no compiler, or it refuses; no kernels for this machine; the directory takes no file.
    """
    machine = machine or platform.machine()
    if reason := why_there_are_none(machine):
        raise BuildFailed(reason, TAKE_TORCH)
    command = [*(compiler or system_compiler())]
    try:
        with tempfile.TemporaryDirectory(prefix=".build-", dir=target.parent) as directory:
            library = _compile(Path(directory, target.name), command, more_flags, machine.lower())
            library.replace(target)
    except OSError as error:
        raise BuildFailed(f"{target.parent}: {error.strerror}", "mend that and do this again") from error
    return target


def why_there_are_none(machine: str = "") -> str:
    """Return why no compiler makes kernels for such a machine, this one if none is named; empty where one does."""
    machine = machine or platform.machine()
    is_known = os.name == "posix" and machine.lower() in KERNELS
    return "" if is_known else f"there are none for {platform.system()} on {machine}"


def _compile(library: Path, command: Sequence[str], more_flags: Sequence[str], machine: str) -> Path:
    """Make the library, and its objects beside it."""

    def compile_one(item: tuple[str, str, tuple[str, ...]]) -> str:
        source, name, flags = item
        result = str(library.with_name(name))
        _run([*command, *FLAGS, *flags, *more_flags, "-c", str(SOURCE_DIRECTORY / source), "-o", result])
        return result

    with ThreadPoolExecutor() as pool:
        objects = list(pool.map(compile_one, _objects(machine)))
    _run([*command, *more_flags, "-shared", "-pthread", "-o", str(library), *objects, "-lm"])
    return library


def _objects(machine: str) -> list[tuple[str, str, tuple[str, ...]]]:
    """Return source, object and own flags of everything that is compiled."""
    plain: list[tuple[str, str, tuple[str, ...]]] = [(source, f"{source}.o", ()) for source in PLAIN_SOURCES]
    kernels = [
        (source, f"{name}-{source}.o", flags) for name, flags in KERNELS[machine].items() for source in KERNEL_SOURCES
    ]
    integers = [
        (INTEGER_SOURCE, f"{name}-{INTEGER_SOURCE}.o", flags) for name, flags in INTEGER_KERNELS[machine].items()
    ]
    return kernels + integers + plain


def system_compiler() -> list[str]:
    """Return $CC, or the first compiler that there is. Raises: BuildFailed: there is none."""
    named = shlex.split(os.environ.get("CC", ""))
    if named:
        return named
    for name in COMPILERS:
        if shutil.which(name):
            return [name]
    raise BuildFailed(f"there is no C compiler ({', '.join(COMPILERS)}; $CC may name another)")


def _run(command: Sequence[str]) -> None:
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=COMPILE_LIMIT_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise BuildFailed(f"{command[0]} did not run: {error}") from error
    if done.returncode != 0:
        lines = (done.stderr or done.stdout).strip().splitlines() or ["no message"]
        reason = next((line for line in lines if "error" in line), lines[0])
        raise BuildFailed(f"{command[0]} refused: {reason}")


def is_fresh(library: Path = LIBRARY) -> bool:
    """Tell whether the library is there and newer than all that it is made from."""
    sources = [*SOURCE_DIRECTORY.glob("*.[ch]"), Path(__file__)]
    return library.exists() and library.stat().st_mtime >= max(source.stat().st_mtime for source in sources)


def platform_tag(library: Path) -> str:
    """Return how wheels name the machines that this library runs on: their system, how old at most, and processor.

    Sources: PEP 600 (manylinux_2_17 and later), and pip's names for macOS.
    """
    machine = platform.machine().lower()
    if sys.platform == "darwin":
        least = os.environ.get("MACOSX_DEPLOYMENT_TARGET") or platform.mac_ver()[0]
        major, minor = (*least.split("."), "0")[:2]
        return f"macosx_{major}_{minor if major == '10' else 0}_{machine}"
    machine = {"amd64": "x86_64", "arm64": "aarch64"}.get(machine, machine)
    needed = [int(found) for found in GLIBC_VERSION.findall(library.read_bytes())]
    return f"manylinux_2_{max([*needed, LEAST_GLIBC])}_{machine}" if needed else f"linux_{machine}"


def what_to_do(error: BuildFailed) -> str:
    """Return the one line for a person who has no library now, and cannot compute on a CPU without it."""
    return f"shardmesh: there are no kernels to compute with, since {error}; {error.remedy}"


def how_to_build() -> str:
    """Return what builds the library where there is none: in a checkout, or where pip installed shardmesh."""
    if (SOURCE_DIRECTORY.parents[1] / "Makefile").exists():
        return "run `make setup`"
    return "install shardmesh anew (`pip install --force-reinstall --no-cache-dir` of it)"


def main() -> int:
    """Build the library and say where it is."""
    try:
        print(f"built {build()}")
    except BuildFailed as error:
        print(what_to_do(error), file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
