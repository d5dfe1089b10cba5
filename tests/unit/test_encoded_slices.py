"""Are slices of a quantized file that file's own values, on any plan, and is what cannot be kept or believed refused?

Covers: every encoding through reader, slicing and tiles; files in parts; float32 slices of earlier versions; quantizing
on the way; damaged scales. Does not cover: answers (tests/golden/test_encoded_models.py), blocks (test_encodings.py),
where tiles lie (tests/property/test_encoded_format.py).
"""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest

from common.errors import CheckpointError, InputError
from common.weights.encodings import ENCODINGS, is_encoded
from common.weights.manifest import read_manifest
from common.weights.model_encodings import AS_THE_FILE
from common.weights.open_tiles import sweep_tiles
from common.weights.packed_blocks import unpacked
from common.weights.slice_format import TensorPlace, TileLayout
from common.weights.stored_numbers import Floats, widened
from common.weights.tile_tensors import stored_array
from coordinator.checkpoints.checkpoint import open_checkpoint
from coordinator.checkpoints.matrix_names import PROJECTIONS
from coordinator.models.local_model import LocalModel, ModelOptions
from coordinator.slicing.encoded_tiles import BY_INPUT
from tests.support.gguf_models import write_gguf
from tests.support.model_tensors import HEAD, RandomModel
from tests.support.random_blocks import encoded
from tests.support.random_models import build, save
from tests.support.sliced_models import no_progress

SIZES: dict[str, Any] = {
    "hidden_size": 256, "intermediate_size": 512, "query_heads": 4, "kv_heads": 2, "head_size": 64, "layers": 1,
    "vocab_size": 320,
}  # fmt: skip


def written(directory: Path, *encodings: str, parts: int = 0, **settings: Any) -> tuple[Path, RandomModel]:
    """Return a GGUF file whose matrices have these encodings in turn, and its values."""
    directory.mkdir(parents=True, exist_ok=True)
    plain = build(**SIZES | settings)
    names = [name for name, tensor in plain.tensors.items() if tensor.ndim > 1]
    model, blocks = encoded(plain, lambda name: encodings[names.index(name) % len(encodings)])
    return write_gguf(model, directory / "model.gguf", blocks=blocks, tensors_per_part=parts), model


def cut(path: Path, **options: Any) -> LocalModel:
    """Slice a model and return it, closed."""
    model = LocalModel(ModelOptions(model=path, **options))
    with closing(model):
        model.slice(no_progress)
    return model


def tiles_of(model: LocalModel, rank: int) -> list[tuple[TileLayout, memoryview]]:
    """Return the tiles of a rank's sweep and their bytes, read as nodes read them."""
    directory = model.split.slice_directory(rank)
    manifest = read_manifest(directory)
    layouts = [tile for name, layout in manifest.layouts().items() if "layer" in name for tile in layout.tiles]
    found = []
    for layout, at in zip(layouts, sweep_tiles(directory, manifest), strict=True):
        with at.path.open("rb") as file:
            file.seek(at.offset)
            found.append((layout, memoryview(file.read(at.byte_count))))
    return found


def values(place: TensorPlace, data: memoryview) -> Floats:
    """Return a tile's matrix as float32 [in, out]."""
    if not is_encoded(place.dtype):
        return widened(stored_array(place, data))
    own = np.frombuffer(data, np.uint8)[place.offset : place.offset + place.byte_count]
    return unpacked(place.dtype, own, *place.shape)


@pytest.mark.parametrize(
    ("encodings", "world_size", "strategy"),
    [((name.upper(), "F16"), 1 + index % 5, "uniform") for index, name in enumerate(ENCODINGS)]
    + [(("Q4_K", "Q6_K", "Q5_0"), 3, "ratio:3,1,1")],
)
def test_all_ranks_tiles_together_are_the_files_values(
    tmp_path: Path, encodings: tuple[str, ...], world_size: int, strategy: str
) -> None:
    """Each matrix of the layer bit for bit as the gguf package dequantizes it, also where cuts go through blocks."""
    path, model = written(tmp_path, *encodings)
    ours = cut(path, world_size=world_size, split_strategy=strategy)
    assert ours.dtype == AS_THE_FILE
    whole = {name: np.full_like(model.floats(f"model.layers.0.{tensor}.weight"), np.nan) for name, tensor in
             PROJECTIONS.items()}  # fmt: skip
    for rank in range(world_size):
        for layout, data in tiles_of(ours, rank):
            for place in layout.tensors:
                scale = 1 if place.name in ("gate", "up", "down") else SIZES["head_size"]
                first, count = layout.first * scale, layout.count * scale
                if place.name in ("key", "value"):
                    first, count = layout.kv_first * scale, layout.kv_count * scale
                if place.name in BY_INPUT:
                    own = values(place, data)[layout.skip : layout.skip + count]
                    whole[place.name][:, first : first + count] = own.T
                else:
                    whole[place.name][first : first + count] = values(place, data).T
    for name, tensor in PROJECTIONS.items():
        assert np.array_equal(whole[name], model.floats(f"model.layers.0.{tensor}.weight")), name


def test_a_file_in_parts_is_one_model(tmp_path: Path) -> None:
    """Blocks are read from whichever part they are in."""
    path, model = written(tmp_path, "Q4_K", parts=4)
    assert len(list(tmp_path.glob("*.gguf"))) > 2
    with closing(open_checkpoint(path)) as checkpoint:
        rows = checkpoint.read_blocks(HEAD, 3, 9)
    assert np.array_equal(gguf.dequantize(rows, gguf.GGMLQuantizationType.Q4_K), model.floats(HEAD)[3:9])


@pytest.mark.parametrize("name", ["blk.0.ffn_down.weight", "blk.0.attn_q.weight", "token_embd.weight"])
def test_a_scale_that_is_no_number_is_refused_by_its_tensors_name(tmp_path: Path, name: str) -> None:
    """As every weight that is none: the model is damaged, and no node is to blame."""
    path, _ = written(tmp_path, "Q4_0")
    tensor = next(tensor for tensor in gguf.GGUFReader(path).tensors if tensor.name == name)
    with path.open("r+b") as file:
        file.seek(int(tensor.data_offset))
        file.write(b"\x00\x7e")
    with pytest.raises(CheckpointError, match=name):
        cut(path)


def test_other_encodings_become_float32_and_are_named(tmp_path: Path) -> None:
    """What slices cannot keep is said; the others of the file are kept all the same."""
    plain = build(**SIZES)
    blocks = {}
    kind = gguf.GGMLQuantizationType.TQ2_0
    for name in ("model.layers.0.mlp.up_proj.weight",):
        blocks[name] = "TQ2_0", gguf.quantize(plain.floats(name), kind)
    path = write_gguf(plain, tmp_path / "model.gguf", quantization="Q8_0", blocks=blocks)
    with closing(open_checkpoint(path)) as checkpoint:
        assert checkpoint.widened == ("TQ2_0",)
        assert checkpoint.encodings is not None
        assert checkpoint.encodings.layers[0].up == "float32"
        assert checkpoint.encodings.layers[0].gate == "q8_0"


def test_float32_slices_of_an_earlier_version_go_on_working(tmp_path: Path) -> None:
    """Until they are made again, which the report says is worth it."""
    path, _ = written(tmp_path, "Q4_0")
    cut(path, weights_dtype="float32")
    kept = cut(path)
    assert kept.dtype == "float32"
    assert kept.widened_bytes is not None
    assert kept.widened_bytes[0] > 5 * kept.widened_bytes[1]
    again = cut(path, split_bin=True)
    assert again.dtype == AS_THE_FILE
    assert again.widened_bytes is None
    assert cut(path).dtype == AS_THE_FILE


@pytest.mark.parametrize(("dtype", "least", "most"), [("q8_0", 8.4, 8.6), ("q4_0", 4.5, 5.6)])
def test_a_full_checkpoint_is_quantized_on_its_way(tmp_path: Path, dtype: str, least: float, most: float) -> None:
    """As the gguf package quantizes; of four bits, values, embedding and head keep eight."""
    model = build(**SIZES)
    ours = cut(save(model, tmp_path), weights_dtype=dtype)
    (attention, data), *_ = tiles_of(ours, 0)
    places = {place.name: place for place in attention.tensors}
    assert places["value"].dtype == "q8_0"
    assert places["query"].dtype == dtype
    kind = gguf.GGMLQuantizationType[dtype.upper()]
    source = model.floats("model.layers.0.self_attn.q_proj.weight")
    assert np.array_equal(values(places["query"], data).T, gguf.dequantize(gguf.quantize(source, kind), kind))
    bits = [8 * place.byte_count / np.prod(place.shape) for place in attention.tensors]
    assert least <= sum(bits) / len(bits) <= most


def test_a_model_without_blocks_cannot_keep_them(tmp_path: Path) -> None:
    """`gguf` names what to use instead."""
    with pytest.raises(InputError, match="q8_0"):
        cut(save(build(**SIZES), tmp_path), weights_dtype=AS_THE_FILE)
