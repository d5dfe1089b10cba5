"""Writes qwen2_coder_greedy.json: what transformers answers, in float32, on the dequantized weights of a Q4_K_M file.

    python -m tests.golden.make_qwen2_coder

By hand, where the file is: it is no part of `make golden`. Prompts on whose way two tokens come close are left out.
Does not cover: the prompts (qwen2_coder_prompts.py).
"""

from __future__ import annotations

import sys

import torch
import transformers
from transformers import AutoTokenizer

from tests.golden.make_smollm2 import load_model, prompt_ids_of, shown_as_json
from tests.golden.questions import greedy_answer, least_margin
from tests.golden.qwen2_coder_prompts import CHATS, GOLDEN, LEAST_MARGIN, LENGTH, MODEL, PROMPTS
from tests.golden.smollm2_prompts import sha256_of


def main() -> None:
    """Ask every prompt, and write the file."""
    tokenizer, model = AutoTokenizer.from_pretrained(MODEL.parent, gguf_file=MODEL.name), load_model(MODEL)
    entries = []
    for name, text in {**PROMPTS, **CHATS}.items():
        prompt_ids = prompt_ids_of(tokenizer, text, chat=name in CHATS)
        token_ids, logits = greedy_answer(model, prompt_ids, length=LENGTH)
        margin = least_margin(logits)
        print(f"{name}: margin {margin:.4f}: {tokenizer.decode(token_ids)!r}", file=sys.stderr)
        if margin >= LEAST_MARGIN:
            entries.append({
                "name": name, "text": text, "chat": name in CHATS, "prompt_ids": prompt_ids, "token_ids": token_ids,
                "least_margin": margin,
            })  # fmt: skip
    document = {
        "transformers_version": transformers.__version__, "torch_version": torch.__version__,
        "model_sha256": sha256_of(MODEL), "prompts": entries,
    }  # fmt: skip
    GOLDEN.write_text(shown_as_json(document), encoding="utf-8")


if __name__ == "__main__":
    main()
