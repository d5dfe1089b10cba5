"""Builds a pipeline out of a sentencepiece `tokenizer.model`.

Covers: BPE models, read the way transformers reads them: as a LlamaTokenizer, or by the model's own settings.
Does not cover: sentencepiece's unigram models, which no family we run uses; they are refused by name.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from google.protobuf.message import DecodeError
from tokenizers import AddedToken, Regex, decoders, normalizers, pre_tokenizers
from tokenizers import Tokenizer as Pipeline
from tokenizers.models import BPE

from common.errors import CheckpointError, UnsupportedModel
from coordinator.tokenizer.sentencepiece_pipeline import (
    SPACE,
    llama_pipeline,
    merges_of,
    prefix_space_scheme,
    space_before_a_space,
)

NORMAL, CONTROL, USER_DEFINED = 1, 3, 4
"""Kinds of piece: mergeable; never part of a text; part of it, but never cut or merged."""
BPE_MODEL = 2


def read_sentencepiece_model(path: Path) -> Any:
    """Return the ModelProto in `path`.

    Raises: CheckpointError: not a sentencepiece model. UnsupportedModel: not a BPE model.
    """
    # Imported here: most models bring a tokenizer.json, and their start need not load sentencepiece.
    from sentencepiece import sentencepiece_model_pb2

    data = _bytes(path)
    if re.match(rb"[A-Za-z0-9+/]+=* 0\r?\n", data):
        raise UnsupportedModel(f"'{path}' is a tiktoken vocabulary, which is not supported; put the tokenizer.json of "
                               "the same model beside it")  # fmt: skip
    proto: Any = sentencepiece_model_pb2.ModelProto()  # type: ignore[attr-defined]  # made at import, by protobuf
    try:
        proto.ParseFromString(data)
    except DecodeError as error:
        raise CheckpointError(f"'{path}' is not a sentencepiece model: {error}") from error
    if not proto.pieces:
        raise CheckpointError(f"'{path}' is not a sentencepiece model: it has no pieces")
    if proto.trainer_spec.model_type != BPE_MODEL:
        kind = proto.trainer_spec.ModelType.Name(proto.trainer_spec.model_type)
        raise UnsupportedModel(f"sentencepiece model type '{kind}' in '{path}' is not supported; known: BPE")
    if len({piece.piece for piece in proto.pieces}) != len(proto.pieces):
        raise CheckpointError(f"'{path}' lists the same piece twice")
    return proto


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"'{path}' cannot be read: {error.strerror}") from error


def added_pieces(proto: Any, *kinds: int) -> tuple[AddedToken, ...]:
    """Return the pieces of these kinds as tokens that are found in a text before anything else."""
    return tuple(
        AddedToken(piece.piece, normalized=False, special=piece.type == CONTROL)
        for piece in proto.pieces
        if piece.type in kinds
    )


def own_special_tokens(proto: Any) -> dict[str, AddedToken]:
    """Return the tokens outside the text that the model itself names, by role."""
    spec = proto.trainer_spec
    named = {
        "unk_token": (spec.unk_id, spec.unk_piece),
        "bos_token": (spec.bos_id, spec.bos_piece),
        "eos_token": (spec.eos_id, spec.eos_piece),
    }
    return {name: AddedToken(piece, special=True) for name, (i, piece) in named.items() if i >= 0}


def build_llama_pipeline(proto: Any, *, prefix_space: str) -> Pipeline:
    """Return what transformers' LlamaTokenizer makes of the model: Llama's settings, whatever the file says."""
    vocab = {piece.piece: i for i, piece in enumerate(proto.pieces)}
    return llama_pipeline(vocab, merges_of(vocab), prefix_space=prefix_space)


def build_own_pipeline(proto: Any, *, legacy: bool, names: Mapping[int, str]) -> Pipeline:
    """Return a pipeline that follows the model's own normalizer settings.

    Args: legacy: the space before a text is also put after each special token; names: what the directory calls
        pieces that are placeholders in the model.
    """
    pieces = _renamed_pieces(proto, names)
    vocab = {text: i for i, text in enumerate(pieces)}
    ranks = {pieces[i]: (-piece.score, i) for i, piece in enumerate(proto.pieces) if piece.type == NORMAL}
    whole_pieces = [pieces[i] for i, piece in enumerate(proto.pieces) if piece.type == USER_DEFINED]
    byte_fallback = proto.trainer_spec.byte_fallback
    pipeline = Pipeline(
        BPE(
            vocab=vocab,
            merges=merges_of(ranks),
            unk_token=proto.trainer_spec.unk_piece,
            fuse_unk=True,
            byte_fallback=byte_fallback,
            ignore_merges=bool(whole_pieces),
        )
    )
    spec = proto.normalizer_spec
    pipeline.normalizer = normalizers.Sequence(_normalizers(spec, legacy=legacy))
    pipeline.pre_tokenizer = _pre_tokenizer(spec, whole_pieces, legacy=legacy)
    stages: list[Any] = [decoders.Replace(SPACE, " ")]
    stages += [decoders.ByteFallback()] if byte_fallback else []
    stages += [decoders.Fuse()]
    stages += [decoders.Strip(content=" ", left=1)] if spec.add_dummy_prefix else []
    pipeline.decoder = decoders.Sequence(stages)
    return pipeline


def _renamed_pieces(proto: Any, names: Mapping[int, str]) -> list[str]:
    """Return the text of every piece; a new name never takes that of a piece which keeps its own."""
    kept = {piece.piece for i, piece in enumerate(proto.pieces) if i not in names}
    pieces = [names[i] if i in names and names[i] not in kept else piece.piece for i, piece in enumerate(proto.pieces)]
    if len(set(pieces)) != len(pieces):
        raise CheckpointError("added_tokens_decoder in tokenizer_config.json gives two pieces the same name")
    return pieces


def _normalizers(spec: Any, *, legacy: bool) -> list[Any]:
    """Return sentencepiece's normalizer_spec as steps, in its order."""
    steps: list[Any] = []
    if spec.precompiled_charsmap:
        steps.append(normalizers.Precompiled(spec.precompiled_charsmap))
    if spec.remove_extra_whitespaces:
        steps += [normalizers.Replace(Regex(r"\A +| +\z"), ""), normalizers.Replace(Regex(" {2,}"), " ")]
    if spec.escape_whitespaces:
        steps.append(normalizers.Replace(" ", SPACE))
    if spec.add_dummy_prefix and legacy:
        steps.append(space_before_a_space())
    return steps


def _pre_tokenizer(spec: Any, whole_pieces: Sequence[str], *, legacy: bool) -> Any:
    """Return what puts the space before a text and keeps user-defined pieces out of merges; None for neither."""
    steps: list[Any] = []
    if spec.add_dummy_prefix:
        scheme = prefix_space_scheme(add_prefix_space=True, legacy=legacy)
        steps.append(pre_tokenizers.Metaspace(replacement=SPACE, prepend_scheme=scheme, split=False))
    if whole_pieces:
        pattern = "|".join(re.escape(piece) for piece in sorted(whole_pieces, key=len, reverse=True))
        steps.append(pre_tokenizers.Split(Regex(pattern), behavior="isolated"))
    return pre_tokenizers.Sequence(steps) if steps else None
