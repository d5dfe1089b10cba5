"""Assembles the `tokenizers` pipeline that does what a Llama sentencepiece model does.

Covers: merges out of a ranked vocabulary, the space that stands before a text, byte fallback.
Does not cover: reading the vocabulary (sentencepiece_model.py, gguf_vocab.py), special tokens.
Source: the LlamaTokenizer of transformers 5, whose results these are.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from tokenizers import Regex, decoders, normalizers, pre_tokenizers
from tokenizers import Tokenizer as Pipeline
from tokenizers.models import BPE

SPACE = "\N{LOWER ONE EIGHTH BLOCK}"
"""How sentencepiece writes a space inside a piece."""


def merges_of(rank_of_piece: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return every way to make a piece out of two others, lowest rank first, shorter left part first."""
    merges = [
        (rank, cut, piece)
        for piece, rank in rank_of_piece.items()
        for cut in range(1, len(piece))
        if piece[:cut] in rank_of_piece and piece[cut:] in rank_of_piece
    ]
    merges.sort()
    return [(piece[:cut], piece[cut:]) for _, cut, piece in merges]


def llama_pipeline(
    vocab: Mapping[str, int], merges: Iterable[tuple[str, str]], *, prefix_space: str, unk_token: str | None = None
) -> Pipeline:
    """Return a pipeline of these pieces.

    Args: prefix_space: `never`, `first` (before the text) or `always` (also after each special token).
    """
    pipeline = Pipeline(
        BPE(vocab=dict(vocab), merges=list(merges), unk_token=unk_token, fuse_unk=True, byte_fallback=True)
    )
    set_llama_stages(pipeline, prefix_space=prefix_space)
    return pipeline


def set_llama_stages(pipeline: Pipeline, *, prefix_space: str) -> None:
    """Give `pipeline` everything but its vocabulary: spaces in, spaces and bytes out."""
    stages = [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    if prefix_space != "never":
        stages.append(decoders.Strip(content=" ", left=1))
    pipeline.normalizer = None
    pipeline.pre_tokenizer = pre_tokenizers.Metaspace(replacement=SPACE, prepend_scheme=prefix_space, split=False)
    pipeline.decoder = decoders.Sequence(stages)


def space_before_a_space() -> normalizers.Normalizer:
    """Return what puts a space before a text that has one already: sentencepiece does, Metaspace leaves it out."""
    return normalizers.Replace(Regex(rf"\A{SPACE}"), SPACE * 2)


def prefix_space_scheme(*, add_prefix_space: bool, legacy: bool) -> str:
    """Return llama_pipeline's `prefix_space` for the two flags of tokenizer_config.json."""
    if not add_prefix_space:
        return "never"
    return "always" if legacy else "first"
