"""Small models in slices whose tiles lie in packs: matrices have encodings of their own, though all are plain numbers.

    request = packed_request(checkpoint, directory, world_size=4)
    ensure_slices(checkpoint, request, redo=False, progress=no_progress)

Covers: a model whose heads and columns are cut at many places, what there is of it on disk, tile by tile.
Does not cover: blocks of GGUF files, slices of one dtype (sliced_models.py).
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from common.model.model_spec import ModelSpec
from common.model.plan import make_plan
from common.weights.manifest import read_manifest
from common.weights.model_encodings import AS_THE_FILE, MATRICES, LayerEncodings, ModelEncodings
from common.weights.slice_description import COORDINATOR_RANK, SliceDescription
from common.weights.tile_places import tile_places
from coordinator.checkpoints.checkpoint import Checkpoint, open_checkpoint
from coordinator.slicing.split_request import SplitRequest
from coordinator.slicing.splitter import ensure_slices
from tests.support.random_models import build, save

TILE_BYTES = 32768
"""A cell is one KV head, or 32 columns: plans of few nodes cut mostly between cells."""


def finely_cut_checkpoint(directory: Path, *, layers: int = 3, seed: int = 0) -> Checkpoint:
    """Return a model of about 7 MB, with twelve KV heads and 24 cells of FFN columns."""
    model = build(
        layers=layers, vocab_size=260, query_heads=12, kv_heads=12, hidden_size=192, intermediate_size=768, seed=seed
    )
    return open_checkpoint(save(model, directory))


def plain_encodings(spec: ModelSpec, encoding: str = "float32") -> ModelEncodings:
    """Return an encoding of its own for each matrix, all alike."""
    layer = LayerEncodings(**dict.fromkeys(MATRICES, encoding))
    return ModelEncodings(layers=(layer,) * spec.layer_count, embedding=encoding, head=encoding)


def packed_request(
    checkpoint: Checkpoint, directory: Path, *, world_size: int, strategy: str = "uniform", encoding: str = "float32",
    tile_bytes: int = TILE_BYTES,
) -> SplitRequest:  # fmt: skip
    """Return what to cut."""
    spec = checkpoint.spec
    return SplitRequest(
        plan=make_plan(spec, strategy, world_size), dtype=AS_THE_FILE, tile_bytes=tile_bytes,
        encodings=plain_encodings(spec, encoding), directory=directory,
    )  # fmt: skip


def cut(checkpoint: Checkpoint, request: SplitRequest, *, redo: bool = False) -> int:
    """Cut, and return the bytes of tiles that were written."""
    reports = [(0, 0)]
    ensure_slices(checkpoint, request, redo=redo, progress=lambda *report: reports.append(report))
    assert [done for done, _ in reports] == sorted({done for done, _ in reports})
    return reports[-1][0]


def packed_description(
    checkpoint: Checkpoint, *, world_size: int, strategy: str = "uniform", rank: int = COORDINATOR_RANK,
    tile_bytes: int = TILE_BYTES,
) -> SliceDescription:  # fmt: skip
    """Return what one rank's slice is."""
    request = packed_request(checkpoint, Path(), world_size=world_size, strategy=strategy, tile_bytes=tile_bytes)
    return request.slice_of(checkpoint, rank)


def tile_bytes_of(description: SliceDescription) -> int:
    """Return the bytes of a slice's tiles."""
    return sum(tile.byte_count for layout in description.layouts().values() for tile in layout.tiles)


def contents_of(directory: Path) -> dict[str, list[str]]:
    """Return the SHA-256 of every tile of a slice, by block, after a comparison with what its manifest says."""
    manifest = read_manifest(directory)
    found: dict[str, list[str]] = {}
    for name, places in tile_places(directory, manifest).items():
        found[name] = []
        for place in places:
            with open(place.path, "rb") as file:
                file.seek(place.offset)
                found[name].append(hashlib.sha256(file.read(place.byte_count)).hexdigest())
        assert found[name] == [tile.sha256 for tile in manifest.tiles[name]], name
    return found
