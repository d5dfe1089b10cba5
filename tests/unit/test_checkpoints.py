"""Does every file format give the same tensors, under transformers' names, as were put into it?

Does not cover: damaged and hostile files (test_checkpoints_hostile.py), configurations (test_families.py),
which model it is (test_model_identity.py).
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import gguf
import numpy as np
import pytest

from common.errors import InternalError
from common.weights.stored_numbers import NUMPY_DTYPES, narrowed, widened
from coordinator.checkpoints.checkpoint import Checkpoint, open_checkpoint
from coordinator.checkpoints.tensor_names import expected_shapes
from tests.support.gguf_models import llama3_frequency_factors
from tests.support.model_tensors import EMBEDDING, HEAD, RandomModel
from tests.support.random_models import FAMILIES, FORMATS, ROPES, Format, build, save
from tests.support.safetensors_files import write_tensors
from tests.support.transformers_answers import Theirs

REPOSITORY = Path(__file__).resolve().parent.parent.parent
QUERY = "model.layers.1.self_attn.q_proj.weight"
MEBIBYTE = 1 << 20


def assert_holds(checkpoint: Checkpoint, model: RandomModel) -> None:
    """Fail unless the checkpoint has exactly the model's tensors; a tied head may be there or not."""
    assert set(expected_shapes(checkpoint.spec)) == {*model.tensors, HEAD}
    assert checkpoint.spec.tied_embeddings == (HEAD not in model.tensors)
    for name, stored in model.tensors.items():
        assert checkpoint.shape(name) == stored.shape, name
        read = checkpoint.read(name)
        assert read.flags.c_contiguous
        assert np.array_equal(widened(read), widened(stored)), name


@pytest.mark.parametrize("fmt", FORMATS)
@pytest.mark.parametrize("family", FAMILIES)
def test_every_tensor_of_every_family_reads_back_from_every_format(tmp_path: Path, family: str, fmt: Format) -> None:
    """Names, shapes and values are those of transformers, whatever the format."""
    model = build(family, layers=2)
    checkpoint = open_checkpoint(save(model, tmp_path, fmt))
    assert_holds(checkpoint, model)
    assert checkpoint.dtype == "float32"
    assert not checkpoint.spec.tied_embeddings
    checkpoint.close()
    checkpoint.close()


@pytest.mark.parametrize("fmt", FORMATS)
def test_a_tied_model_may_lack_its_head(tmp_path: Path, fmt: Format) -> None:
    """Tied embeddings stay tied, whether the file has the head under its own name (.bin) or not."""
    model = build("qwen2", tied=True, layers=1)
    checkpoint = open_checkpoint(save(model, tmp_path, fmt))
    assert checkpoint.spec.tied_embeddings
    assert_holds(checkpoint, model)


@pytest.mark.parametrize("fmt", FORMATS)
def test_biases_of_a_llama_read_back(tmp_path: Path, fmt: Format) -> None:
    """Attention and FFN biases are tensors like others; GGUF permutes those of q and k too."""
    model = build("llama", layers=1, kv_heads=4, attention_bias=True, mlp_bias=True)
    checkpoint = open_checkpoint(save(model, tmp_path, fmt))
    assert checkpoint.spec.qkv_bias
    assert checkpoint.spec.output_bias
    assert checkpoint.spec.ffn_bias
    assert_holds(checkpoint, model)


@pytest.mark.parametrize("fmt", ["safetensors", "bin", "gguf"])
def test_a_head_size_of_its_own_reads_back(tmp_path: Path, fmt: Format) -> None:
    """Heads need not add up to the hidden size."""
    model = build("qwen3", layers=1, query_heads=3, kv_heads=1, head_size=32, attention_bias=True)
    assert_holds(open_checkpoint(save(model, tmp_path, fmt)), model)


@pytest.mark.parametrize("fmt", FORMATS)
def test_rows_read_alone_are_rows_of_the_whole(tmp_path: Path, fmt: Format) -> None:
    """read_rows gives any range, across the heads that GGUF permutes, empty ones too, in memory of its own."""
    checkpoint = open_checkpoint(save(build(layers=2), tmp_path, fmt))
    whole = checkpoint.read(QUERY)
    for start, stop in ((0, 64), (0, 1), (5, 6), (13, 41), (16, 32), (63, 64), (7, 7)):
        rows = checkpoint.read_rows(QUERY, start, stop)
        assert np.array_equal(rows, whole[start:stop])
        assert rows.flags.owndata
    assert np.array_equal(checkpoint.read_rows("model.norm.weight", 3, 9), checkpoint.read("model.norm.weight")[3:9])


def test_rows_that_are_not_there_are_a_bug_of_the_caller(tmp_path: Path) -> None:
    """A range beyond the tensor never reads its neighbour in the file."""
    checkpoint = open_checkpoint(save(build(layers=1), tmp_path))
    for start, stop in ((-1, 2), (60, 65), (9, 8)):
        with pytest.raises(InternalError, match="q_proj"):
            checkpoint.read_rows("model.layers.0.self_attn.q_proj.weight", start, stop)
    assert checkpoint.shape("model.layers.9.self_attn.q_proj.weight") is None


@pytest.mark.parametrize("fmt", FORMATS)
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_stays_as_stored(tmp_path: Path, fmt: Format, dtype: str) -> None:
    """Projections come in the dtype of the file, and the checkpoint says which it is."""
    model = build(layers=1, dtype=dtype)
    checkpoint = open_checkpoint(save(model, tmp_path, fmt))
    assert checkpoint.dtype == dtype
    assert checkpoint.read("model.layers.0.mlp.up_proj.weight").dtype == NUMPY_DTYPES[dtype]
    assert_holds(checkpoint, model)


def test_projections_of_several_dtypes_count_as_float32(tmp_path: Path) -> None:
    """Only float32 holds float16 and bfloat16 exactly."""
    model = build(layers=1, dtype="float16")
    name = "model.layers.0.mlp.up_proj.weight"
    model.tensors[name] = narrowed(model.floats(name), "bfloat16")
    checkpoint = open_checkpoint(save(model, tmp_path))
    assert checkpoint.dtype == "float32"
    assert_holds(checkpoint, model)


@pytest.mark.parametrize("quantization", ["Q8_0", "Q4_1"])
def test_quantized_tensors_become_the_float32_they_stand_for(tmp_path: Path, quantization: str) -> None:
    """Dequantized rows equal the gguf package's own, heads put back in order."""
    model = build(layers=2)
    path = save(model, tmp_path, "gguf", quantization=quantization)
    checkpoint = open_checkpoint(path)
    assert checkpoint.dtype == "float32"
    stored = {tensor.name: tensor for tensor in gguf.GGUFReader(path).tensors}
    down = stored["blk.1.ffn_down.weight"]
    wanted = gguf.dequantize(down.data, down.tensor_type)
    assert np.array_equal(checkpoint.read("model.layers.1.mlp.down_proj.weight"), wanted)
    query = checkpoint.read(QUERY)
    assert query.dtype == np.float32
    query = widened(query)
    assert np.abs(query - model.floats(QUERY)).max() < 0.1 * np.abs(query).max()


def test_a_gguf_file_reads_as_transformers_reads_it(tmp_path: Path, theirs: Theirs) -> None:
    """transformers' own GGUF loader, where it covers the format, gives the same bits."""
    path = save(build(layers=2), tmp_path, "gguf", quantization="Q8_0")
    digests = theirs.ask("gguf_tensors", path)
    checkpoint = open_checkpoint(path)
    assert set(digests) == set(expected_shapes(checkpoint.spec))
    for name, digest in digests.items():
        assert hashlib.sha256(checkpoint.read(name).tobytes()).hexdigest() == digest, name


def test_rope_freqs_of_a_gguf_become_frequency_factors(tmp_path: Path) -> None:
    """Llama 3 scaling arrives as one divisor per frequency."""
    model = build(layers=1, rope=ROPES["llama3"])
    rope = open_checkpoint(save(model, tmp_path, "gguf")).spec.rope
    assert rope.rope_type == "factors"
    wanted = llama3_frequency_factors(model.config["rope_parameters"], 16)
    assert rope.frequency_factors == pytest.approx(wanted)
    assert max(wanted) == 8.0
    assert min(wanted) == 1.0


def test_the_demo_model_opens(demo_model: Path) -> None:
    """SmolLM2-135M: a quantized GGUF."""
    checkpoint = open_checkpoint(demo_model)
    spec = checkpoint.spec
    assert (spec.family, spec.layer_count, spec.query_head_count, spec.kv_head_count) == ("llama", 30, 9, 3)
    assert (spec.hidden_size, spec.ffn_size, spec.vocab_size, spec.rope.theta) == (576, 1536, 49152, 100000.0)
    assert spec.tied_embeddings
    assert checkpoint.dtype == "float32"


@pytest.mark.parametrize("dtype", NUMPY_DTYPES)
def test_a_head_that_differs_from_the_embedding_is_not_tied(tmp_path: Path, dtype: str) -> None:
    """The file is right where config.json says tied and two matrices are there, as in transformers."""
    model = build("llama", tied=False, layers=1, dtype=dtype)
    model.config["tie_word_embeddings"] = True
    assert_holds(open_checkpoint(save(model, tmp_path)), model)


@pytest.mark.parametrize("dtype", NUMPY_DTYPES)
def test_a_head_of_the_embedding_s_numbers_is_tied_whatever_their_bits(tmp_path: Path, dtype: str) -> None:
    """Zeros of both signs are one number, in 16 bits too."""
    model = build("llama", tied=True, layers=1, dtype=dtype)
    rows = model.floats(EMBEDDING).copy()
    rows[7] = 0.0
    model.tensors[EMBEDDING] = narrowed(rows, dtype)
    path = save(model, tmp_path)
    rows[7] = -0.0
    write_tensors({**model.tensors, HEAD: narrowed(rows, dtype)}, path / "model.safetensors")
    assert_holds(open_checkpoint(path), model)


def test_stored_rotary_buffers_are_ignored(tmp_path: Path) -> None:
    """Old files hold inv_freq, which follows from the configuration."""
    model = build(layers=1)
    buffer = {"model.layers.0.self_attn.rotary_emb.inv_freq": np.ones(8, dtype=np.float32)}
    save(model, tmp_path)
    write_tensors({**model.tensors, **buffer}, tmp_path / "model.safetensors")
    assert_holds(open_checkpoint(tmp_path), model)


def test_shards_may_be_links(tmp_path: Path) -> None:
    """A download cache keeps its files elsewhere and links to them."""
    model = build(layers=1)
    directory = save(model, tmp_path / "model", "sharded")
    for number, shard in enumerate(sorted(directory.glob("*.safetensors"))):
        blob = tmp_path / f"blob{number}"
        shard.rename(blob)
        shard.symlink_to(blob)
    assert_holds(open_checkpoint(directory), model)


MEMORY_PROBE = """
import sys
from pathlib import Path
import psutil
from coordinator.checkpoints.checkpoint import open_checkpoint
from coordinator.checkpoints.tensor_names import expected_shapes
if sys.argv[2] == "bin":
    import torch
resident_bytes = lambda: psutil.Process().memory_info().rss
before = resident_bytes()
checkpoint = open_checkpoint(Path(sys.argv[1]))
total = largest = highest = 0
for name in expected_shapes(checkpoint.spec):
    tensor = checkpoint.read(name)
    total += tensor.nbytes
    largest = max(largest, tensor.nbytes)
    highest = max(highest, resident_bytes())
    del tensor
print(total, largest, highest - before)
"""
# Sampled, because the peak that getrusage knows is inherited from the process that started this one.


@pytest.fixture(scope="module")
def large_model() -> RandomModel:
    """Return a model of 208 MiB whose largest tensor has 12."""
    return build(layers=4, hidden_size=1024, intermediate_size=3072, query_heads=8, kv_heads=8, head_size=128)


@pytest.mark.parametrize("fmt", ["safetensors", "bin", "gguf"])
def test_reading_a_whole_model_takes_the_memory_of_a_few_tensors(
    tmp_path: Path, fmt: Format, large_model: RandomModel
) -> None:
    """Memory follows the largest tensor, not the file: nothing read or mapped piles up."""
    path = save(large_model, tmp_path, fmt)
    result = subprocess.run(
        [sys.executable, "-c", MEMORY_PROBE, str(path), fmt],
        capture_output=True, text=True, cwd=REPOSITORY, env={**os.environ, "PYTHONPATH": str(REPOSITORY)}, check=True,
    )  # fmt: skip
    total, largest, grown = (int(word) for word in result.stdout.split())
    assert total > 200 * MEBIBYTE
    assert grown < 40 * MEBIBYTE + 4 * largest
