"""Does a `.bin` checkpoint make nothing but tensors of its own size, and is a library's panic an error?

Covers: coordinator/checkpoints/pickle_scan.py, coordinator/checkpoints/panics.py; tensors that repeat their data.
Does not cover: damaged files, code (test_checkpoints_hostile.py).
"""

from __future__ import annotations

import resource
import zipfile
from pathlib import Path

import pytest

from common.errors import CheckpointError
from coordinator.checkpoints.panics import panics_as_errors
from coordinator.checkpoints.pickle_scan import check_pickle
from tests.support.damaged_models import refusal, saved
from tests.support.hostile_tokenizers import PANICS, panicking_json

ALLOCATING = b"\x80\x02cbuiltins\nbytearray\nq\x00\x8a\x06\x00\x00\x00\x00\x01\x00\x85q\x01Rq\x02."
"""bytearray(1 << 32), and no tensor."""
COPYING = b"\x80\x02]" + b"2\x86" * 60 + b"."
"""60 pairs, each of the one before with itself."""


@pytest.mark.parametrize("pickle", [ALLOCATING, COPYING, b"\x80\x02cos\nsystem\nq\x00.", b"garbage", b""])
def test_a_pickle_of_anything_else_is_refused_unread(pickle: bytes) -> None:
    """torch would call bytearray for it, and hash what takes for ever to hash."""
    with pytest.raises(CheckpointError, match=r"x\.bin"):
        check_pickle(pickle, "x.bin")


def test_a_file_that_allocates_takes_no_memory(tmp_path: Path) -> None:
    """392 bytes took gigabytes."""
    pytest.importorskip("torch")
    saved(tmp_path, "bin")
    with zipfile.ZipFile(tmp_path / "pytorch_model.bin", "w") as archive:
        archive.writestr("archive/data.pkl", ALLOCATING)
        archive.writestr("archive/version", b"3\n")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert "more than weights" in refusal(tmp_path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 1 << 20


def test_a_tensor_of_stride_0_is_refused(tmp_path: Path) -> None:
    """Of 7.5 kB it made 3.6 GB, all of its right shape."""
    torch = pytest.importorskip("torch")
    saved(tmp_path, "bin")
    state = torch.load(tmp_path / "pytorch_model.bin", weights_only=True)
    name = "model.layers.0.mlp.up_proj.weight"
    state[name] = torch.ones(1, state[name].shape[1]).expand(state[name].shape)
    torch.save(state, tmp_path / "pytorch_model.bin")
    assert "repeats its data" in refusal(tmp_path)


def test_a_panic_in_rust_is_an_error_that_is_caught() -> None:
    """It is no Exception, and would pass by every edge of ours."""
    from tokenizers import Tokenizer

    with pytest.raises(ValueError, match="gave up"), panics_as_errors():
        Tokenizer.from_str(panicking_json(next(iter(PANICS)))).encode("hello")
    with pytest.raises(KeyboardInterrupt), panics_as_errors():
        raise KeyboardInterrupt
