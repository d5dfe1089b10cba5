"""Writes smollm2_greedy.json: what transformers answers, in float32, to the prompts below.

    python -m tests.golden.make_smollm2

Run it after changing a prompt, or when the demo model or transformers moves. It refuses a prompt on whose way two
tokens come closer than LEAST_MARGIN: there, a difference in rounding would decide, and the test would prove nothing.
"""

from __future__ import annotations

import functools
import hashlib
import json
import sys
from pathlib import Path
from typing import Any
from unittest import mock

import gguf
import torch
import transformers
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from tests.support.transformers_answers import Answer, greedy_answer

GOLDEN = Path(__file__).parent / "smollm2_greedy.json"
MODEL = Path(__file__).resolve().parent.parent.parent / "models" / "smollm2-135m-instruct" / "model.gguf"
LENGTH = 64
LEAST_MARGIN = 2e-3

PROMPTS = {
    "english": "The capital of France is",
    "python": 'def fibonacci(n: int) -> int:\n    """Return the n-th Fibonacci number."""\n    if n',
    "chinese": "北京是中国的首都，",
    "arabic": "القاهرة هي عاصمة",
    "german": "Übung macht den Meister, und",
    "emoji": "A family 👨‍👩‍👧‍👦 and a flag 🏳️‍🌈 👍🏽 mean",
    "leading spaces": "    indented by four spaces",
    "newlines": "# Shopping\n\n\n- milk\n- eggs\r\n\t- bread\n\n## Recipe\n\n",
    "one token": "Once",
    "long": "\n".join(f"Item {n} of the list costs {7 * n % 50 + 1} euros." for n in range(1, 47)) + "\nItem 47",
}
CHATS = {
    "chat": "Why is the sky blue? Answer in two sentences.",
}


def sha256_of(path: Path) -> str:
    """Return the file's SHA-256 in hex."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


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
        prompt_ids = _prompt_ids(tokenizer, text, chat=name in CHATS)
        answer = greedy_answer(model, prompt_ids, length=LENGTH)
        entries.append(_entry(name, text, prompt_ids, answer))
        print(f"{name}: {len(prompt_ids)} tokens, margin {answer.least_margin:.4f}: "
              f"{tokenizer.decode(answer.token_ids)!r}", file=sys.stderr)  # fmt: skip
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
    GOLDEN.write_text(_shown(document), encoding="utf-8")
    return 0


def _prompt_ids(tokenizer: Any, text: str, *, chat: bool) -> list[int]:
    if chat:
        messages = [{"role": "user", "content": text}]
        text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    ids: list[int] = tokenizer(text, add_special_tokens=not chat).input_ids
    return ids


def _entry(name: str, text: str, prompt_ids: list[int], answer: Answer) -> dict[str, Any]:
    return {
        "name": name,
        "text": text,
        "chat": name in CHATS,
        "prompt_ids": prompt_ids,
        "token_ids": answer.token_ids,
        "least_margin": round(answer.least_margin, 5),
    }


def _shown(document: dict[str, Any]) -> str:
    """Return JSON for people: one line for each list of tokens."""
    lines = ["{"]
    lines += [f" {json.dumps(key)}: {json.dumps(value)}," for key, value in document.items() if key != "prompts"]
    prompts = []
    for entry in document["prompts"]:
        fields = [f"   {json.dumps(key)}: {json.dumps(value, ensure_ascii=False)}" for key, value in entry.items()]
        prompts.append("  {\n" + ",\n".join(fields) + "\n  }")
    return "\n".join(lines) + '\n "prompts": [\n' + ",\n".join(prompts) + "\n ]\n}\n"


if __name__ == "__main__":
    sys.exit(main())
