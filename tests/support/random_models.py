"""Small random models, and their checkpoints in every format that can be read, made without torch or transformers.

    model = build("qwen2", tied=True, rope={"rope_type": "yarn", "factor": 4.0})
    path = save(model, tmp_path, fmt="sharded")      # what open_checkpoint and --model take

Configurations are those that transformers writes for the same settings; `make golden` fails where they are not.
Every weight is random, norms and biases too (a fresh transformers model has ones and zeros there, which hide
mistakes), and large enough that logits are far apart. The same seed gives the same bits on every machine.
Does not cover: GGUF files (gguf_models.py writes them; `save` calls it), tokenizers (byte_tokenizer.py; likewise).
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pytest

from common.weights.stored_numbers import Floats, Stored, narrowed
from tests.support.byte_tokenizer import write_byte_tokenizer
from tests.support.gguf_models import write_gguf
from tests.support.model_tensors import EMBEDDING, HEAD, RandomModel
from tests.support.safetensors_files import write_tensors

Format = Literal["safetensors", "sharded", "bin", "sharded-bin", "gguf"]
FORMATS: tuple[Format, ...] = ("safetensors", "sharded", "bin", "sharded-bin", "gguf")
INSTEAD_OF_BIN: Mapping[Format, Format] = {"bin": "safetensors", "sharded-bin": "sharded"}

FAMILY_CLASSES = {"llama": "Llama", "mistral": "Mistral", "qwen2": "Qwen2", "qwen3": "Qwen3"}
FAMILIES = tuple(FAMILY_CLASSES)

ROPES: Mapping[str, dict[str, Any]] = {
    "default": {"rope_type": "default"},
    "linear": {"rope_type": "linear", "factor": 2.5},
    "dynamic": {"rope_type": "dynamic", "factor": 3.0},
    "yarn": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64},
    "yarn-mscale": {
        "rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64, "mscale": 1.2,
        "mscale_all_dim": 0.7, "beta_fast": 24.0, "beta_slow": 2.0, "truncate": False,
    },
    "llama3": {
        "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64,
    },
}  # fmt: skip
"""One setting of every rope scaling; use as `build(..., rope=ROPES["yarn"])`."""

SHARD_COUNT = 3

_EVERY_CONFIG: dict[str, Any] = {
    "transformers_version": "5.24.0", "output_hidden_states": False, "return_dict": True,
    "chunk_size_feed_forward": 0, "is_encoder_decoder": False, "id2label": {"0": "LABEL_0", "1": "LABEL_1"},
    "label2id": {"LABEL_0": 0, "LABEL_1": 1}, "problem_type": None, "vocab_size": 320, "hidden_size": 64,
    "intermediate_size": 96, "hidden_act": "silu", "max_position_embeddings": 256, "initializer_range": 0.02,
    "rms_norm_eps": 1e-06, "use_cache": True, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
    "attention_dropout": 0.0, "_name_or_path": "", "output_attentions": False,
}  # fmt: skip
_QWEN: dict[str, Any] = {"use_sliding_window": False, "sliding_window": 4096, "max_window_layers": 28}
_FAMILY_CONFIGS: dict[str, dict[str, Any]] = {
    "llama": {"pretraining_tp": 1, "attention_bias": False, "mlp_bias": False},
    "mistral": {"sliding_window": None},
    "qwen2": _QWEN,
    "qwen3": {"attention_bias": False, **_QWEN},
}


def build(
    family: str = "llama",
    *,
    seed: int = 0,
    tied: bool = False,
    query_heads: int = 4,
    kv_heads: int = 2,
    head_size: int = 16,
    layers: int = 3,
    rope: Mapping[str, Any] | None = None,
    theta: float = 10000.0,
    dtype: str = "float32",
    **config: Any,
) -> RandomModel:
    """Return a random model.

    Args: rope: `rope_parameters` without rope_theta. dtype: of NUMPY_DTYPES. config: further keys of the family's
        configuration, such as attention_bias, mlp_bias, sliding_window, use_sliding_window, hidden_size, vocab_size.
    """
    settings: dict[str, Any] = {
        **_EVERY_CONFIG,
        **_FAMILY_CONFIGS[family],
        "architectures": [f"{FAMILY_CLASSES[family]}ForCausalLM"],
        "model_type": family,
        "dtype": dtype,
        "num_hidden_layers": layers,
        "num_attention_heads": query_heads,
        "num_key_value_heads": kv_heads,
        "head_dim": head_size,
        "tie_word_embeddings": tied,
        "rope_parameters": {"rope_type": "default", **(rope or {}), "rope_theta": theta},
        **config,
    }
    if family in ("qwen2", "qwen3"):
        _say_where_it_slides(settings)
    generator = np.random.Philox(key=seed)
    tensors = {name: narrowed(_random(generator, name, shape), dtype) for name, shape in _shapes(settings)}
    return RandomModel(config=settings, tensors=tensors)


def save(
    model: RandomModel,
    directory: Path,
    fmt: Format = "safetensors",
    *,
    config_spelling: Literal[4, 5] = 5,
    quantization: str | None = None,
    tokenizer: bool = True,
) -> Path:
    """Write `model` into `directory` (made when missing) and return what to open: the directory or the GGUF file.

    A test that wants a `.bin` is skipped without torch, which nobody can read one without.

    Args: config_spelling: of which version of transformers config.json is. quantization: of a GGUF's matrices, such
        as "Q8_0"; None keeps the model's dtype. tokenizer: write a byte-level one that knows every id.
    """
    directory.mkdir(parents=True, exist_ok=True)
    if fmt == "gguf":
        return write_gguf(model, directory / "model.gguf", quantization=quantization)
    if fmt in ("safetensors", "sharded"):
        _save_safetensors(model, directory, shard_count=SHARD_COUNT if fmt == "sharded" else 1)
    else:
        _save_bin(model, directory, shard_count=SHARD_COUNT if fmt == "sharded-bin" else 1)
    write_config(directory, model.config, spelling=config_spelling)
    if tokenizer:
        write_byte_tokenizer(directory, model.config["vocab_size"])
    return directory


def write_config(directory: Path, config: Mapping[str, Any], *, spelling: Literal[4, 5] = 5) -> None:
    """Write `config`, as transformers 5 spells it, to config.json in either spelling."""
    settings = dict(config)
    if spelling == 4:
        rope = dict(settings.pop("rope_parameters"))
        settings["rope_theta"] = rope.pop("rope_theta")
        settings["torch_dtype"] = settings.pop("dtype")
        rope_type = rope.pop("rope_type")
        key = "rope_type" if rope_type == "llama3" else "type"  # Llama 3.1 came with the new key
        settings["rope_scaling"] = None if rope_type == "default" else {key: rope_type, **rope}
    (directory / "config.json").write_text(json.dumps(settings, indent=2))


def readable(fmt: Format) -> Format:
    """Return the format itself, or safetensors for a `.bin` where torch is not there to read it."""
    if fmt not in INSTEAD_OF_BIN:
        return fmt
    return fmt if find_spec("torch") else INSTEAD_OF_BIN[fmt]


def save_bin(tensors: Mapping[str, Stored], path: Path) -> None:
    """Write a state dictionary as torch does; the test is skipped without torch."""
    torch = pytest.importorskip("torch", reason="a .bin file is read by torch: pip install 'shardmesh[torch]'")
    state = {}
    for name, tensor in tensors.items():
        values = torch.from_numpy(tensor.view(np.int16) if tensor.dtype == np.uint16 else tensor)
        state[name] = values.view(torch.bfloat16) if tensor.dtype == np.uint16 else values
    torch.save(state, path)


def _say_where_it_slides(settings: dict[str, Any]) -> None:
    """Set what transformers' configuration of a Qwen says of windows, layer by layer."""
    if not settings["use_sliding_window"]:
        settings["sliding_window"] = None
    slides = settings["sliding_window"] is not None
    settings.setdefault(
        "layer_types",
        [
            "sliding_attention" if slides and layer >= settings["max_window_layers"] else "full_attention"
            for layer in range(settings["num_hidden_layers"])
        ],
    )


def _shapes(config: Mapping[str, Any]) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Yield every tensor of a configuration, in transformers' order."""
    hidden, ffn, vocab = config["hidden_size"], config["intermediate_size"], config["vocab_size"]
    head = config["head_dim"]
    queries, keys = config["num_attention_heads"] * head, config["num_key_value_heads"] * head
    attention_bias = config.get("attention_bias", False)
    qkv_bias = config["model_type"] == "qwen2" or attention_bias
    projections = (
        ("self_attn.q_proj", queries, hidden, qkv_bias),
        ("self_attn.k_proj", keys, hidden, qkv_bias),
        ("self_attn.v_proj", keys, hidden, qkv_bias),
        ("self_attn.o_proj", hidden, queries, attention_bias),
        ("mlp.gate_proj", ffn, hidden, config.get("mlp_bias", False)),
        ("mlp.up_proj", ffn, hidden, config.get("mlp_bias", False)),
        ("mlp.down_proj", hidden, ffn, config.get("mlp_bias", False)),
    )
    yield EMBEDDING, (vocab, hidden)
    for layer in range(config["num_hidden_layers"]):
        prefix = f"model.layers.{layer}."
        for name, rows, columns, has_bias in projections:
            yield f"{prefix}{name}.weight", (rows, columns)
            if has_bias:
                yield f"{prefix}{name}.bias", (rows,)
        if config["model_type"] == "qwen3":
            yield f"{prefix}self_attn.q_norm.weight", (head,)
            yield f"{prefix}self_attn.k_norm.weight", (head,)
        yield f"{prefix}input_layernorm.weight", (hidden,)
        yield f"{prefix}post_attention_layernorm.weight", (hidden,)
    yield "model.norm.weight", (hidden,)
    if not config["tie_word_embeddings"]:
        yield HEAD, (vocab, hidden)


def _random(generator: np.random.Philox, name: str, shape: tuple[int, ...]) -> Floats:
    noise = random_numbers(generator, shape)
    if name.endswith("bias"):
        noise *= 0.3
    elif len(shape) == 1:
        noise = 1 + 0.2 * noise
    else:
        noise *= 1.5 / math.sqrt(shape[1])
    return noise.astype(np.float32)


def random_numbers(generator: np.random.Philox, shape: tuple[int, ...]) -> npt.NDArray[np.float64]:
    """Return float64 numbers of mean 0 and deviation 1, nearly a bell curve: four 16-bit integers added, exactly."""
    parts = generator.random_raw(math.prod(shape)).astype("<u8", copy=False).view("<u2").reshape(*shape, 4)
    sums = parts[..., 0].astype(np.int32)
    for index in (1, 2, 3):
        sums += parts[..., index]
    numbers: npt.NDArray[np.float64] = (sums - 2 * 65535) / (65536 * math.sqrt(1 / 3))
    return numbers


def _parts(tensors: Mapping[str, Stored], shard_count: int) -> list[dict[str, Stored]]:
    names = list(tensors)
    cuts = [shard * len(names) // shard_count for shard in range(shard_count + 1)]
    return [{name: tensors[name] for name in names[a:b]} for a, b in itertools.pairwise(cuts)]


def _write_index(path: Path, parts: Mapping[str, Mapping[str, Stored]]) -> None:
    total = sum(tensor.nbytes for part in parts.values() for tensor in part.values())
    weight_map = {name: file for file, part in parts.items() for name in part}
    path.write_text(json.dumps({"metadata": {"total_size": total}, "weight_map": weight_map}))


def _save_safetensors(model: RandomModel, directory: Path, *, shard_count: int) -> None:
    if shard_count == 1:
        write_tensors(model.tensors, directory / "model.safetensors")
        return
    parts = {
        f"model-{number:05d}-of-{shard_count:05d}.safetensors": part
        for number, part in enumerate(_parts(model.tensors, shard_count), start=1)
    }
    for file, part in parts.items():
        write_tensors(part, directory / file)
    _write_index(directory / "model.safetensors.index.json", parts)


def _save_bin(model: RandomModel, directory: Path, *, shard_count: int) -> None:
    """Write what transformers 4 wrote: state dictionaries, with a tied head under both names."""
    state = {**model.tensors, HEAD: model.tensors.get(HEAD, model.tensors[EMBEDDING])}
    if shard_count == 1:
        save_bin(state, directory / "pytorch_model.bin")
        return
    parts = {
        f"pytorch_model-{number:05d}-of-{shard_count:05d}.bin": part
        for number, part in enumerate(_parts(state, shard_count), start=1)
    }
    for file, part in parts.items():
        save_bin(part, directory / file)
    _write_index(directory / "pytorch_model.bin.index.json", parts)
