"""Options of a directory's tokenizer files are honoured as transformers honours them, or refused by name.

Does not cover: vocabularies (test_tokenizer_directory.py), rendering templates (test_tokenizer_chat.py).
"""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from tokenizers import models

from common.errors import CheckpointError, InputError, UnsupportedModel
from coordinator.answering.text_stream import TextStream
from coordinator.tokenizer import Tokenizer, load_tokenizer
from coordinator.tokenizer.keep import keep_tokenizer
from tests.support.tokenizer_comparison import differences, stream_differences
from tests.support.tokenizer_files import TEXTS, byte_level_tokenizer_json, write_directory
from tests.support.transformers_answers import Theirs

PIPELINE = json.loads(byte_level_tokenizer_json())
COUNT = len(PIPELINE["model"]["vocab"])
NAMES = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<|im_start|>", "eos_token": "<|im_end|>"}
PLAIN = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized", "special"), False)
MESSAGES = [{"role": "user", "content": "hi"}]
OWN = ("<sep>", "two", "three")
"""Tokens beyond the vocabulary, which TEXTS hold."""


def write(directory: Path, config: dict[str, Any], pipeline: dict[str, Any] | None = None, **files: Any) -> Path:
    """Write a directory with a tokenizer.json."""
    directory.mkdir(exist_ok=True)
    named = {name.replace("__", "."): content for name, content in files.items()}
    return write_directory(
        directory,
        "llama",
        {"tokenizer.json": pipeline or PIPELINE, "tokenizer_config.json": {**NAMES, **config}, **named},
    )


def assert_same(theirs: Theirs, directory: Path) -> Tokenizer:
    """Compare with AutoTokenizer, all at once and token by token."""
    reference = theirs.tokenizer(directory, TEXTS, name=directory.name)
    ours = load_tokenizer(directory)
    assert differences(ours, reference, TEXTS) == []
    assert stream_differences(ours, TEXTS) == []
    assert ours.vocab_size == len(reference)
    return ours


def with_own(flags: dict[str, bool]) -> dict[str, Any]:
    """Return a tokenizer.json that has the OWN tokens with these flags."""
    pipeline = copy.deepcopy(PIPELINE)
    pipeline["added_tokens"] += [{"id": COUNT + i, "content": text, **PLAIN, **flags} for i, text in enumerate(OWN)]
    return pipeline


def decoder(pipeline: dict[str, Any], flags: dict[str, bool]) -> dict[str, Any]:
    """Return added_tokens_decoder for a tokenizer.json's tokens, the OWN ones with these flags."""
    entries = {}
    for token in pipeline["added_tokens"]:
        own = flags if token["content"] in OWN else {}
        entries[str(token["id"])] = {key: value for key, value in {**token, **own}.items() if key != "id"}
    return entries


@pytest.mark.parametrize("roles", [
    {}, {"additional_special_tokens": ["<sep>", "three"]}, {"mask_token": "two", "image_token": "<sep>"},
    {"extra_special_tokens": {"tool_token": "three"}}, {"pad_token": "three"},
])  # fmt: skip
@pytest.mark.parametrize(
    ("in_file", "in_config"), [(False, False), (True, False), (False, True), (False, None), (True, None)]
)
def test_a_token_s_own_flag_says_whether_it_is_printed(
    roles: dict[str, Any], in_file: bool, in_config: bool | None, tmp_path: Path, theirs: Theirs
) -> None:
    """Of tokenizer.json and tokenizer_config.json the latter decides; a role counts as transformers counts it."""
    pipeline = with_own({"special": in_file})
    config = dict(roles)
    if in_config is not None:
        config["added_tokens_decoder"] = decoder(pipeline, {"special": in_config})
    assert_same(theirs, write(tmp_path / "model", config, pipeline))


@pytest.mark.parametrize(("special", "printed"), [(True, "hello"), (False, "hello<sep>")])
def test_the_flag_of_a_token_that_ends_an_answer_says_whether_it_is_printed(
    special: bool, printed: str, tmp_path: Path, theirs: Theirs
) -> None:
    """transformers prints an end that generation_config.json names and no file calls special."""
    pipeline = with_own({"special": special})
    tokenizer = assert_same(
        theirs, write(tmp_path / "model", {}, pipeline, generation_config__json={"eos_token_id": COUNT})
    )
    assert tokenizer.eos_ids == {COUNT}
    stream = TextStream(tokenizer, tokenizer.encode("one "))
    answer = [*tokenizer.encode("hello"), COUNT]
    assert "".join([*map(stream.push, answer), stream.finish()]) == printed


@pytest.mark.parametrize("flag", ["lstrip", "rstrip", "single_word", "normalized"])
def test_a_token_s_flags_say_how_it_is_found(flag: str, tmp_path: Path, theirs: Theirs) -> None:
    """Spaces beside it, whole words, before or after characters are composed."""
    pipeline = with_own({flag: True}) | {"normalizer": {"type": "Lowercase"}}
    assert_same(theirs, write(tmp_path / "file", {}, pipeline))
    other = with_own({}) | {"normalizer": {"type": "Lowercase"}}
    assert_same(theirs, write(tmp_path / "config", {"added_tokens_decoder": decoder(pipeline, {flag: True})}, other))


@pytest.mark.parametrize(
    "option",
    [
        {"split_special_tokens": True}, {"spaces_between_special_tokens": True}, {"use_default_system_prompt": True},
        {"clean_up_tokenization_spaces": True}, {"legacy": True}, {"legacy": False}, {"add_prefix_space": True},
        {"add_bos_token": True}, {"add_eos_token": True}, {"errors": "strict"}, {"model_max_length": 2},
        {"padding_side": "left", "truncation_side": "left"}, {"sp_model_kwargs": {"enable_sampling": True}},
        {"max_length": 2, "stride": 1, "truncation_strategy": "longest_first"},
        {"tokenizer_class": "LlamaTokenizerFast"},
        {"auto_map": {"AutoTokenizer": ["code.Slow", None]}}, {"nobody_knows_this": [1]}, {"fix_mistral_regex": True},
        {"fast_tokenizer_files": ["tokenizer.json"]},
    ],
    ids=str,
)  # fmt: skip
def test_an_option_does_what_it_does_in_transformers(option: dict[str, Any], tmp_path: Path, theirs: Theirs) -> None:
    """Of a byte-level tokenizer.json most change nothing; special tokens that are split are words like others."""
    assert_same(theirs, write(tmp_path / "model", option))


def test_truncation_and_padding_of_batches_never_touch_a_prompt(tmp_path: Path, theirs: Theirs) -> None:
    """A tokenizer.json that was saved in training keeps both."""
    pipeline = copy.deepcopy(PIPELINE)
    pipeline["truncation"] = {"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0}
    pipeline["padding"] = {
        "strategy": {"Fixed": 99}, "direction": "Right", "pad_to_multiple_of": None, "pad_id": 0, "pad_type_id": 0,
        "pad_token": "<|endoftext|>",
    }  # fmt: skip
    assert_same(theirs, write(tmp_path / "model", {}, pipeline))


@pytest.mark.parametrize("single", [["<|im_start|>", "A"], ["A", "<|im_end|>"], ["<|im_start|>", "A", "<|im_end|>"]])
def test_the_post_processor_of_tokenizer_json_decides_what_is_put_around(
    single: list[str], tmp_path: Path, theirs: Theirs
) -> None:
    """Whatever add_bos_token says."""
    special = {part: [1 if "start" in part else 2] for part in single if part != "A"}
    template = [{"Sequence" if part == "A" else "SpecialToken": {"id": part, "type_id": 0}} for part in single]
    pipeline = copy.deepcopy(PIPELINE)
    pipeline["post_processor"] = {
        "type": "TemplateProcessing", "single": template, "pair": [*template, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {part: {"id": part, "ids": ids, "tokens": [part]} for part, ids in special.items()},
    }  # fmt: skip
    assert_same(theirs, write(tmp_path / "model", {"add_bos_token": False, "add_eos_token": False}, pipeline))


@pytest.mark.parametrize(
    ("config", "model", "named"),
    [
        ({"clean_up_tokenization_spaces": True,
          "clean_up_tokenization_spaces_for_bpe_even_though_it_will_corrupt_output": True}, {},
         "clean_up_tokenization_spaces_for_bpe"),
        ({"clean_up_tokenization_spaces": True},
         json.loads(models.WordLevel({"a": 0, "<unk>": 1}, unk_token="<unk>").__getstate__()), "clean_up_tokenization"),
        ({}, {"dropout": 0.5}, "dropout"),
        ({"fast_tokenizer_files": ["tokenizer.4.9.json", "tokenizer.json"]}, {}, r"tokenizer\.4\.9\.json"),
    ],
)  # fmt: skip
def test_an_option_that_is_not_computed_is_refused_by_name(
    config: dict[str, Any], model: dict[str, Any], named: str, tmp_path: Path
) -> None:
    """Each would change ids or text."""
    whole = model if "vocab" in model else {**PIPELINE["model"], **model}
    directory = write(tmp_path / "model", config, {**PIPELINE, "model": whole, "added_tokens": []})
    with pytest.raises(UnsupportedModel, match=named) as caught:
        load_tokenizer(directory)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("mended", [True, False])
def test_mistral_s_words_are_mended_where_the_directory_says_so(mended: bool, tmp_path: Path, theirs: Theirs) -> None:
    """Directories of 2024 and 2025 have a wrong pattern, and a flag for those who want the right one."""
    pipeline = copy.deepcopy(PIPELINE)
    split = {"type": "Split", "pattern": {"Regex": r"\p{L}+|\s+|[^\s\p{L}]+"}, "behavior": "Isolated", "invert": False}
    words = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    pipeline["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [split, words]}
    pipeline["model"]["vocab"] |= {f"filler {i}": COUNT + i for i in range(100_000)}
    files = {
        "tokenizer.json": pipeline,
        "tokenizer_config.json": {**NAMES, "fix_mistral_regex": mended},
        "config.json": {"model_type": "mistral", "transformers_version": "4.57.1"},
    }
    directory = write_directory(tmp_path, "mistral", files)
    reference = theirs.tokenizer(directory, TEXTS)
    assert differences(load_tokenizer(directory), reference, TEXTS) == []


NAMED = [{"name": "default", "template": "one"}, {"name": "tool_use", "template": "two"}]


@pytest.mark.parametrize(
    ("config", "files"),
    [
        ({"chat_template": "one"}, {}),
        ({"chat_template": NAMED}, {}),
        ({"chat_template": {"default": "one", "rag": "two"}}, {}),
        ({"chat_template": "two"}, {"chat_template__jinja": "one"}),
        ({"chat_template": NAMED}, {"chat_template__jinja": "one", "additional_chat_templates/rag.jinja": "three"}),
        ({}, {"additional_chat_templates/default.jinja": "one", "additional_chat_templates/rag.jinja": "three"}),
    ],
)
def test_the_template_is_found_wherever_a_directory_may_have_it(
    config: dict[str, Any], files: dict[str, str], tmp_path: Path, theirs: Theirs
) -> None:
    """One text, several with names, files; and what is kept without the weights has it, too."""
    (tmp_path / "model" / "additional_chat_templates").mkdir(parents=True)
    directory = write(tmp_path / "model", config, **files)
    prompt = theirs.ask("chat", directory, MESSAGES, False)
    kept = tmp_path / "kept"
    kept.mkdir()
    keep_tokenizer(directory, kept)
    assert load_tokenizer(directory).chat_prompt(MESSAGES) == prompt == load_tokenizer(kept).chat_prompt(MESSAGES)


@pytest.mark.parametrize(
    ("config", "files"),
    [
        ({"chat_template": [{"name": "rag", "template": "two"}]}, {}),
        ({"chat_template": {"rag": "two"}}, {}),
        ({"chat_template": "one"}, {"additional_chat_templates/rag.jinja": "three"}),
    ],
)
def test_without_a_default_template_the_others_are_named(
    config: dict[str, Any], files: dict[str, str], tmp_path: Path
) -> None:
    """transformers refuses, too; a prompt without --chat needs none."""
    (tmp_path / "model" / "additional_chat_templates").mkdir(parents=True)
    tokenizer = load_tokenizer(write(tmp_path / "model", config, **files))
    assert tokenizer.encode("hello")
    with pytest.raises(InputError, match="rag, and none of them is its default"):
        tokenizer.chat_prompt(MESSAGES)


@pytest.mark.parametrize("template", [5, ["one"], [{"name": "default"}], {"default": None}])
def test_what_is_no_template_is_refused(template: Any, tmp_path: Path) -> None:
    """Instead of a chat without it."""
    with pytest.raises(CheckpointError, match="chat_template"):
        load_tokenizer(write(tmp_path / "model", {"chat_template": template}))
