"""Which of transformers' names does a tensor have whose file calls it otherwise?

Covers: names without `model.` (what AutoModel saves; transformers adds it), with what wrappers of training put before
and between; buffers, which follow from the configuration and are computed anew.
Does not cover: which tensors a model needs (tensor_names.py), GGUF's names (gguf_reader.py).
"""

from __future__ import annotations

import re
from collections.abc import Iterable

_WRAPPERS = re.compile(r"(?<![^.])(?:module|_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
"""What DistributedDataParallel, torch.compile, FSDP and activation checkpointing put into names, at any place."""
_EMBEDDING = re.compile(r"(?P<outer>(?:.+?\.)??)(?:model\.)?embed_tokens\.weight")
_OF_BASE_MODEL = re.compile(r"(?:layers|norm|embed_tokens)\..+")

_BUFFERS = (
    re.compile(r"(?:.+\.)?rotary_(?:pos_)?emb\..+"),  # inv_freq, cos_cached and the like
    re.compile(r"(?:.+\.)?(?:position_ids|causal_mask|attention_mask|attn_mask|masked_bias)"),
    re.compile(r"(?:.+\.)?_extra_state"),  # Transformer Engine's: scales of its training in float8
    re.compile(r"blk\.\d+\.attn_rot_embd\.weight"),  # the first GGUF files'
)
_MASK = re.compile(r"(?:.+\.)?(?:self_)?attn\.bias")


def transformers_names(stored: Iterable[str]) -> dict[str, str]:
    """Return, by name in the file, each tensor's name in transformers; one that has none stays as it is.

    Whatever stands before `model.embed_tokens.weight` in its name (`base_model.model.`, `pretrained_model.`) is taken
    from every name. Nothing is guessed: what comes out has to be exactly the tensors of the model (check_tensors).
    """
    bare = {name: _WRAPPERS.sub("", name) for name in stored}
    outer = {match["outer"] for name in bare.values() if (match := _EMBEDDING.fullmatch(name))}
    prefix = outer.pop() if len(outer) == 1 else ""
    return {name: _with_model(shorter.removeprefix(prefix)) for name, shorter in bare.items()}


def is_buffer(name: str, shape: tuple[int, ...]) -> bool:
    """Say whether a tensor is one that a model computes from its configuration, and that files need not hold."""
    if _MASK.fullmatch(name):
        return len(shape) == 4 and shape[:2] == (1, 1)  # GPT's mask; any other one would be a bias
    return any(pattern.fullmatch(name) for pattern in _BUFFERS)


def _with_model(name: str) -> str:
    return f"model.{name}" if _OF_BASE_MODEL.fullmatch(name) else name
