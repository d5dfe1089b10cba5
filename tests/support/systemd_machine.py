"""A machine with a systemd of its own, in a container, that this repository is installed on as on a real one.

    machine = Machine(base_system(), directory, {model: "/srv/model"})
    machine.run("systemctl", "is-active", "coordinator")
    machine.close()

Covers: a minimal Debian (made once and kept), booting it without changing it, programs in it, what systemd says.
Does not cover: what is installed and what has to hold (tests/systemd). Needs root, systemd-nspawn and mmdebstrap.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil
import pytest

from tests.support.cli import Running
from tests.support.machine_memory import TAKE_OVER, MachineMemory
from tests.support.waiting import wait_until

REPOSITORY = Path(__file__).resolve().parents[2]
INSTALLED = "/opt/shardmesh"
PYTHON, PACKAGES = "/opt/python", "/opt/packages"
"""Where the machine has this interpreter and what is installed beside it: the units hide /root and /home."""
BASE_VARIABLE = "SHARDMESH_SYSTEMD_BASE"
"""Names the directory that base systems are kept in, if not models/systemd-base."""
DEBIAN_PACKAGES = (
    "systemd", "systemd-sysv", "dbus", "iproute2",
    # What a Python that was built on a Debian, its standard library and torch are linked with.
    "libbz2-1.0", "libexpat1", "libffi8", "libgomp1", "liblzma5", "libncursesw6", "libreadline8", "libsqlite3-0",
    "libssl3", "libstdc++6", "libuuid1", "zlib1g",
)  # fmt: skip
ADDRESS = "192.0.2.10"
"""The machine's own, of those that documentation may use: no other machine has it, and no packet leaves."""
BOOT_SECONDS, RUN_SECONDS, POWER_OFF_SECONDS = 60.0, 60.0, 30.0
ENVIRONMENT = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"}


def why_not() -> str:
    """Return why there can be no such machine here; empty if there can."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "only root can boot a machine in a container, on Linux"
    missing = [name for name in ("systemd-nspawn", "mmdebstrap", "nsenter") if shutil.which(name) is None]
    if missing:
        return f"not installed: {', '.join(missing)} (Debian packages systemd-container, mmdebstrap, util-linux)"
    try:
        host = platform.freedesktop_os_release()
    except OSError:
        host = {}
    return "" if host.get("ID") == "debian" and host.get("VERSION_CODENAME") else "this machine is no Debian"


def base_system() -> Path:
    """Return a directory with a minimal Debian of this machine's release, made (half a minute, 200 MB) if need be."""
    release = platform.freedesktop_os_release()["VERSION_CODENAME"]
    kept = Path(os.environ.get(BASE_VARIABLE) or REPOSITORY / "models" / "systemd-base")
    contents = hashlib.sha256(" ".join(DEBIAN_PACKAGES).encode()).hexdigest()[:8]
    target = kept / f"{release}-{contents}"
    if target.is_dir():
        return target
    kept.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".part-", dir=kept) as part:
        made = subprocess.run(
            ["mmdebstrap", "--quiet", "--variant=minbase", f"--include={','.join(DEBIAN_PACKAGES)}", release,
             f"{part}/root"],
            capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False,
        )  # fmt: skip
        if made.returncode:
            pytest.skip(f"mmdebstrap could not make a Debian here: {made.stderr.strip()[-300:]}")
        Path(part, "root").rename(target)
    return target


class Machine:
    """A booted machine. Close it."""

    def __init__(
        self, base: Path, directory: Path, also: Mapping[Path, str] | None = None, *, disks: Sequence[str] = ()
    ) -> None:
        """Boot.

        Args: directory: for what is made on this side; also: what else the machine sees, and where; disks:
        directories of the machine that lie on this side's disk and not in memory, which their writers are charged for.
        """
        self.memory = MachineMemory.make()
        """What its systemd limits memory with; None: limits do nothing."""
        self._directory = directory
        self._log = directory / "boot.log"
        self._process = self._boot(base, also or {}, disks)
        try:
            wait_until(self._is_up, limit_seconds=BOOT_SECONDS, what="the machine is up")
        except AssertionError:
            self.close()
            pytest.skip(f"no machine can be booted here: {self._log.read_text(errors='replace')[-300:]}")
        self.must("ip", "address", "add", f"{ADDRESS}/24", "dev", "lo")
        # A Python that comes with a library of its own says where that was built, which is hidden.
        self.write("/etc/ld.so.conf.d/python.conf", f"{PYTHON}/lib\n")
        self.must("ldconfig")
        if self.memory is not None:
            self.must(*TAKE_OVER)
            self.must("systemctl", "daemon-reexec")
            wait_until(self._is_up, limit_seconds=BOOT_SECONDS, what="systemd has found the memory controller")

    def run(self, *command: str, given: str | None = None) -> subprocess.CompletedProcess[str]:
        """Run a program as the machine's root and wait for its end. Args: given: what it reads from stdin."""
        return subprocess.run(
            [*self._entering(), *command],
            input=given or "", capture_output=True, text=True, timeout=RUN_SECONDS, env=ENVIRONMENT, check=False,
        )  # fmt: skip

    def start(self, *command: str) -> Running:
        """Run a program as the machine's root; return while it runs."""
        out, err = self._directory / "out", self._directory / "err"
        with open(out, "wb") as out_file, open(err, "wb") as err_file:
            process = subprocess.Popen(
                [*self._entering(), *command],
                stdin=subprocess.DEVNULL, stdout=out_file, stderr=err_file, env=ENVIRONMENT,
            )  # fmt: skip
        return Running(process, out, err)

    def must(self, *command: str, given: str | None = None) -> str:
        """Run a program that has to end well and return its stdout."""
        done = self.run(*command, given=given)
        assert done.returncode == 0, f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout}{done.stderr}"
        return done.stdout

    def must_as_service_user(self, *command: str) -> str:
        """The same as the user that the coordinator runs as."""
        return self.must("runuser", "-u", "shardmesh-coordinator", "--", *command)

    def write(self, path: str, text: str) -> None:
        """Write a file of the machine, and the directory that it lies in."""
        self.must("mkdir", "-p", str(Path(path).parent))
        self.must("tee", path, given=text)

    def properties(self, service: str, *names: str) -> dict[str, str]:
        """Return what systemd knows about a service."""
        lines = self.must("systemctl", "show", service, f"--property={','.join(names)}").splitlines()
        return dict(line.split("=", 1) for line in lines)

    def property(self, service: str, name: str) -> str:
        """Return one thing that systemd knows about a service."""
        return self.properties(service, name)[name]

    def journal(self, service: str) -> str:
        """Return what a service and systemd have said about it."""
        self.must("journalctl", "--sync")
        return self.must("journalctl", "--unit", service, "--no-pager", "--output=cat")

    def close(self) -> None:
        """Switch it off."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)  # asks its systemd to power off
        try:
            self._process.wait(POWER_OFF_SECONDS)
        except subprocess.TimeoutExpired:
            for child in psutil.Process(self._process.pid).children():  # its process 1, which takes all others along
                child.kill()
            self._process.kill()
            self._process.wait()
        if self.memory is not None:
            self.memory.close()

    def _boot(self, base: Path, also: Mapping[Path, str], disks: Sequence[str]) -> subprocess.Popen[bytes]:
        mounts = {
            REPOSITORY: INSTALLED,
            _staged_venv(self._directory / "venv"): f"{INSTALLED}/.venv",
            Path(sys.base_prefix): PYTHON,
            Path(sysconfig.get_paths()["purelib"]): PACKAGES,
            **also,
        }
        # Over the base lies memory, so every boot begins with the same disk; of the host's mounts it sees ours.
        command = [
            "systemd-nspawn", f"--directory={base}", "--boot", "--volatile=overlay", "--private-network",
            f"--machine=shardmesh-{os.getpid()}", "--console=pipe", "--register=no", "--keep-unit",
            *(f"--bind-ro={here}:{there}" for here, there in mounts.items()),
            *(f"--bind={_made(self._directory / f'disk{number}')}:{there}" for number, there in enumerate(disks)),
        ]  # fmt: skip
        if self.memory is not None:
            command = self.memory.command(command)
        with open(self._log, "wb") as log:
            return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def _is_up(self) -> bool:
        if self._process.poll() is not None:
            raise AssertionError("systemd-nspawn has ended")
        return bool(self._leader()) and self.run("systemctl", "is-system-running").stdout.strip() in (
            "running", "degraded"
        )  # fmt: skip

    def _entering(self) -> list[str]:
        return ["nsenter", f"--target={self._leader()}", "--mount", "--uts", "--ipc", "--net", "--pid", "--"]

    def _leader(self) -> int:
        """Return the process that is 1 in the machine; 0 as long as there is none."""
        own = os.stat("/proc/self/ns/pid").st_ino
        children = (child.pid for child in psutil.Process(self._process.pid).children())
        return next((pid for pid in children if os.stat(f"/proc/{pid}/ns/pid").st_ino != own), 0)


def _made(directory: Path) -> Path:
    directory.mkdir()
    return directory


def _staged_venv(directory: Path) -> Path:
    """Make this interpreter's .venv anew as `make setup` in INSTALLED would have; its packages are only pointed to.

    Links in a .venv name where it was made, so this tree's own would not work there.
    """
    own = Path(sys.executable).parent
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    programs, packages = directory / "bin", directory / "lib" / version / "site-packages"
    programs.mkdir(parents=True)
    packages.mkdir(parents=True)
    (directory / "pyvenv.cfg").write_text(f"home = {PYTHON}/bin\ninclude-system-site-packages = false\n")
    (packages / "shardmesh.pth").write_text(f"{INSTALLED}\n{PACKAGES}\n")
    (programs / "python").symlink_to(f"{PYTHON}/bin/{version}")
    for name in ("shardnode", "coordinator", "coordinator-cli"):
        shutil.copy(own / name, programs)  # it takes the Python beside it
    return directory
