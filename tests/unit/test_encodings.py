"""Do Python, C and the gguf package mean the same by each encoding, and is a wrong size refused?

Covers: common/weights/encodings.py against common/native/encodings.h and gguf's constants; sizes of packed matrices.
Does not cover: values (tests/property/test_encoded_products.py).
"""

from __future__ import annotations

import re

import numpy as np
import pytest
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

from common.compute.matmul import kernels
from common.errors import InputError
from common.native.build import SOURCE_DIRECTORY
from common.native.library import FLOAT_KINDS, WEIGHT_KINDS, absent
from common.weights import packed_blocks
from common.weights.encodings import ENCODINGS, GROUP_OUTPUTS, grain, is_encoded, packed_bytes, row_bytes
from common.weights.packed_blocks import not_finite_row, output_row, pack, unpacked
from tests.support.encoded_weights import SCALE_PLACES, random_rows, values_of

HEADER = (SOURCE_DIRECTORY / "encodings.h").read_text()
needs_kernels = pytest.mark.skipif(kernels.functions is None, reason=kernels.reason or "there are kernels")


def test_c_has_the_same_blocks() -> None:
    """Names, numbers in a block, bytes of it; and how many outputs lie side by side."""
    table = re.findall(r"\[(\w+)\] = \{(\d+), (\d+), \d+\}", HEADER)
    assert {name.lower(): (int(values), int(size)) for name, values, size in table} == {
        name: (own.block_values, own.block_bytes) for name, own in ENCODINGS.items()
    }
    assert f"GROUP = {GROUP_OUTPUTS}," in HEADER


def test_the_gguf_package_has_the_same_blocks() -> None:
    """Numbers in a block and bytes of it, of every encoding that keeps its bits."""
    for name, own in ENCODINGS.items():
        assert GGML_QUANT_SIZES[GGMLQuantizationType[name.upper()]] == (own.block_values, own.block_bytes), name


def test_a_kind_is_a_float_or_an_encoding() -> None:
    """The kernels' numbers of kinds follow from the order."""
    assert [name for name in WEIGHT_KINDS if not is_encoded(name)] == list(FLOAT_KINDS)


def test_a_packed_matrix_has_the_bytes_of_its_blocks() -> None:
    """Only outputs that the last group of 16 lacks are more."""
    assert packed_bytes("q4_k", 512, 32) == 32 * 2 * 144
    assert packed_bytes("q4_k", 512, 33) == 48 * 2 * 144
    assert packed_bytes("q8_0", 96, 16) == 16 * 3 * 34
    assert (grain("q4_k"), grain("q5_0")) == (256, 32)
    with pytest.raises(ValueError, match="128 inputs are no whole blocks of q4_k"):
        row_bytes("q4_k", 128)


@needs_kernels
def test_rows_and_packed_bytes_of_another_length_are_refused() -> None:
    """Before C reads beyond them."""
    rows = random_rows("q4_0", 4, 64)
    for wrong in (rows[:, :-1], rows.astype(np.int8), rows[0]):
        with pytest.raises(ValueError, match="rows of 64 weights in q4_0 have 36 bytes each"):
            pack("q4_0", wrong, 64)
    packed = pack("q4_0", rows, 64)
    with pytest.raises(ValueError, match="a packed matrix of that shape has 576 bytes"):
        unpacked("q4_0", packed[:-1], 64, 4)
    with pytest.raises(ValueError, match="a packed matrix of that shape has 576 bytes"):
        output_row("q4_0", packed, 64, 16)


@needs_kernels
def test_rows_that_lie_apart_are_packed_without_a_copy_of_them() -> None:
    """Columns of a tensor's blocks, as a cut takes them."""
    rows = random_rows("q5_1", 20, 160)
    assert np.array_equal(pack("q5_1", rows[:, 24:72], 64), pack("q5_1", rows[:, 24:72].copy(), 64))
    backwards = rows[::-1]
    assert np.array_equal(unpacked("q5_1", pack("q5_1", backwards, 160), 160, 20), values_of("q5_1", backwards))


@needs_kernels
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_scale_that_is_no_number_is_found(encoding: str) -> None:
    """Each of a block's 16-bit scales, infinite or not a number; what only looks like it is none."""
    depth = 2 * grain(encoding)
    rows = random_rows(encoding, 9, depth)
    assert not_finite_row(encoding, rows, depth) is None
    for place in SCALE_PLACES[encoding]:
        for high in (0x7C, 0xFC, 0x7E):
            wrong = rows.copy()
            wrong[5, ENCODINGS[encoding].block_bytes + place + 1] = high
            assert not_finite_row(encoding, wrong, depth) == 5


def test_without_kernels_blocks_are_refused_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that has none can still hold floats."""
    monkeypatch.setattr(packed_blocks, "shared", lambda: absent("no compiler was here"))
    with pytest.raises(InputError, match="take kernels, which this machine has not: no compiler was here"):
        pack("q8_0", random_rows("q8_0", 1, 32), 32)
