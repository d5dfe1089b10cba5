"""Do embedding rows, norms and late biases come from the coordinator's slice as the model has them?

Covers: coordinator/engine/ends.py on slices of every dtype, and damaged files. Does not cover: the head (test_head.py).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from common.errors import InputError, SliceCorrupt, SliceError, SliceReadError
from common.weights.manifest import EMBEDDING_FILE, NORMS_FILE
from common.weights.stored_numbers import Floats
from coordinator.engine.ends import Ends
from tests.support.model_tensors import EMBEDDING
from tests.support.older_slices import make_older
from tests.support.random_models import build
from tests.support.sliced_models import SlicedModel, slice_model

VOCAB = 300


@pytest.fixture(scope="module")
def sliced(tmp_path_factory: pytest.TempPathFactory) -> SlicedModel:
    """Return a model with all late biases, its embedding in several tiles; nobody changes it."""
    model = build(layers=2, vocab_size=VOCAB, attention_bias=True, mlp_bias=True)
    return slice_model(tmp_path_factory.mktemp("sliced"), model=model)


@contextmanager
def opened(sliced: SlicedModel) -> Iterator[Ends]:
    """Open the ends, and fail when closing them leaves a file open."""
    before = len(os.listdir("/dev/fd"))
    ends = Ends(sliced.slice_directory(), sliced.manifest())
    try:
        yield ends
    finally:
        ends.close()
        ends.close()
    assert len(os.listdir("/dev/fd")) == before


def normed(sliced: SlicedModel, hidden: Floats, name: str) -> Floats:
    """Return rows by their root mean square times a norm of the model, computed in float64."""
    rows = hidden.astype(np.float64)
    found: Floats = rows / np.sqrt((rows**2).mean(axis=1, keepdims=True) + sliced.spec.norm_epsilon)
    return (found * sliced.model.floats(name)).astype(np.float32)


def damage(path: Path, offset: int) -> None:
    """Flip one bit."""
    data = bytearray(path.read_bytes())
    data[offset] ^= 1
    path.write_bytes(data)


def test_embedding_rows_are_the_models(sliced: SlicedModel) -> None:
    """Any tokens in any order, the first and last of every tile among them, one twice."""
    manifest = sliced.manifest()
    layouts = manifest.layouts()
    tiles = layouts[EMBEDDING_FILE].tiles
    assert len(tiles) > 3
    tokens = [5, 5, *(token for tile in tiles for token in (tile.first + tile.count - 1, tile.first))]
    with opened(sliced) as ends:
        assert np.array_equal(ends.embed(tokens), sliced.model.floats(EMBEDDING)[tokens])
        assert ends.embed([]).shape == (0, sliced.spec.hidden_size)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_rows_of_16_bits_are_widened_exactly(tmp_path: Path, dtype: str) -> None:
    """float32 out, the very numbers that are stored."""
    model = build(layers=1, vocab_size=260, dtype=dtype)
    sliced = slice_model(tmp_path, model=model, dtype=dtype)
    with opened(sliced) as ends:
        rows = ends.embed([3, 259])
        assert rows.dtype == np.float32
        assert np.array_equal(rows, model.floats(EMBEDDING)[[3, 259]])


@pytest.mark.parametrize("token", [-1, VOCAB, 1 << 40])
def test_a_token_outside_the_vocabulary_is_refused(sliced: SlicedModel, token: int) -> None:
    """Its row would be somebody else's bytes."""
    with opened(sliced) as ends, pytest.raises(InputError, match=f"vocabulary of {VOCAB}"):
        ends.embed([1, token])


def test_norms_are_the_models(sliced: SlicedModel) -> None:
    """Each layer's two norms and the last one, over rows of any scale."""
    scales = np.array([[1.0], [1e-3], [1e3]], np.float32)
    hidden = np.random.default_rng(1).standard_normal((3, 64), np.float32) * scales
    with opened(sliced) as ends:
        for layer in range(sliced.spec.layer_count):
            for kind, name in (("attention", "input_layernorm"), ("ffn", "post_attention_layernorm")):
                place = np.empty((3, 64), np.float32)
                expected = normed(sliced, hidden, f"model.layers.{layer}.{name}.weight")
                found = ends.residual.block_input(kind, layer, hidden, None)
                np.testing.assert_allclose(found, expected, atol=1e-5, rtol=1e-5)
                assert ends.residual.block_input(kind, layer, hidden, None, place) is place
                assert np.array_equal(place, found)
        np.testing.assert_allclose(
            ends.head_input(hidden), normed(sliced, hidden, "model.norm.weight"), atol=1e-5, rtol=1e-5
        )


def test_late_biases_are_added_once_and_in_place(sliced: SlicedModel) -> None:
    """The bias of o_proj and of down_proj, for each layer its own."""
    with opened(sliced) as ends:
        for layer in range(sliced.spec.layer_count):
            for kind, name in (("attention", "self_attn.o_proj"), ("ffn", "mlp.down_proj")):
                output = np.zeros((2, 64), np.float32)
                ends.residual.finish(kind, layer, output)
                bias = sliced.model.floats(f"model.layers.{layer}.{name}.bias")
                assert np.array_equal(output, np.broadcast_to(bias, (2, 64)))


def test_a_model_without_biases_adds_none(tmp_path: Path) -> None:
    """Most models have none."""
    with opened(slice_model(tmp_path)) as ends:
        output = np.ones((1, 64), np.float32)
        ends.residual.finish("attention", 0, output)
        ends.residual.finish("ffn", 1, output)
        assert np.array_equal(output, np.ones((1, 64), np.float32))


@pytest.mark.parametrize("age", ["new", "older"])
def test_a_flipped_bit_is_found_before_a_row_is_used(tmp_path: Path, age: str) -> None:
    """A damaged embedding tile is refused whenever one of its rows is asked for; the others still serve."""
    sliced = slice_model(tmp_path, model=build(layers=1, vocab_size=VOCAB))
    if age == "older":
        make_older(sliced.slice_directory())
    path = sliced.slice_directory() / EMBEDDING_FILE
    damage(path, path.stat().st_size - 5000)
    with opened(sliced) as ends:
        ends.embed([0])
        for _ in range(2):
            with pytest.raises(SliceCorrupt, match="--split-bin"):
                ends.embed([VOCAB - 1])
        ends.embed([0])


@pytest.mark.parametrize("age", ["new", "older"])
def test_damaged_norms_are_found_when_they_are_read(tmp_path: Path, age: str) -> None:
    """Norms touch every number of every answer."""
    sliced = slice_model(tmp_path)
    if age == "older":
        make_older(sliced.slice_directory())
    manifest = sliced.manifest()
    damage(sliced.slice_directory() / NORMS_FILE, 5000)
    before = len(os.listdir("/dev/fd"))
    with pytest.raises(SliceCorrupt, match="norms"):
        Ends(sliced.slice_directory(), manifest)
    assert len(os.listdir("/dev/fd")) == before


@pytest.mark.parametrize("name", [EMBEDDING_FILE, NORMS_FILE])
def test_a_file_that_is_gone_or_cut_short_is_an_error_that_names_it(tmp_path: Path, name: str) -> None:
    """Between the check of the sizes and the read, a file may have changed."""
    sliced = slice_model(tmp_path)
    manifest = sliced.manifest()
    path = sliced.slice_directory() / name
    os.truncate(path, path.stat().st_size - 4096)

    def use() -> None:
        ends = Ends(sliced.slice_directory(), manifest)
        try:
            ends.embed([259])
        finally:
            ends.close()

    with pytest.raises(SliceCorrupt, match=f"{name} is cut short"):
        use()
    path.unlink()
    with pytest.raises(SliceReadError, match=name):
        use()


def test_a_disk_that_fails_is_an_error_of_ours(sliced: SlicedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """EIO names the file."""
    with opened(sliced) as ends:

        def fail(*arguments: object) -> int:
            raise OSError(5, "Input/output error")

        monkeypatch.setattr(os, "preadv", fail)
        with pytest.raises(SliceError, match=r"embedding.*Input/output error"):
            ends.embed([1])


def test_bytes_read_are_counted(sliced: SlicedModel) -> None:
    """The norms at the start; for a row its tile once, to check it, and then the row alone."""
    manifest = sliced.manifest()
    with opened(sliced) as ends:
        start = ends.bytes_read_total
        assert start == manifest.files[NORMS_FILE].size_bytes - 4096
        ends.embed([0])
        first = ends.bytes_read_total - start
        ends.embed([0])
        assert ends.bytes_read_total - start - first == 64 * 4 < first
        assert ends.resident_bytes == (4 * 2 + 1) * 64 * 4
