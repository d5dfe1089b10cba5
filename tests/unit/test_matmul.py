"""Is a product the same numbers with weights of any type, on any thread, in any company; and none without kernels?

Covers: common/compute/matmul.py and common/native/address.py; threads and forks of the library.
Does not cover: every shape (tests/property/test_matmul.py), building and loading (test_native_library.py).
"""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from common.compute import matmul
from common.errors import InputError
from common.native.address import address, address_or_none
from common.native.library import LEAST_THREADED_BYTES, absent
from common.weights.stored_numbers import NUMPY_DTYPES, Floats, Stored, narrowed, widened

REPOSITORY = Path(__file__).resolve().parent.parent.parent
pytestmark = pytest.mark.skipif(matmul.kernels.functions is None, reason=matmul.kernels.reason)


@pytest.fixture(autouse=True)
def _one_native_thread_afterwards() -> Iterator[None]:
    """Leave the library as the next test expects it."""
    yield
    matmul.set_thread_count(1)


def random(*shape: int, seed: int = 0) -> Floats:
    """Return float32 noise."""
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


@pytest.mark.parametrize("dtype", NUMPY_DTYPES)
@pytest.mark.parametrize("row_count", [0, 1, 2, 33, 70])
def test_a_product_is_that_of_the_widened_weights(dtype: str, row_count: int) -> None:
    """float32 comes out, of the very numbers that are stored, and the weights stay as they are."""
    rows, weight = random(row_count, 37), narrowed(random(37, 75, seed=1), dtype)
    before = weight.copy()
    product = matmul.multiply(rows, weight)
    assert (product.dtype, product.shape) == (np.float32, (row_count, 75))
    np.testing.assert_allclose(product, rows @ widened(weight), atol=1e-5, rtol=1e-5)
    assert np.array_equal(weight, before)


@pytest.mark.parametrize("row_count", [1, 3, 40])
def test_rows_may_be_a_view_and_need_not_be_writable(row_count: int) -> None:
    """Rows cut from wider ones, or transposed, or over a message, give what the same rows elsewhere give."""
    cut, turned, weight = random(row_count, 90)[:, 20:57], random(37, row_count).T, random(37, 64, seed=1)
    for rows in (cut, turned):
        constant = rows.copy()
        constant.flags.writeable = False
        expected = matmul.multiply(rows.copy(), weight)
        np.testing.assert_allclose(expected, rows @ weight, atol=1e-5, rtol=1e-5)
        assert np.array_equal(matmul.multiply(rows, weight), expected)
        assert np.array_equal(matmul.multiply(constant, weight), expected)


def test_an_address_is_where_the_first_number_lies() -> None:
    """Whatever may be written, and wherever a view begins; an empty array has one that nobody looks at."""
    whole = random(5, 7)
    constant = whole[2:]
    constant.flags.writeable = False
    arrays: list[Stored] = [whole, whole[1:], whole[:, 3:], whole.T, constant, whole.astype(np.float16), whole[:0]]
    assert [address(array) for array in arrays] == [array.ctypes.data for array in arrays]
    assert (address_or_none(None), address_or_none(whole)) == (None, whole.ctypes.data)


def test_a_row_is_the_same_in_any_company() -> None:
    """A sequence's numbers do not depend on what else is in its sweep."""
    rows, weight = random(matmul.FEW_ROWS + 9, 300), random(300, 450, seed=1)
    together = matmul.multiply(rows, weight)
    for row in range(rows.shape[0]):
        assert np.array_equal(matmul.multiply(rows[row : row + 1], weight), together[row : row + 1])


def test_threads_of_one_process_may_multiply_at_once() -> None:
    """One of them has the workers, the others compute alone, and all get the same numbers."""
    matmul.kernels.set_thread_count(2, least_bytes=0)
    rows, weight = random(2, 400), random(400, 700, seed=1)
    expected = matmul.multiply(rows, weight)
    wrong: list[Floats] = []

    def multiply_often() -> None:
        for _ in range(50):
            product = matmul.multiply(rows, weight)
            if not np.array_equal(product, expected):
                wrong.append(product)

    threads = [threading.Thread(target=multiply_often) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


FORKING = """
import os, threading
import numpy as np
from common.compute import matmul
from common.native.address import address, address_or_none
from common.errors import InputError

def thread_count():
    return len(os.listdir("/proc/self/task")) if os.path.isdir("/proc/self/task") else None

def workers_come(before):
    expected = matmul.multiply(rows, weight)
    assert before is None or thread_count() == before + 2, (before, thread_count())
    return expected

random = np.random.default_rng(0)
rows, weight = random.standard_normal((2, 300), np.float32), random.standard_normal((300, 700), np.float32)
matmul.kernels.set_thread_count(3, least_bytes=0)
expected = workers_come(thread_count())
for _ in range(3):
    child = os.fork()
    if child == 0:
        workers_come(thread_count())
        same = all(np.array_equal(matmul.multiply(rows, weight), expected) for _ in range(200))
        os._exit(0 if same else 1)
    assert all(np.array_equal(matmul.multiply(rows, weight), expected) for _ in range(200))
    assert os.waitpid(child, 0)[1] == 0
print("all the same")
"""


def test_a_forked_child_has_workers_of_its_own() -> None:
    """Threads do not survive a fork; the child starts its own when it needs them, and the parent keeps its."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FORKING],
        cwd=REPOSITORY, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (done.stdout.strip(), done.returncode) == ("all the same", 0), done.stderr


def test_many_rows_have_threads_of_their_own_number(monkeypatch: pytest.MonkeyPatch) -> None:
    """What memory limits leaves a core to others; the library is told only when it changes."""
    told: list[int] = []

    class Told:
        functions = matmul.kernels.functions

        def set_thread_count(self, thread_count: int, least_bytes: int = LEAST_THREADED_BYTES) -> None:
            told.append(thread_count)

    monkeypatch.setattr(matmul, "kernels", Told())
    matmul.set_thread_count(4, few_rows=3)
    for row_count in (1, matmul.FEW_ROWS, matmul.FEW_ROWS + 1, 500, 2):
        matmul.use_threads_for(row_count)
    assert told == [3, 4, 3]
    matmul.set_thread_count(2)
    matmul.use_threads_for(500)
    assert told == [3, 4, 3, 2]


def test_a_start_without_kernels_is_refused_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """Why there are none, what builds them, and the way without."""
    matmul.require_kernels()
    monkeypatch.setattr(matmul, "kernels", absent("a test wants none"))
    with pytest.raises(InputError, match=r"a test wants none.*gcc or clang.*make setup.*--backend torch"):
        matmul.require_kernels()
    monkeypatch.setattr(matmul, "kernels", absent("this processor is too old", can_be_built=False))
    with pytest.raises(InputError, match=r"too old; compute with torch: pip install 'shardmesh\[torch\]'.*--backend"):
        matmul.require_kernels()
