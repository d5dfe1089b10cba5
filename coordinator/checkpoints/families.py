"""The model families that can be run: one small declarative entry each.

Covers: names, biases, norms, sliding windows and default sizes in which the families of the Llama shape differ.
Does not cover: reading config.json (model_config.py) or GGUF metadata (gguf_metadata.py).
Source: the configuration and modeling classes of transformers 5.24.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from common.errors import UnsupportedModel
from coordinator.checkpoints.config_values import shown

WindowRule = Literal["none", "every_layer", "by_layer"]


@dataclass(frozen=True, kw_only=True)
class Family:
    """What sets one family apart; a bias rule is yes, no, or the config key that says so."""

    name: str
    """config.json's `model_type` and the spec's family."""
    architecture: str
    """config.json's `architectures` entry."""
    gguf_architecture: str | None
    """GGUF's `general.architecture`; None when the family has no name of its own there."""
    gguf_interleaved_rotary: bool = False
    """GGUF files hold rotary pairs side by side: rows of q and k are permuted back when read."""
    qkv_bias: bool | str = False
    output_bias: bool | str = False
    ffn_bias: bool | str = False
    qk_norm: bool = False
    window_rule: WindowRule = "none"
    """`every_layer`: sliding_window counts whenever it is set. `by_layer`: only with use_sliding_window,
    on the layers of layer_types, or from max_window_layers on."""
    default_kv_head_count: int | None = None
    """When config.json does not say; None: as many as query heads."""
    default_head_size: int | None = None
    """When config.json does not say; None: hidden size divided by query heads."""
    default_sliding_window: int | None = None
    """When config.json does not say; an explicit null is none."""
    default_sizes: Mapping[str, int]
    """By key, what config.json means that leaves it out."""

    @property
    def base_architecture(self) -> str:
        """The `architectures` entry of the model without its head."""
        return self.architecture.replace("ForCausalLM", "Model")


def _sizes(**others: int) -> Mapping[str, int]:
    return {"hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32, **others}


FAMILIES = (
    Family(
        name="llama",  # Llama 1 to 3.2, Yi, SmolLM2, TinyLlama; GGUF files of Mistral come under this name too
        architecture="LlamaForCausalLM",
        gguf_architecture="llama",
        gguf_interleaved_rotary=True,
        qkv_bias="attention_bias",
        output_bias="attention_bias",
        ffn_bias="mlp_bias",
        default_sizes=_sizes(intermediate_size=11008, vocab_size=32000, max_position_embeddings=2048),
    ),
    Family(
        name="mistral",
        architecture="MistralForCausalLM",
        gguf_architecture=None,
        window_rule="every_layer",
        default_kv_head_count=8,
        default_sliding_window=4096,
        default_sizes=_sizes(intermediate_size=14336, vocab_size=32000, max_position_embeddings=131072),
    ),
    Family(
        name="qwen2",
        architecture="Qwen2ForCausalLM",
        gguf_architecture="qwen2",
        qkv_bias=True,
        window_rule="by_layer",
        default_kv_head_count=32,
        default_sliding_window=4096,
        default_sizes=_sizes(intermediate_size=22016, vocab_size=151936, max_position_embeddings=32768),
    ),
    Family(
        name="qwen3",
        architecture="Qwen3ForCausalLM",
        gguf_architecture="qwen3",
        qkv_bias="attention_bias",
        output_bias="attention_bias",
        qk_norm=True,
        window_rule="by_layer",
        default_kv_head_count=32,
        default_head_size=128,
        default_sliding_window=4096,
        default_sizes=_sizes(intermediate_size=22016, vocab_size=151936, max_position_embeddings=32768),
    ),
)


def family_of_architecture(architecture: str) -> Family:
    """Return the family with this `architectures` entry, in any case: the first files have LLaMAForCausalLM.

    The model without its head (`LlamaModel`) is what AutoModel saves; whether a head is there the tensors say.

    Raises: UnsupportedModel: there is none; the message lists those there are.
    """
    for family in FAMILIES:
        if architecture.lower() in (family.architecture.lower(), family.base_architecture.lower()):
            return family
    known = ", ".join(family.architecture for family in FAMILIES)
    raise UnsupportedModel(f"config.json: architecture {shown(architecture)} is not supported; supported: {known}")


def family_of_gguf(architecture: str) -> Family:
    """Return the family with this GGUF `general.architecture`.

    Raises: UnsupportedModel: there is none; the message lists those there are.
    """
    for family in FAMILIES:
        if family.gguf_architecture == architecture:
            return family
    known = ", ".join(family.gguf_architecture for family in FAMILIES if family.gguf_architecture)
    raise UnsupportedModel(f"GGUF architecture {shown(architecture)} is not supported; supported: {known}")
