"""Is a product the same numbers whoever computes it: our kernels, numpy, torch, with weights of any type?

Covers: common/compute/matmul.py, with and without the native library; threads and forks of the library.
Does not cover: every shape (tests/property/test_matmul.py), building and loading (test_native_library.py).
"""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from common.compute import matmul
from common.native.library import absent

REPOSITORY = Path(__file__).resolve().parent.parent.parent
DTYPES = (torch.float32, torch.float16, torch.bfloat16)
needs_library = pytest.mark.skipif(matmul.kernels.functions is None, reason=matmul.kernels.reason)


@pytest.fixture(autouse=True)
def _one_native_thread_afterwards() -> Iterator[None]:
    """Leave the library as the next test expects it."""
    yield
    matmul.kernels.set_thread_count(1)


@pytest.fixture(params=["native", "fallback"])
def any_kernels(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run a test with the library, if there is one, and without."""
    if request.param == "fallback":
        monkeypatch.setattr(matmul, "kernels", absent("a test wants none"))


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    """Return float32 noise."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("row_count", [0, 1, 2, 33, 70])
@pytest.mark.usefixtures("any_kernels")
def test_a_product_is_that_of_the_widened_weights(dtype: torch.dtype, row_count: int) -> None:
    """float32 comes out, of the very numbers that are stored, and the weights stay as they are."""
    rows, weight = random(row_count, 37), random(37, 75, seed=1).to(dtype)
    before = weight.clone()
    product = matmul.multiply(rows, weight)
    assert (product.dtype, tuple(product.shape)) == (torch.float32, (row_count, 75))
    torch.testing.assert_close(product, rows @ weight.float(), atol=1e-5, rtol=1e-5)
    assert torch.equal(weight, before)


@pytest.mark.parametrize("row_count", [1, 3, 40])
@pytest.mark.usefixtures("any_kernels")
def test_rows_may_be_a_view(row_count: int) -> None:
    """Rows cut from wider ones, or transposed, are read where they are."""
    cut, turned = random(row_count, 90)[:, 20:57], random(37, row_count).t()
    weight = random(37, 64, seed=1)
    for rows in (cut, turned):
        torch.testing.assert_close(matmul.multiply(rows, weight), rows @ weight, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_many_rows_see_weights_of_16_bits_slab_by_slab(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    """The float32 copy of weights is as small as is said, is used again, and is free of the first call's mode."""
    monkeypatch.setattr(matmul, "SLAB_BYTES", 4 * 1000)
    monkeypatch.setattr(matmul, "_own", threading.local())
    rows, weight = random(50, 101), random(101, 96, seed=1).to(dtype)
    with torch.inference_mode():
        first = matmul.multiply(rows, weight)
    scratch = matmul._own.scratch
    assert scratch.numel() == 1000
    torch.testing.assert_close(first, rows @ weight.float(), atol=1e-5, rtol=1e-5)
    assert torch.equal(matmul.multiply(rows, weight), first)
    assert matmul._own.scratch is scratch


def test_a_row_of_weights_wider_than_a_slab_is_widened_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """No width is too much."""
    monkeypatch.setattr(matmul, "SLAB_BYTES", 4 * 10)
    monkeypatch.setattr(matmul, "_own", threading.local())
    rows, weight = random(40, 7), random(7, 33, seed=1).half()
    torch.testing.assert_close(matmul.multiply(rows, weight), rows @ weight.float(), atol=1e-5, rtol=1e-5)


@needs_library
def test_a_row_is_the_same_in_any_company() -> None:
    """A sequence's numbers do not depend on what else is in its sweep."""
    rows, weight = random(matmul.MOST_NATIVE_ROWS, 300), random(300, 450, seed=1)
    together = matmul.multiply(rows, weight)
    for row in range(rows.shape[0]):
        assert torch.equal(matmul.multiply(rows[row : row + 1], weight), together[row : row + 1])


@needs_library
def test_threads_of_one_process_may_multiply_at_once() -> None:
    """One of them has the workers, the others compute alone, and all get the same numbers."""
    matmul.kernels.set_thread_count(2, least_bytes=0)
    rows, weight = random(2, 400), random(400, 700, seed=1)
    expected = matmul.multiply(rows, weight)
    wrong: list[torch.Tensor] = []

    def multiply_often() -> None:
        for _ in range(50):
            product = matmul.multiply(rows, weight)
            if not torch.equal(product, expected):
                wrong.append(product)

    threads = [threading.Thread(target=multiply_often) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


FORKING = """
import os, threading
import torch
from common.compute import matmul

def thread_count():
    return len(os.listdir("/proc/self/task")) if os.path.isdir("/proc/self/task") else None

def workers_come(before):
    expected = matmul.multiply(rows, weight)
    assert before is None or thread_count() == before + 2, (before, thread_count())
    return expected

torch.manual_seed(0)
rows, weight = torch.randn(2, 300), torch.randn(300, 700)
matmul.kernels.set_thread_count(3, least_bytes=0)
expected = workers_come(thread_count())
for _ in range(3):
    child = os.fork()
    if child == 0:
        workers_come(thread_count())
        same = all(torch.equal(matmul.multiply(rows, weight), expected) for _ in range(200))
        os._exit(0 if same else 1)
    assert all(torch.equal(matmul.multiply(rows, weight), expected) for _ in range(200))
    assert os.waitpid(child, 0)[1] == 0
print("all the same")
"""


@needs_library
def test_a_forked_child_has_workers_of_its_own() -> None:
    """Threads do not survive a fork; the child starts its own when it needs them, and the parent keeps its."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FORKING],
        cwd=REPOSITORY, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (done.stdout.strip(), done.returncode) == ("all the same", 0), done.stderr


def test_a_thread_count_reaches_torch_and_our_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a library there is one thing less to tell."""
    matmul.set_thread_count(2)
    assert torch.get_num_threads() == 2
    monkeypatch.setattr(matmul, "kernels", absent("a test wants none"))
    matmul.set_thread_count(1)
    assert torch.get_num_threads() == 1
