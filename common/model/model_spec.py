"""The numbers that define a model's maths, whatever file format or family they came from.

Covers: shapes, rotary scaling, biases, norms, sliding windows of the Llama shape.
Does not cover: reading config.json or GGUF metadata (coordinator/checkpoints), tokens and chat templates
(coordinator/tokenizer).
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import Any

from common.errors import UnsupportedModel
from common.model.size_limits import check_products

ROPE_TYPES = ("default", "linear", "dynamic", "yarn", "llama3", "factors")
ACTIVATIONS = ("silu", "gelu", "gelu_tanh")
KV_ITEM_BYTES = 4
"""Keys and values are kept in float32."""

# Limits on what a file may claim, far above any real model: a hostile manifest must not
# make us allocate or loop without bound.
MAX_DIMENSION = 1 << 24
MAX_LAYER_COUNT = 1 << 12


@dataclass(frozen=True, kw_only=True)
class RopeSpec:
    """Rotary position embedding: base, and how it is stretched beyond the trained context.

    Source: arXiv:2104.09864 (rotary), arXiv:2309.00071 (linear, dynamic NTK, YaRN),
    Llama 3.1 model card (llama3).
    """

    rope_type: str = "default"
    """One of ROPE_TYPES. `factors`: a divisor per frequency, as GGUF files carry it."""
    theta: float = 10000.0
    """Base of the geometric series of wavelengths."""
    factor: float = 1.0
    """How many times the context is stretched."""
    original_position_count: int = 0
    """Context length before stretching; 0 where the type does not use it."""
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    attention_factor: float = 1.0
    """What cosine and sine are multiplied by (YaRN)."""
    truncate: bool = True
    """YaRN: round the correction range to whole dimensions."""
    frequency_factors: tuple[float, ...] = ()
    """rope_type `factors`: inverse frequency i is divided by entry i."""

    def __post_init__(self) -> None:
        if self.rope_type not in ROPE_TYPES:
            raise UnsupportedModel(f"rope type '{self.rope_type}' is not supported; known: {', '.join(ROPE_TYPES)}")
        if not self.theta > 0 or not self.factor > 0:
            raise UnsupportedModel(f"rope theta {self.theta} and factor {self.factor} must be positive")
        if self.rope_type in ("dynamic", "yarn", "llama3") and self.original_position_count <= 0:
            raise UnsupportedModel(f"rope type '{self.rope_type}' needs the original context length")


@dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """One decoder of the Llama shape.

    Every count is of the whole model, not of a slice. Shapes used elsewhere:
    hidden state [token_count, hidden_size]; queries [token_count, query_head_count * head_size].
    """

    family: str
    """Name of the entry of coordinator/checkpoints/families.py that read it."""
    hidden_size: int
    layer_count: int
    query_head_count: int
    kv_head_count: int
    head_size: int
    ffn_size: int
    """Columns of the gated feed-forward block."""
    vocab_size: int
    max_position_count: int
    """Longest context in tokens."""
    norm_epsilon: float
    rope: RopeSpec
    activation: str = "silu"
    qkv_bias: bool = False
    """Query, key and value projections have a bias."""
    output_bias: bool = False
    """The attention's output projection has a bias (added once, by the coordinator)."""
    ffn_bias: bool = False
    """Gate and up have a bias, and down has one that the coordinator adds once."""
    qk_norm: bool = False
    """Queries and keys pass an RMS norm per head before the rotary embedding (Qwen3)."""
    sliding_windows: tuple[int, ...] = ()
    """Per layer: how many positions a token sees, itself included; 0 for all of them."""
    tied_embeddings: bool = False
    """The head's matrix is the embedding's."""

    @property
    def layer_value_count(self) -> int:
        """Numbers in the matrices of one layer."""
        heads = 2 * self.head_size * (self.query_head_count + self.kv_head_count)
        return self.hidden_size * (heads + 3 * self.ffn_size)

    def kv_bytes(self, kv_head_count: int, position_count: int) -> int:
        """Return the bytes of keys and values, float32, of so many KV heads over all layers and positions."""
        return 2 * self.layer_count * kv_head_count * self.head_size * KV_ITEM_BYTES * position_count

    def __post_init__(self) -> None:
        for name in (
            "hidden_size", "layer_count", "query_head_count", "kv_head_count",
            "head_size", "ffn_size", "vocab_size", "max_position_count",
        ):  # fmt: skip
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= MAX_DIMENSION:
                raise UnsupportedModel(f"{name} is {value!r}; a whole number from 1 to {MAX_DIMENSION} is needed")
        if self.layer_count > MAX_LAYER_COUNT:
            raise UnsupportedModel(f"layer_count is {self.layer_count}; at most {MAX_LAYER_COUNT} is supported")
        check_products(vars(self))
        if not 0 <= self.norm_epsilon < 1:
            raise UnsupportedModel(f"norm_epsilon is {self.norm_epsilon!r}; a number from 0 to 1 is needed")
        if self.query_head_count % self.kv_head_count:
            raise UnsupportedModel(f"{self.query_head_count} query heads cannot share {self.kv_head_count} KV heads")
        if self.head_size % 2:
            raise UnsupportedModel(f"head_size is {self.head_size}; rotary embeddings need an even number")
        if self.activation not in ACTIVATIONS:
            raise UnsupportedModel(f"activation '{self.activation}' is not supported; known: {', '.join(ACTIVATIONS)}")
        if not self.sliding_windows:
            object.__setattr__(self, "sliding_windows", (0,) * self.layer_count)
        if len(self.sliding_windows) != self.layer_count or min(self.sliding_windows) < 0:
            raise UnsupportedModel("sliding_windows needs one entry of 0 or more for each layer")
        factors = self.rope.frequency_factors
        if self.rope.rope_type == "factors" and len(factors) != self.head_size // 2:
            raise UnsupportedModel(f"{len(factors)} rotary frequency factors do not fit head_size {self.head_size}")

    @property
    def group_size(self) -> int:
        """Query heads that share one KV head."""
        return self.query_head_count // self.kv_head_count

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values that `from_json` reads back to an equal spec."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, value: Any) -> ModelSpec:
        """Read what `to_json` wrote; anything else is refused.

        Raises: UnsupportedModel: a key is missing, unknown or out of range.
        """
        try:
            fields = dict(value)
            rope = dict(fields.pop("rope"))
            rope["frequency_factors"] = tuple(float(x) for x in rope["frequency_factors"])
            fields["sliding_windows"] = tuple(int(x) for x in fields["sliding_windows"])
            return cls(rope=RopeSpec(**rope), **fields)
        except (TypeError, KeyError, ValueError) as error:
            raise UnsupportedModel(f"the model description cannot be read: {error}") from error


def canonical_json(value: Any) -> str:
    """Return the one text for `value` that hashes are made of: sorted keys, no spaces."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"))
