"""A device with a 64-bit Arm processor, emulated: Debian's Python for it, our dependencies' wheels, this checkout.

    device = arm_device(directory)          # raises Unreachable, in words
    shell.start_command(device.shardnode("--config", str(file)))

Covers: what is fetched (made once and kept), our packages with kernels of a cross compiler, how its programs are run.
Does not cover: the kernels alone (tests/kernels). Nothing of Debian's runs while it is unpacked, and nothing of this
machine is changed. Needs Debian's mmdebstrap, and the cross compiler and the emulator of toolchains.py.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import platform
import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from common.native.build import LIBRARY
from tests.support.fetched_packages import fetch
from tests.support.toolchains import ARM, ARM_GCC, HERE

REPOSITORY = Path(__file__).resolve().parents[2]
KEPT_VARIABLE = "SHARDMESH_ARM_DEVICE"
"""Names the directory that fetched packages are kept in, if not models/arm-device."""
DEBIAN_PACKAGES = ("python3-minimal", "libpython3-stdlib", "libc6", "libgcc-s1", "libstdc++6", "zlib1g")
"""40 MB to fetch, Debian's indexes among them."""
PYTHON_PACKAGES = (
    "numpy", "grpcio", "protobuf", "grpcio-health-checking", "grpcio-reflection", "xxhash", "typer", "rich", "psutil",
    "cryptography", "pyopenssl", "zeroconf", "prometheus-client",
)  # fmt: skip
"""What a node imports, of pyproject.toml; 35 MB to fetch."""
LOCK = REPOSITORY / "requirements.lock"
OURS = ("common", "shardnode", "protos")
FETCH_SECONDS = 300.0
OLDEST_GLIBC = 17
"""2.17; wheels for a later one than Debian's are not taken."""


@dataclass(frozen=True, kw_only=True)
class ArmDevice:
    """What its programs are made of."""

    root: Path
    """Debian's files."""
    python: str
    """The interpreter's name, such as python3.11."""
    packages: Path
    ours: Path

    def shardnode(self, *arguments: str) -> list[str]:
        """Return the command that runs shardnode as that processor would."""
        emulated = dataclasses.replace(ARM_GCC, root=str(self.root))
        interpreter = self.root / "usr" / "bin" / self.python
        path = f"PYTHONPATH={self.ours}:{self.packages}"
        return ["env", path, *emulated.command(interpreter, "-P", "-m", "shardnode", *arguments)]


def why_not() -> str:
    """Return why there can be no such device here; empty if there can."""
    if HERE == ARM:
        return "this machine has such a processor itself, and runs all other tests with it"
    if lacks := ARM_GCC.missing():
        return lacks
    if sys.platform != "linux" or os.geteuid() != 0 or shutil.which("mmdebstrap") is None:
        return "Debian's packages for another processor are unpacked by root's mmdebstrap"
    return "" if _release() else "this machine is no Debian, so it knows no source of Debian's packages"


def arm_device(directory: Path) -> ArmDevice:
    """Return a device with this checkout's programs, which are put into a directory. Raises: Unreachable."""
    kept = _kept_packages()
    (interpreter,) = (kept / "root" / "usr" / "bin").glob("python3.*[0-9]")
    ours = directory / "shardmesh"
    for package in OURS:
        shutil.copytree(
            REPOSITORY / package, ours / package, ignore=shutil.ignore_patterns("__pycache__", LIBRARY.name)
        )
    ARM_GCC.library(ours / "common" / "native")
    return ArmDevice(root=kept / "root", python=interpreter.name, packages=kept / "packages", ours=ours)


def _kept_packages() -> Path:
    """Return a directory with root and packages, made (a minute, 75 MB to fetch) if need be. Raises: Unreachable."""
    kept = Path(os.environ.get(KEPT_VARIABLE) or REPOSITORY / "models" / "arm-device")
    wanted = " ".join((*DEBIAN_PACKAGES, *PYTHON_PACKAGES, LOCK.read_text()))
    target = kept / f"{_release()}-{hashlib.sha256(wanted.encode()).hexdigest()[:8]}"
    if target.is_dir():
        return target
    kept.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".part-", dir=kept) as part:
        made = Path(part, "made")
        made.mkdir()
        _fetch_debian(made / "root")
        _fetch_wheels(made)
        made.rename(target)
    return target


def _fetch_debian(root: Path) -> None:
    """Unpack Debian's Python, of this machine's release."""
    included = f"--include={','.join(DEBIAN_PACKAGES)}"
    command = ["mmdebstrap", "--quiet", "--variant=extract", "--architectures=arm64", included, _release(), str(root)]
    fetch(command, "Debian's Python for arm64", limit_seconds=FETCH_SECONDS)


def _fetch_wheels(made: Path) -> None:
    """Unpack wheels of the locked versions, for the Python that is there."""
    (interpreter,) = (made / "root" / "usr" / "bin").glob("python3.*[0-9]")
    (library,) = (made / "root").glob("**/libc.so.6")
    newest = max(minor for minor in range(OLDEST_GLIBC, 100) if f"GLIBC_2.{minor}\0".encode() in library.read_bytes())
    platforms = [f"--platform=manylinux_2_{minor}_{ARM}" for minor in range(OLDEST_GLIBC, newest + 1)]
    command = [
        sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-compile",
        f"--target={made / 'packages'}", "--only-binary=:all:", "--implementation=cp",
        f"--python-version={interpreter.name.removeprefix('python')}", *platforms, f"--platform=manylinux2014_{ARM}",
        f"--constraint={LOCK}", *PYTHON_PACKAGES,
    ]  # fmt: skip
    fetch(command, "wheels for 64-bit Arm", limit_seconds=FETCH_SECONDS)


def _release() -> str:
    """Return what Debian calls its release here; empty: it is no Debian."""
    try:
        host = platform.freedesktop_os_release()
    except OSError:
        return ""
    return host.get("VERSION_CODENAME", "") if host.get("ID") == "debian" else ""
