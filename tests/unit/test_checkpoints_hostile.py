"""Is every damaged or hostile weight file refused in one line that names it?

Does not cover: missing and surplus files (test_checkpoints_files.py), configurations (test_families.py).
"""

from __future__ import annotations

import json
import struct
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from common.errors import CheckpointError, ModelError, UnsupportedModel
from coordinator.checkpoints.checkpoint import open_checkpoint
from tests.support.damaged_models import WEIGHT_FILES, refusal, rewrite_safetensors, saved
from tests.support.random_models import FORMATS, Format


@pytest.mark.parametrize("fmt", ["safetensors", "bin", "gguf"])
@pytest.mark.parametrize("kept", [0.0, 0.001, 0.02, 0.5, 0.999])
def test_a_truncated_file_is_refused_at_opening(tmp_path: Path, fmt: Format, kept: float) -> None:
    """Cut anywhere, a file is found out before anything is built from it."""
    saved(tmp_path, fmt)
    path = tmp_path / WEIGHT_FILES[fmt]
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * kept)])
    assert path.name in refusal(tmp_path)


@pytest.mark.parametrize("fmt", ["safetensors", "bin", "gguf"])
def test_a_file_truncated_after_opening_is_an_error_and_not_a_crash(tmp_path: Path, fmt: Format) -> None:
    """Bytes are read and not mapped: no SIGBUS."""
    checkpoint = open_checkpoint(saved(tmp_path, fmt))
    path = tmp_path / WEIGHT_FILES[fmt]
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(CheckpointError, match="bytes early"):
        checkpoint.read("model.layers.0.mlp.down_proj.weight")
    path.unlink()
    with pytest.raises(CheckpointError, match="cannot be read"):
        checkpoint.read("model.layers.0.mlp.down_proj.weight")


@pytest.mark.parametrize("fmt", ["safetensors", "bin", "gguf"])
@pytest.mark.parametrize("content", [b"garbage", b"\0" * 4096, b"GGUF" + b"\xff" * 4096, b"PK\3\4" + b"\0" * 4096])
def test_garbage_is_refused(tmp_path: Path, fmt: Format, content: bytes) -> None:
    """Whatever the file is, it is not weights."""
    saved(tmp_path, fmt)
    (tmp_path / WEIGHT_FILES[fmt]).write_bytes(content)
    assert WEIGHT_FILES[fmt] in refusal(tmp_path)


class Payload:
    """Pickled, it becomes a call that leaves a mark."""

    def __init__(self, mark: Path) -> None:
        self._mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self._mark,)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_that_executes_code_is_never_executed(tmp_path: Path, zipped: bool) -> None:
    """The payload's mark does not appear, in the new format or the old."""
    torch = pytest.importorskip("torch")
    saved(tmp_path, "bin")
    mark = tmp_path / "executed"
    payload = {"model.norm.weight": Payload(mark)}
    torch.save(payload, tmp_path / "pytorch_model.bin", _use_new_zipfile_serialization=zipped)
    message = refusal(tmp_path)
    assert "pytorch_model.bin" in message
    assert ("execute code" in message) == zipped
    assert not mark.exists()


def test_the_old_bin_format_is_refused_with_a_way_out(tmp_path: Path) -> None:
    """From before PyTorch 1.6: it could only be loaded whole."""
    torch = pytest.importorskip("torch")
    saved(tmp_path, "bin")
    state = torch.load(tmp_path / "pytorch_model.bin", weights_only=True)
    torch.save(state, tmp_path / "pytorch_model.bin", _use_new_zipfile_serialization=False)
    assert "before PyTorch 1.6" in refusal(tmp_path)


OTHER_THINGS: dict[str, Callable[[Any], object]] = {
    "a list": lambda torch: [torch.ones(2)],
    "a number": lambda torch: {"model.norm.weight": 3},
    "a dictionary in it": lambda torch: {"model": {"norm.weight": torch.ones(2)}},
    "a name that is none": lambda torch: {3: torch.ones(2)},
    "a sparse tensor": lambda torch: {"model.norm.weight": torch.eye(4).to_sparse()},
}


@pytest.mark.parametrize("thing", OTHER_THINGS)
def test_a_bin_file_of_other_things_is_refused(tmp_path: Path, thing: str) -> None:
    """A dictionary of plain tensors, and nothing else."""
    torch = pytest.importorskip("torch")
    saved(tmp_path, "bin")
    torch.save(OTHER_THINGS[thing](torch), tmp_path / "pytorch_model.bin")
    assert "pytorch_model.bin" in refusal(tmp_path)


def test_a_tensor_larger_than_its_storage_takes_no_memory(tmp_path: Path) -> None:
    """A terabyte that a pickle makes of four bytes is refused by its shape."""
    torch = pytest.importorskip("torch")
    saved(tmp_path, "bin")
    state = torch.load(tmp_path / "pytorch_model.bin", weights_only=True)
    state["model.norm.weight"] = torch.ones(1).expand(1 << 38)
    torch.save(state, tmp_path / "pytorch_model.bin")
    assert "model.norm.weight" in refusal(tmp_path)


def test_a_transposed_bin_tensor_reads_in_its_own_order(tmp_path: Path) -> None:
    """Strides of the file do not show."""
    torch = pytest.importorskip("torch")
    saved(tmp_path, "bin")
    state = torch.load(tmp_path / "pytorch_model.bin", weights_only=True)
    name = "model.layers.0.mlp.up_proj.weight"
    wanted = state[name].clone()
    state[name] = wanted.T.contiguous().T
    torch.save(state, tmp_path / "pytorch_model.bin")
    read = open_checkpoint(tmp_path).read(name)
    assert read.flags.c_contiguous
    assert np.array_equal(read, wanted.numpy())
    assert np.array_equal(open_checkpoint(tmp_path).read_rows(name, 5, 90), wanted.numpy()[5:90])


def test_a_bin_without_torch_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything else is read without it; whoever cannot install it can convert the model."""
    (saved(tmp_path) / "model.safetensors").rename(tmp_path / "pytorch_model.bin")
    monkeypatch.setitem(sys.modules, "torch", None)
    message = refusal(tmp_path, UnsupportedModel)
    assert all(words in message for words in ("pytorch_model.bin", "shardmesh[torch]", "without CUDA", "safetensors"))
    assert "GPU=1" not in message  # which brings 3 GB to read a pickle


def test_a_missing_tensor_is_named(tmp_path: Path) -> None:
    """All that the configuration needs must be there."""
    saved(tmp_path)
    rewrite_safetensors(tmp_path, lambda state: state.pop("model.layers.0.mlp.up_proj.weight"))
    assert "model.layers.0.mlp.up_proj.weight" in refusal(tmp_path)


def test_an_untied_model_needs_its_head(tmp_path: Path) -> None:
    """Only tied embeddings do without."""
    saved(tmp_path)
    rewrite_safetensors(tmp_path, lambda state: state.pop("lm_head.weight"))
    assert "lm_head.weight" in refusal(tmp_path)


def test_a_wrong_shape_is_named_with_both_shapes(tmp_path: Path) -> None:
    """The configuration says what a shape must be."""
    saved(tmp_path)
    rewrite_safetensors(tmp_path, lambda state: state.update({"model.norm.weight": np.ones(65, dtype=np.float32)}))
    message = refusal(tmp_path)
    assert "model.norm.weight" in message
    assert "[65]" in message
    assert "[64]" in message


@pytest.mark.parametrize(("encoding", "dtype"), [("F64", "f8"), ("I8", "i1"), ("U16", "i2"), ("F8_E4M3", "i1")])
def test_a_dtype_that_is_not_weights_is_refused(tmp_path: Path, encoding: str, dtype: str) -> None:
    """Quantized formats of other programs look like small integers."""
    path = saved(tmp_path) / "model.safetensors"
    name = "model.layers.0.mlp.up_proj.weight"
    rewrite_safetensors(tmp_path, lambda state: state.update({name: state[name].astype(dtype)}))
    data = path.read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:start])
    header[name]["dtype"] = encoding
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data[start:])
    message = refusal(tmp_path)
    assert name in message
    assert encoding in message


@pytest.mark.parametrize(
    "name",
    [
        "model.layers.0.self_attn.q_proj.bias",
        "model.layers.0.self_attn.q_norm.weight",
        "model.layers.0.mlp.experts.0.up_proj.weight",
        "model.layers.1.mlp.up_proj.weight",
        "lm_head.bias",
        "visual.\nblocks.weight",
    ],
)
def test_weights_that_would_be_left_out_are_refused_by_name(tmp_path: Path, name: str) -> None:
    """A bias, norm, expert or layer that the spec lacks changes the maths."""
    saved(tmp_path)
    rewrite_safetensors(tmp_path, lambda state: state.update({name: np.ones(64, dtype=np.float32)}))
    assert repr(name) in refusal(tmp_path, UnsupportedModel)


def test_a_gguf_header_that_announces_too_much_is_refused_at_once(tmp_path: Path) -> None:
    """Counts and lengths are compared with the file before they are believed."""
    path = tmp_path / "model.gguf"
    for tensor_count, entry_count, rest in (
        (1 << 60, 0, b""),
        (0, 1 << 60, b""),
        (0, 1, struct.pack("<Q", 1 << 60)),
        (0, 1, struct.pack("<Q1sIIQ", 1, b"k", 9, 4, 1 << 40)),
        (0, 1, struct.pack("<Q1sIIQ", 1, b"k", 9, 9, 1)),
    ):
        path.write_bytes(struct.pack("<4sIQQ", b"GGUF", 3, tensor_count, entry_count) + rest + b"\0" * 64)
        assert "model.gguf" in refusal(path)


@pytest.mark.parametrize("version", [1, 4, 3 << 24])
def test_a_gguf_of_another_version_or_byte_order_is_refused(tmp_path: Path, version: int) -> None:
    """Version 1 had other lengths; a big-endian file shows its version turned round."""
    path = saved(tmp_path, "gguf")
    data = bytearray(path.read_bytes())
    data[4:8] = struct.pack("<I", version)
    path.write_bytes(data)
    assert "version" in refusal(path)


@pytest.mark.parametrize("fmt", FORMATS)
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_flipped_bytes_never_get_past_the_error_tree(tmp_path: Path, fmt: Format, data: st.DataObject) -> None:
    """A damaged file opens (the damage is in a weight) or is refused in one line; nothing else happens."""
    if not (tmp_path / "config.json").exists() and not (tmp_path / "model.gguf").exists():
        saved(tmp_path, fmt)
    candidates = [*tmp_path.glob("*.safetensors"), *tmp_path.glob("*.bin"), *tmp_path.glob("*.gguf")]
    path = data.draw(st.sampled_from(sorted(candidates)))
    whole = path.read_bytes()
    damaged = bytearray(whole)
    near_the_ends = st.integers(0, min(5000, len(whole) - 1)) | st.integers(-min(3000, len(whole)), -1)
    for position in data.draw(st.lists(near_the_ends, min_size=1, max_size=4)):
        damaged[position] = data.draw(st.integers(0, 255))
    path.write_bytes(damaged)
    message = ""
    try:
        open_checkpoint(tmp_path).close()
    except ModelError as error:
        message = str(error)
    finally:
        path.write_bytes(whole)
    assert "\n" not in message


def rezipped(path: Path, change: Callable[[str, bytes], tuple[bytes, int]]) -> None:
    """Write a `.bin` anew with every record passed through `change`, which returns its bytes and compression."""
    with zipfile.ZipFile(path) as archive:
        records = {entry.filename: archive.read(entry) for entry in archive.infolist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in records.items():
            changed, compression = change(name, data)
            archive.writestr(name, changed, compress_type=compression)


def test_a_compressed_bin_is_refused_before_it_can_swell(tmp_path: Path) -> None:
    """torch.save compresses nothing: a small file that becomes a large one is none of its."""
    saved(tmp_path, "bin")
    path = tmp_path / "pytorch_model.bin"
    rezipped(path, lambda _, data: (data, zipfile.ZIP_DEFLATED))
    assert "compressed" in refusal(tmp_path)


def test_a_big_endian_bin_is_refused(tmp_path: Path) -> None:
    """Its numbers would be read backwards."""
    saved(tmp_path, "bin")
    path = tmp_path / "pytorch_model.bin"
    rezipped(path, lambda name, data: (b"big" if name.endswith("/byteorder") else data, zipfile.ZIP_STORED))
    assert "big-endian" in refusal(tmp_path)


def test_a_bin_tensor_cannot_reach_beyond_its_record(tmp_path: Path) -> None:
    """Records that are shorter than the pickle says, or elsewhere, are never read past."""
    saved(tmp_path, "bin")
    path = tmp_path / "pytorch_model.bin"
    rezipped(path, lambda name, data: (data[:-4] if "/data/" in name else data, zipfile.ZIP_STORED))
    assert "damaged" in refusal(tmp_path)
