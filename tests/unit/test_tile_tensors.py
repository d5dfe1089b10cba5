"""Are a tile's arrays views of its very bytes, and is what is made of a tile made once?

Covers: common/weights/tile_tensors.py. Does not cover: reading tiles (test_tile_source.py).
"""

from __future__ import annotations

import numpy as np
import pytest

from common.weights.slice_format import TensorPlace, TileLayout
from common.weights.stored_numbers import NUMPY_DTYPES, Stored, narrowed
from common.weights.tile_tensors import TileTensors, stored_array

VECTOR = TensorPlace(name="vector", dtype="float32", shape=(4,), offset=64)
LAYOUT = TileLayout(first=0, count=1, tensors=(VECTOR,), byte_count=4096)


def buffer() -> memoryview:
    """Return a place for a tile."""
    return memoryview(bytearray(4096))


@pytest.mark.parametrize("dtype", NUMPY_DTYPES)
def test_arrays_are_the_bytes_of_the_tile_in_the_type_that_is_stored(dtype: str) -> None:
    """Nothing is copied or widened: what is read into the buffer later is seen."""
    place = buffer()
    matrix = stored_array(TensorPlace(name="matrix", dtype=dtype, shape=(3, 5), offset=128), place)
    assert (matrix.dtype, matrix.shape) == (NUMPY_DTYPES[dtype], (3, 5))
    expected = narrowed(np.arange(15, dtype=np.float32).reshape(3, 5), dtype)
    place[128 : 128 + expected.nbytes] = expected.tobytes()
    assert np.array_equal(matrix, expected)


def test_what_is_made_of_a_tile_is_kept_only_while_the_tile_is() -> None:
    """A tile that stays costs no views; one that passes is seen where it lies now, and nothing of it is kept."""
    made: list[Stored] = []

    def make(layout: TileLayout, place: memoryview) -> Stored:
        made.append(stored_array(layout.tensors[0], place))
        return made[-1]

    views, places = TileTensors(make, lambda index: index == 7), (buffer(), buffer())
    assert views.kept(7) is None
    staying = views.view(7, LAYOUT, places[0])
    assert views.view(7, LAYOUT, places[0]) is staying
    assert views.kept(7) is staying
    assert views.view(8, LAYOUT, places[0]) is not staying
    first, second = (views.view(8, LAYOUT, place) for place in places)
    assert not np.shares_memory(first, second)
    assert views.kept(8) is None
    assert len(made) == 4
