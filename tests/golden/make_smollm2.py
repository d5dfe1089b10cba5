"""Writes smollm2_greedy.json: what transformers answers, in float32, to the prompts below.

Part of `make golden`, for when a prompt, the demo model or transformers moves. It refuses a prompt on whose way two
tokens come closer than LEAST_MARGIN: there, a difference in rounding would decide, and the test would prove nothing.
Does not cover: the prompts (smollm2_prompts.py).
"""

from __future__ import annotations

import functools
import json
import sys
from pathlib import Path
from typing import Any
from unittest import mock

import gguf
import torch
import transformers
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from tests.golden.questions import greedy_answer, least_margin
from tests.golden.smollm2_prompts import CHATS, GOLDEN, LEAST_MARGIN, LENGTH, MODEL, PROMPTS, sha256_of

MARGIN_TOLERANCE = 1e-3


def load_model(path: Path) -> PreTrainedModel:
    """Return the demo model as transformers reads it, dequantized to float32.

    It reads the file's header twice and makes the same table of names for each module: remembered, half the time.
    """
    with (
        mock.patch("gguf.GGUFReader", functools.cache(gguf.GGUFReader)),
        mock.patch("gguf.get_tensor_name_map", functools.cache(gguf.get_tensor_name_map)),
    ):
        model = AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=torch.float32)
    model.train(mode=False)
    return model


def main() -> int:
    """Ask every prompt, write the file, and return the exit code."""
    tokenizer = AutoTokenizer.from_pretrained(MODEL.parent, gguf_file=MODEL.name)
    model = load_model(MODEL)
    entries = []
    for name, text in {**PROMPTS, **CHATS}.items():
        prompt_ids = prompt_ids_of(tokenizer, text, chat=name in CHATS)
        token_ids, logits = greedy_answer(model, prompt_ids, length=LENGTH)
        margin = least_margin(logits)
        entries.append({
            "name": name, "text": text, "chat": name in CHATS, "prompt_ids": prompt_ids, "token_ids": token_ids,
            "least_margin": margin,
        })  # fmt: skip
        print(f"{name}: {len(prompt_ids)} tokens, margin {margin:.4f}: {tokenizer.decode(token_ids)!r}",
              file=sys.stderr)  # fmt: skip
    close = [entry["name"] for entry in entries if entry["least_margin"] < LEAST_MARGIN]
    if close:
        print(f"a near tie lies on the way of: {', '.join(close)}; change these prompts", file=sys.stderr)
        return 1
    document = {
        "transformers_version": transformers.__version__,
        "torch_version": torch.__version__,
        "model_sha256": sha256_of(MODEL),
        "prompts": entries,
    }
    GOLDEN.write_text(shown_as_json(document), encoding="utf-8")
    return 0


def differences() -> list[str]:
    """Name every prompt of the file to which transformers no longer says what is there.

    One pass over prompt and answer instead of 64: each token is then the greedy one after those before it.
    """
    tokenizer = AutoTokenizer.from_pretrained(MODEL.parent, gguf_file=MODEL.name)
    model = load_model(MODEL)
    found = []
    for entry in json.loads(GOLDEN.read_text(encoding="utf-8"))["prompts"]:
        place = f"{GOLDEN.name}: {entry['name']}"
        prompt_ids, token_ids = entry["prompt_ids"], entry["token_ids"]
        if prompt_ids_of(tokenizer, entry["text"], chat=entry["chat"]) != prompt_ids:
            found.append(f"{place}: the prompt has other ids")
        with torch.inference_mode():
            logits = model(torch.tensor([prompt_ids + token_ids[:-1]])).logits[0, len(prompt_ids) - 1 :]
        if logits.argmax(dim=-1).tolist() != token_ids:
            found.append(f"{place}: the answer has other tokens")
        elif abs(least_margin(logits) - entry["least_margin"]) > MARGIN_TOLERANCE:
            found.append(f"{place}: the least margin was {entry['least_margin']} and is {least_margin(logits)}")
    return found


def prompt_ids_of(tokenizer: Any, text: str, *, chat: bool) -> list[int]:
    """Return a prompt's tokens, as a turn of a conversation or as it stands."""
    if chat:
        messages = [{"role": "user", "content": text}]
        text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    ids: list[int] = tokenizer(text, add_special_tokens=not chat).input_ids
    return ids


def shown_as_json(document: dict[str, Any]) -> str:
    """Return JSON for people: one line for each list of tokens."""
    lines = ["{"]
    lines += [f" {json.dumps(key)}: {json.dumps(value)}," for key, value in document.items() if key != "prompts"]
    prompts = []
    for entry in document["prompts"]:
        fields = [f"   {json.dumps(key)}: {json.dumps(value, ensure_ascii=False)}" for key, value in entry.items()]
        prompts.append("  {\n" + ",\n".join(fields) + "\n  }")
    return "\n".join(lines) + '\n "prompts": [\n' + ",\n".join(prompts) + "\n ]\n}\n"
