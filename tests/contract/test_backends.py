"""Does every backend compute the papers' formulas: products, gates, attention, of any stored dtype and number of rows?

Covers: the seam of common/compute/backend.py over each backend that this machine has: our kernels, torch on the CPU,
torch on a CUDA device; and a node over them.
Does not cover: whole models (tests/golden), our kernels' bits (tests/property).
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from common.compute import matmul
from common.compute.backend import BACKENDS, NATIVE, TORCH, Backend, backend_named
from common.errors import InputError, UnsupportedModel
from common.model.model_spec import ACTIVATIONS
from common.native.library import absent
from common.weights.slice_format import TensorPlace
from common.weights.stored_numbers import NUMPY_DTYPES, Floats, narrowed, widened
from common.weights.weight_memory import WeightMemory
from common.wire.tensor_codec import decode_tensor
from coordinator.engine.ends import Ends
from shardnode.config import NodeConfig, check_before_start
from shardnode.sessions.session import Session
from shardnode.work.slice_at_work import ShardNode
from tests.support.random_models import build
from tests.support.session_messages import load_norms, open_sequence, open_session, run_block, run_layers
from tests.support.sliced_models import slice_model
from tests.support.tile_cases import (
    FIRST_KV_HEAD,
    LAYER,
    AttentionCase,
    Doubles,
    FfnCase,
    contents_of,
    random,
    spec_of,
    tile_of,
)

GPU = "torch on a GPU"
DTYPES = list(NUMPY_DTYPES)
FEW, MANY = 3, 70


@pytest.fixture(params=[*BACKENDS, GPU], scope="module")
def backend(request: pytest.FixtureRequest) -> Backend:
    """Return each backend that this machine has, on one thread."""
    if request.param == NATIVE:
        if matmul.kernels.functions is None:
            pytest.skip(matmul.kernels.reason)
        made = backend_named(NATIVE)
    else:
        torch = pytest.importorskip("torch")
        if request.param == GPU and not torch.cuda.is_available():
            pytest.skip("torch sees no CUDA device here")
        made = backend_named(TORCH, use_gpu=request.param == GPU)
    made.set_thread_count(1, 1)
    return made


def assert_close(found: Floats, expected: Doubles, size: float = 1.0) -> None:
    """Fail unless float32 came out, as near as sums in float32 are. Args: size: of what is added up."""
    assert found.dtype == np.float32
    assert found.flags.c_contiguous
    np.testing.assert_allclose(found, expected, atol=2e-5 * size, rtol=2e-5)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("row_count", [1, FEW, MANY])
def test_a_product_is_that_of_the_widened_weights(backend: Backend, dtype: str, row_count: int) -> None:
    """Of the very numbers that are stored, in float32; rows may be such as must not be written."""
    rows, weight = random(row_count, 301), narrowed(random(301, 75, seed=1), dtype)
    rows.flags.writeable = False
    layout, content = tile_of({"head": weight})
    product = backend.multiply(backend.rows_in(rows), backend.weight(layout.tensors[0], content))
    expected = rows.astype(np.float64) @ widened(weight).astype(np.float64)
    assert_close(backend.rows_out(product), expected, size=20)


def test_weights_in_blocks_are_computed_with_by_our_kernels_alone(backend: Backend) -> None:
    """torch refuses them by the encoding's name, and says what to do."""
    place = TensorPlace(name="head", dtype="q4_0", shape=(64, 16), offset=0)
    content = memoryview(bytearray(place.byte_count))
    if backend.name == NATIVE:
        product = backend.multiply(np.ones((1, 64), np.float32), backend.weight(place, content))
        assert not product.any()
    else:
        with pytest.raises(UnsupportedModel, match=r"q4_0.*--weights-dtype float16"):
            backend.weight(place, content)


@pytest.mark.parametrize("has_bias", [False, True])
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("row_count", [1, FEW, MANY])
def test_a_feed_forward_is_the_plain_formula(
    backend: Backend, row_count: int, dtype: str, activation: str, has_bias: bool
) -> None:
    """down(activation(gate) * up), gate and up being the halves of one matrix."""
    case = FfnCase(activation=activation, row_count=row_count, columns=37, has_bias=has_bias, dtype=dtype)
    assert_close(case.run(backend), case.expected(), size=50)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_gates_are_right_where_an_exponential_leaves_float32(backend: Backend, activation: str) -> None:
    """Far to the left nothing comes through, far to the right everything; nothing becomes no number."""
    case = FfnCase(activation=activation, row_count=FEW, columns=19, scale=60.0)
    expected = case.expected()
    np.testing.assert_allclose(case.run(backend), expected, atol=1e-4 * np.abs(expected).max(), rtol=1e-5)


RUNS = {
    "a prompt": ((0, MANY),), "a later part of one": ((90, MANY),), "a token": ((101, 1),), "the first": ((0, 1),),
    "a few rows": ((5, FEW),), "sequences together": ((0, 40), (64, 1), (3, 9), (17, 1)),
}  # fmt: skip


@pytest.mark.parametrize("window", [0, 1, 5, 1000])
@pytest.mark.parametrize(("kv_count", "group"), [(1, 1), (2, 3), (3, 1)])
@pytest.mark.parametrize("runs", RUNS.values(), ids=RUNS)
def test_attention_is_the_plain_formula(
    backend: Backend, runs: tuple[tuple[int, int], ...], kv_count: int, group: int, window: int
) -> None:
    """Causal, grouped, with any sliding window, prompts from the start or later, single steps; each row its own."""
    check_attention(backend, AttentionCase(kv_count=kv_count, group=group, runs=runs, window=window))


@pytest.mark.parametrize("has_bias", [False, True])
@pytest.mark.parametrize("has_norms", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("row_count", [1, MANY])
def test_attention_has_what_its_tile_has(
    backend: Backend, row_count: int, dtype: str, has_norms: bool, has_bias: bool
) -> None:
    """Biases of queries, keys and values; norms of queries and keys before they are turned; any stored dtype."""
    check_attention(backend, AttentionCase(
        kv_count=2, group=2, runs=((4, row_count),), has_bias=has_bias, has_norms=has_norms, dtype=dtype, head_size=18
    ))  # fmt: skip


def check_attention(backend: Backend, case: AttentionCase) -> None:
    """Fail unless part and stores are as expected, and nothing of the stores changes that is not the rows' own."""
    stores = case.stores(backend)
    expected, expected_stores = case.expected()
    assert_close(case.run(backend, stores), expected, size=20)
    for run, (first, count) in enumerate(case.runs):
        found, before = contents_of(stores[run]), case.before(run)
        np.testing.assert_allclose(found, expected_stores[run], atol=2e-5, rtol=2e-5)
        found[LAYER, :, FIRST_KV_HEAD:, first : first + count] = before[LAYER, :, FIRST_KV_HEAD:, first : first + count]
        assert np.array_equal(found, before)


@pytest.mark.parametrize("window", [0, 3])
@pytest.mark.parametrize("runs", [((50, 1),), ((50, MANY),)])
def test_attention_sees_neither_the_future_nor_what_slid_out(
    backend: Backend, runs: tuple[tuple[int, int], ...], window: int
) -> None:
    """Numbers that are not finite, where a row must not look, change nothing."""
    case = AttentionCase(kv_count=2, group=2, runs=runs, window=window)
    stores, spoiled = case.stores(backend), case.stores(backend)
    contents = contents_of(spoiled[0])
    contents[:, :, :, sum(runs[0]) :] = np.nan
    contents[0] = np.nan
    if window:
        contents[:, :, :, : runs[0][0] + 1 - window] = np.nan
    assert np.array_equal(case.run(backend, spoiled), case.run(backend, stores))


def test_rows_and_weights_stay_as_they_were(backend: Backend) -> None:
    """The same rows go through every tile of a block, and weights lie in the window."""
    for case in (FfnCase(row_count=MANY, has_bias=True), AttentionCase(runs=((0, MANY),), has_bias=True)):
        rows = case.rows
        if isinstance(case, FfnCase):
            case.run(backend, rows)
        else:
            case.run(backend, case.stores(backend), rows)
        assert np.array_equal(rows, case.rows)


@pytest.mark.parametrize("memory_window", [0, 2])
def test_a_node_answers_alike_over_every_backend(tmp_path: Path, memory_window: int) -> None:
    """Rounds and whole layers, a prompt and tokens after it, weights that stay and weights that pass."""
    pytest.importorskip("torch")
    model = slice_model(tmp_path, model=build(layers=2, vocab_size=260, attention_bias=True), dtype="bfloat16")
    ends = Ends(model.slice_directory(), model.manifest())
    ends.close()
    answers: dict[str, list[Floats]] = {}
    for name in BACKENDS:
        weights = WeightMemory(memory_window=memory_window, page_cache="use")
        node = ShardNode(model.node_config(backend=name, weights=weights))
        session = Session(node)
        session.handle(open_session(1, model.identity))
        session.handle(open_sequence(2, position_capacity=64))
        session.handle(load_norms(3, ends.residual))
        answers[name] = []
        for number, (first, count) in enumerate([(0, MANY // 2), (MANY // 2, 1), (MANY // 2 + 1, FEW)]):
            rows = random(count, model.spec.hidden_size, seed=number)
            block = session.handle(run_block(10 * number + 4, rows, segments=[(1, first, count)], sweep_id=number))
            layers = session.handle(run_layers(10 * number + 5, rows, first_position=first))
            for tensor in (block.block_result.partial, layers.layers_result.output):
                answers[name].append(widened(decode_tensor(tensor, shape=rows.shape)))
        session.close()
        node.close()
    for ours, theirs in zip(answers[NATIVE], answers[TORCH], strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-4, rtol=1e-4)


def test_memory_that_there_is_not_is_a_memory_error(backend: Backend) -> None:
    """Whatever the system or the library under it calls that."""
    with pytest.raises(MemoryError):
        backend.new_store((1 << 10, 2, 1 << 10, 1 << 20, 64))


def test_heads_that_the_kernels_do_not_take_are_refused_with_a_way_out() -> None:
    """By name, when the slice is opened; torch computes them."""
    spec = spec_of(head_size=514)
    with pytest.raises(UnsupportedModel, match=r"514 numbers.*512.*--backend torch"):
        backend_named(NATIVE).check(spec)
    backend_named(NATIVE).check(spec_of(head_size=512))


def test_a_backend_that_there_is_not_is_refused() -> None:
    """With the names of those that there are."""
    with pytest.raises(InputError, match="--backend is 'cuda'; use native or torch"):
        backend_named("cuda")


def test_without_kernels_there_is_torch_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    """A start by kernels says what to do, also of a member that has no slice yet; torch's does not ask for them."""
    monkeypatch.setattr(matmul, "kernels", absent("a test wants none"))
    with pytest.raises(InputError, match="--backend torch"):
        backend_named(NATIVE)
    member: dict[str, Any] = {"slice_directory": None, "listen": "127.0.0.1:0", "coordinator": "127.0.0.1:1"}
    with pytest.raises(InputError, match="--backend torch"):
        check_before_start(NodeConfig(**member))
    pytest.importorskip("torch")
    assert backend_named(TORCH).name == TORCH
    check_before_start(NodeConfig(**member, backend=TORCH))


def test_without_torch_its_backend_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """In one line, for a checkout and for a package."""
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.delitem(sys.modules, "common.compute.torch_backend", raising=False)
    with pytest.raises(InputError, match=r"not installed: pip install 'shardmesh\[torch\]'.*make setup GPU=1"):
        backend_named(NATIVE, use_gpu=True)
