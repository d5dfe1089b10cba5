"""Small random models of transformers' own classes, and their checkpoints in every format that can be read.

    model = build("qwen2", tied=True, rope={"rope_type": "yarn", "factor": 4.0})
    path = save(model, tmp_path, fmt="sharded")      # what open_checkpoint and --model take

Every weight is random, norms and biases too (a fresh transformers model has ones and zeros there, which hide
mistakes), and large enough that logits are far apart.
Does not cover: GGUF files (gguf_models.py writes them; `save` calls it), tokenizers (byte_tokenizer.py; likewise).
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
import transformers
from transformers import PreTrainedModel

from tests.support.byte_tokenizer import write_byte_tokenizer
from tests.support.gguf_models import write_gguf

Format = Literal["safetensors", "sharded", "bin", "sharded-bin", "gguf"]
FORMATS: tuple[Format, ...] = ("safetensors", "sharded", "bin", "sharded-bin", "gguf")

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
    dtype: torch.dtype = torch.float32,
    **config: Any,
) -> PreTrainedModel:
    """Return a random model in evaluation mode.

    Args: rope: `rope_parameters` without rope_theta. config: further keys of the family's configuration, such as
        attention_bias, mlp_bias, sliding_window, use_sliding_window, hidden_size, vocab_size.
    """
    name = FAMILY_CLASSES[family]
    sizes: dict[str, Any] = {
        "hidden_size": 64,
        "intermediate_size": 96,
        "vocab_size": 320,
        "max_position_embeddings": 256,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 0,
    }
    if family == "mistral":
        sizes["sliding_window"] = None
    settings: dict[str, Any] = {
        **sizes,
        "num_hidden_layers": layers,
        "num_attention_heads": query_heads,
        "num_key_value_heads": kv_heads,
        "head_dim": head_size,
        "tie_word_embeddings": tied,
        "rope_parameters": {"rope_type": "default", **(rope or {}), "rope_theta": theta},
        **config,
    }
    configuration = getattr(transformers, f"{name}Config")(**settings)
    configuration.architectures = [f"{name}ForCausalLM"]
    configuration.dtype = dtype
    model: PreTrainedModel = getattr(transformers, f"{name}ForCausalLM")(configuration)
    _randomize(model, seed)
    torch.nn.Module.to(model, dtype)
    model.train(mode=False)
    return model


def save(
    model: PreTrainedModel,
    directory: Path,
    fmt: Format = "safetensors",
    *,
    config_spelling: Literal[4, 5] = 5,
    quantization: str | None = None,
    tokenizer: bool = True,
) -> Path:
    """Write `model` into `directory` (made when missing) and return what to open: the directory or the GGUF file.

    Args: config_spelling: of which version of transformers config.json is. quantization: of a GGUF's matrices, such
        as "Q8_0"; None keeps the model's dtype. tokenizer: write a byte-level one that knows every id.
    """
    directory.mkdir(parents=True, exist_ok=True)
    if fmt == "gguf":
        return write_gguf(model, directory / "model.gguf", quantization=quantization)
    if fmt == "safetensors":
        model.save_pretrained(directory)
    elif fmt == "sharded":
        model.save_pretrained(directory, max_shard_size=_total_bytes(model) // SHARD_COUNT)
    else:
        _save_bin(model, directory, shard_count=SHARD_COUNT if fmt == "sharded-bin" else 1)
    write_config(directory, model.config.to_dict(), spelling=config_spelling)
    if tokenizer:
        write_byte_tokenizer(directory, model.config.vocab_size)
    return directory


def write_config(directory: Path, config: Mapping[str, Any], *, spelling: Literal[4, 5] = 5) -> None:
    """Write `config`, as transformers 5 spells it, to config.json in either spelling."""
    settings = dict(config)
    if isinstance(settings.get("dtype"), torch.dtype):
        settings["dtype"] = str(settings["dtype"]).removeprefix("torch.")
    if spelling == 4:
        rope = dict(settings.pop("rope_parameters"))
        settings["rope_theta"] = rope.pop("rope_theta")
        settings["torch_dtype"] = settings.pop("dtype")
        rope_type = rope.pop("rope_type")
        key = "rope_type" if rope_type == "llama3" else "type"  # Llama 3.1 came with the new key
        settings["rope_scaling"] = None if rope_type == "default" else {key: rope_type, **rope}
    (directory / "config.json").write_text(json.dumps(settings, indent=2))


def _randomize(model: PreTrainedModel, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if name.endswith("bias"):
                parameter.copy_(0.3 * noise)
            elif parameter.dim() == 1:
                parameter.copy_(1 + 0.2 * noise)
            else:
                parameter.copy_(1.5 * noise / math.sqrt(parameter.shape[1]))


def _total_bytes(model: PreTrainedModel) -> int:
    return sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())


def _save_bin(model: PreTrainedModel, directory: Path, *, shard_count: int) -> None:
    """Write what transformers 4 wrote: state dictionaries, with a tied head under both names."""
    state = dict(model.state_dict())
    if shard_count == 1:
        torch.save(state, directory / "pytorch_model.bin")
        return
    names = list(state)
    weight_map: dict[str, str] = {}
    for shard in range(shard_count):
        file = f"pytorch_model-{shard + 1:05d}-of-{shard_count:05d}.bin"
        part = names[shard * len(names) // shard_count : (shard + 1) * len(names) // shard_count]
        torch.save({name: state[name] for name in part}, directory / file)
        weight_map.update(dict.fromkeys(part, file))
    index = {"metadata": {"total_size": _total_bytes(model)}, "weight_map": weight_map}
    (directory / "pytorch_model.bin.index.json").write_text(json.dumps(index))
