"""The questions that tests ask transformers, each a function under the name by which they ask it.

Covers: everything that needs torch or transformers to be answered; answers are what JSON can hold.
Does not cover: which questions are asked (the tests that take `theirs`), keeping the answers (asking.py).
"""

from __future__ import annotations

import contextlib
import copy
import functools
import hashlib
import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from tokenizers import normalizers, pre_tokenizers
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GenerationConfig, PreTrainedModel
from transformers.modeling_gguf_pytorch_utils import load_gguf_checkpoint
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from tests.support.model_tensors import RandomModel
from tests.support.random_models import save, write_config
from tests.support.transformers_answers import packed, some_logits

LOGIT_STEP = 2.0**-13
"""Logits are kept to the nearest multiple: 6e-5, where 1e-3 is what may differ."""
CHANGES = ("", "digits", "nfc", "spaces")
"""Where transformers' reading of a GGUF file departs from the model's own tokenizer, what makes it that."""


def greedy(model: RandomModel, prompt_ids: Sequence[int], length: int) -> dict[str, Any]:
    """Return what generate() gives in float32, going on past end tokens."""
    with _loaded(model) as loaded:
        token_ids, logits = greedy_answer(loaded, prompt_ids, length=length)
    return {
        "token_ids": token_ids,
        "least_margin": least_margin(logits),
        "logits": packed(some_logits(logits.numpy()), step=LOGIT_STEP),
    }


def greedy_answer(model: PreTrainedModel, prompt_ids: Sequence[int], *, length: int) -> tuple[list[int], torch.Tensor]:
    """Return a model's tokens and the logits [length, vocab_size] they were taken from."""
    if model.dtype != torch.float32:
        raise ValueError(f"the model computes in {model.dtype}, which is no reference")
    model.generation_config = GenerationConfig(
        do_sample=False, max_new_tokens=length, pad_token_id=0, output_logits=True, return_dict_in_generate=True
    )
    ids = torch.tensor([list(prompt_ids)])
    result: Any = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids))
    return result.sequences[0, len(prompt_ids) :].tolist(), torch.cat(result.logits)


def least_margin(logits: torch.Tensor) -> float:
    """Return by how much the likeliest token led where it was closest."""
    best = logits.topk(2).values
    return round(float((best[:, 0] - best[:, 1]).min()), 5)


@contextlib.contextmanager
def _loaded(model: RandomModel) -> Iterator[PreTrainedModel]:
    """Load a model as transformers does; its configuration is no other when it comes back."""
    with tempfile.TemporaryDirectory() as directory:
        save(model, Path(directory), tokenizer=False)
        theirs = configuration(model.config)
        if theirs != model.config:
            raise ValueError(f"random_models.py writes {model.config}, and transformers {theirs}")
        loaded, report = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32, output_loading_info=True)
        if any(report.values()):
            raise ValueError(f"transformers does not take these tensors: {report}")
        yield loaded.train(mode=False)


def configuration(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return what transformers writes after reading a config.json."""
    with tempfile.TemporaryDirectory() as directory:
        write_config(Path(directory), config)
        found = AutoConfig.from_pretrained(directory).to_dict()
    found["dtype"] = str(found["dtype"]).removeprefix("torch.")
    found["_name_or_path"] = ""
    as_json: dict[str, Any] = json.loads(json.dumps(found))
    return as_json


def tensor_names(config: Mapping[str, Any]) -> list[str]:
    """Return the names of every tensor of the model that transformers builds."""
    with tempfile.TemporaryDirectory() as directory, torch.device("meta"):
        write_config(Path(directory), config)
        model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(directory))
    return sorted(model.state_dict())


def defaults(family: str, keys: Sequence[str]) -> list[Any]:
    """Return what the class of a configuration has under these keys when nothing is said."""
    theirs = getattr(transformers, f"{family}Config")()
    return [getattr(theirs, key) for key in keys]


def rope_parameters(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the rope_parameters that transformers makes of a Qwen's config.json."""
    return dict(transformers.Qwen2Config(**copy.deepcopy(dict(config))).rope_parameters)


def frequencies(config: Mapping[str, Any], lengths: Sequence[int]) -> dict[str, Any]:
    """Return the inverse frequencies of the rope of a configuration for contexts of these lengths, and the factor."""
    theirs = _config(config)
    init = ROPE_INIT_FUNCTIONS[theirs.rope_parameters["rope_type"]]
    found = [init(theirs, torch.device("cpu"), seq_len=length) for length in lengths]
    (factor,) = {float(factor) for _, factor in found}
    return {"factor": factor, "inverse": packed(torch.stack([inverse for inverse, _ in found]).numpy())}


def rotary_tables(config: Mapping[str, Any], positions: Sequence[int], length: int) -> dict[str, Any]:
    """Return cosine and sine, each [position_count, head_size / 2], in a context of `length` positions."""
    rotary = LlamaRotaryEmbedding(_config(config))
    whole = torch.arange(length) if length <= 1024 else torch.tensor(positions)
    tables = [table[0] for table in rotary(torch.zeros(1), whole[None])]
    rows = torch.tensor(positions) if length <= 1024 else torch.arange(len(positions))
    half = tables[0].shape[1] // 2
    if any(not torch.equal(table[:, :half], table[:, half:]) for table in tables):
        raise ValueError("the halves of transformers' tables are no longer alike")
    return {
        "cosine": packed(tables[0][rows, :half].numpy()),
        "sine": packed(tables[1][rows, :half].numpy()),
        "inverse": packed(rotary.inv_freq.numpy()),
        "factor": float(rotary.attention_scaling),
    }


def _config(config: Mapping[str, Any]) -> Any:
    with tempfile.TemporaryDirectory() as directory:
        write_config(Path(directory), config)
        return AutoConfig.from_pretrained(directory)


def gguf_tensors(path: Path) -> dict[str, str]:
    """Return the SHA-256 of every tensor's float32 bytes, as transformers' own loader reads a GGUF of a Llama."""
    config = transformers.LlamaConfig(**load_gguf_checkpoint(str(path))["config"])
    with torch.device("meta"):
        skeleton = transformers.LlamaForCausalLM(config)
    loaded = load_gguf_checkpoint(str(path), return_tensors=True, model_to_load=skeleton)["tensors"]
    return {
        name: hashlib.sha256(np.ascontiguousarray(tensor.float().numpy()).tobytes()).hexdigest()
        for name, tensor in loaded.items()
    }


def chances(cases: Sequence[tuple[Sequence[float], float, int, float]]) -> list[dict[str, Any]]:
    """Return for logits, temperature, k and p each token's chance, by the processors in generate()'s order."""
    found = []
    for logits, temperature, top_k, top_p in cases:
        scores: Any = torch.tensor([logits], dtype=torch.float32)
        scores = transformers.TemperatureLogitsWarper(temperature)(None, scores)
        if top_k:
            scores = transformers.TopKLogitsWarper(top_k)(None, scores)
        if top_p < 1:
            scores = transformers.TopPLogitsWarper(top_p)(None, scores)
        found.append(packed(scores[0].softmax(dim=-1).numpy()))
    return found


def changed_chances(
    cases: Sequence[tuple[Sequence[float], Sequence[int], Sequence[tuple[int, float]], float, float, float]],
) -> list[dict[str, Any]]:
    """Return each token's chance for logits, tokens so far, biases by id, repetition penalty, temperature and min-p."""
    found = []
    for logits, token_ids, biases, repetition, temperature, min_p in cases:
        scores: Any = torch.tensor([logits], dtype=torch.float32)
        ids: Any = torch.tensor([token_ids], dtype=torch.int64)
        if biases:
            bias = [[[token_id], number] for token_id, number in biases]
            scores = transformers.SequenceBiasLogitsProcessor(bias)(ids, scores)
        scores = transformers.RepetitionPenaltyLogitsProcessor(repetition)(ids, scores)
        scores = transformers.TemperatureLogitsWarper(temperature)(ids, scores)
        scores = transformers.MinPLogitsWarper(min_p)(ids, scores)
        found.append(packed(scores[0].softmax(dim=-1).numpy()))
    return found


def tokenizer(place: Path, texts: Sequence[str], tokens: Sequence[str], change: str) -> dict[str, Any]:
    """Return what a directory's or a GGUF file's tokenizer makes of texts, with and without special tokens, and back.

    Args: tokens: whose ids are wanted. change: one of CHANGES.
    """
    theirs = _changed(_tokenizer(place), change)
    ids = [[theirs.encode(text, add_special_tokens=special) for special in (True, False)] for text in texts]
    return {
        "ids": ids,
        "texts": [[theirs.decode(one, skip_special_tokens=True) for one in both] for both in ids],
        "tokens": theirs.convert_tokens_to_ids([*tokens]),
        "size": len(theirs),
        "bos": theirs.bos_token_id,
        "eos": theirs.eos_token_id,
        "eos_token": theirs.eos_token,
    }


def chat(place: Path, messages: Sequence[Mapping[str, str]], opened: bool) -> str:
    """Return a chat as a tokenizer's template renders it; opened: an answer begins at its end."""
    theirs = _tokenizer(place)
    return str(theirs.apply_chat_template(messages, tokenize=False, add_generation_prompt=opened))


def chat_ids(place: Path, messages: Sequence[Mapping[str, str]]) -> list[int]:
    """Return the ids of a chat after which an answer begins."""
    return list(_tokenizer(place).apply_chat_template(messages, add_generation_prompt=True, return_dict=False))


def tokenizer_json(place: Path) -> dict[str, Any]:
    """Return the tokenizer.json that transformers makes of a directory's tokenizer.model."""
    pipeline: dict[str, Any] = json.loads(_tokenizer(place).backend_tokenizer.to_str())
    return pipeline


def saved_tokenizer(gguf_file: Path) -> dict[str, Any]:
    """Return what save_pretrained writes of a GGUF's tokenizer; instead of words and merges, their SHA-256."""
    with tempfile.TemporaryDirectory() as directory:
        _tokenizer(gguf_file).save_pretrained(directory)
        files = {path.name: json.loads(path.read_text("utf-8")) for path in Path(directory).glob("*.json")}
        templates = {path.name: path.read_text("utf-8") for path in Path(directory).glob("*.jinja")}
    model = files["tokenizer.json"]["model"]
    words = json.dumps([model.pop("vocab"), model.pop("merges")], sort_keys=True)
    return {"files": {**files, **templates}, "words_sha256": hashlib.sha256(words.encode()).hexdigest()}


@functools.lru_cache(maxsize=2)
def _tokenizer(place: Path) -> Any:
    """Return the tokenizer of a directory or of a GGUF file: of a real vocabulary it takes seconds."""
    if place.suffix == ".gguf":
        return AutoTokenizer.from_pretrained(str(place.parent), gguf_file=place.name)
    return AutoTokenizer.from_pretrained(str(place))


def _changed(theirs: Any, change: str) -> Any:
    if change not in CHANGES:
        raise ValueError(f"{change!r} is none of {CHANGES}")
    if not change:
        return theirs
    theirs = copy.deepcopy(theirs)
    pipeline = theirs.backend_tokenizer
    if change == "digits":
        stages = [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
        pipeline.pre_tokenizer = pre_tokenizers.Sequence(stages)
    elif change == "nfc":
        pipeline.normalizer = normalizers.NFC()
    else:
        spaces = [normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")]
        pipeline.normalizer, pipeline.pre_tokenizer = normalizers.Sequence(spaces), None
    return theirs
