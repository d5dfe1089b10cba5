"""Are a tile's tensors views of its very bytes, made once?

Covers: common/weights/tile_tensors.py. Does not cover: reading tiles (test_tile_source.py).
"""

from __future__ import annotations

import pytest
import torch

from common.weights.slice_format import TensorPlace, TileLayout
from common.weights.tile_tensors import TORCH_DTYPES, TileTensors

CPU = torch.device("cpu")
ELSEWHERE = torch.device("meta")
"""A device that is not the CPU and that every machine has."""

Tensors = dict[str, torch.Tensor]


def layout_of(dtype: str) -> TileLayout:
    """Return a tile of a matrix and a vector."""
    places = (
        TensorPlace(name="matrix", dtype=dtype, shape=(3, 5), offset=0),
        TensorPlace(name="vector", dtype="float32", shape=(4,), offset=64),
    )
    return TileLayout(first=0, count=1, tensors=places, byte_count=4096)


def as_they_are(layout: TileLayout, tensors: Tensors) -> Tensors:
    """Build nothing."""
    return tensors


def passing(tile_index: int) -> bool:
    """Say that no tile stays."""
    return False


def buffer() -> memoryview:
    """Return a place for a tile."""
    return memoryview(bytearray(4096))


@pytest.mark.parametrize("dtype", TORCH_DTYPES)
def test_tensors_are_the_bytes_of_the_tile_in_the_type_that_is_stored(dtype: str) -> None:
    """Nothing is copied or widened: what is read into the buffer later is seen."""
    views, place = TileTensors(CPU, as_they_are, passing), buffer()
    tensors = views.view(0, layout_of(dtype), place)
    assert {name: (tensor.dtype, tuple(tensor.shape)) for name, tensor in tensors.items()} == {
        "matrix": (TORCH_DTYPES[dtype], (3, 5)),
        "vector": (torch.float32, (4,)),
    }
    expected = torch.arange(15).to(TORCH_DTYPES[dtype]).view(3, 5)
    place[: 15 * expected.itemsize] = memoryview(expected.view(-1).view(torch.uint8).numpy())
    assert torch.equal(tensors["matrix"], expected)


def test_what_is_built_over_a_tile_is_kept_only_while_the_tile_is() -> None:
    """A tile that stays costs no views; one that passes is seen where it lies now, and nothing of it is kept."""
    built: list[Tensors] = []

    def build(layout: TileLayout, tensors: Tensors) -> Tensors:
        built.append(tensors)
        return tensors

    views, layout, places = (
        TileTensors(CPU, build, lambda index: index == 7),
        layout_of("float32"),
        (buffer(), buffer()),
    )
    staying = views.view(7, layout, places[0])
    assert views.view(7, layout, places[0]) is staying
    assert views.view(8, layout, places[0]) is not staying
    first, second = (views.view(8, layout, place) for place in places)
    assert first["matrix"].data_ptr() != second["matrix"].data_ptr()
    assert len(built) == 4


@pytest.mark.parametrize("is_resident", [False, True])
def test_another_device_has_float32_copies(is_resident: bool) -> None:
    """They stay there when the tile stays in memory, and are made anew when it does not."""
    views, layout, place = (
        TileTensors(ELSEWHERE, as_they_are, lambda index: is_resident),
        layout_of("bfloat16"),
        buffer(),
    )
    first = views.view(0, layout, place)
    assert {(tensor.device.type, tensor.dtype) for tensor in first.values()} == {("meta", torch.float32)}
    assert (views.view(0, layout, place) is first) == is_resident
