"""What is a real model asked, and where is what transformers answers?

Does not cover: asking transformers (make_smollm2.py), our answers (test_smollm2.py).
"""

from __future__ import annotations

import hashlib
from pathlib import Path

GOLDEN = Path(__file__).parent / "smollm2_greedy.json"
MODEL = Path(__file__).resolve().parent.parent.parent / "models" / "smollm2-135m-instruct" / "model.gguf"
LENGTH = 64
LEAST_MARGIN = 2e-3
"""Nearer than this, rounding would decide."""

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
