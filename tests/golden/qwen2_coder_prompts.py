"""What is a real Q4_K_M file asked, and where is what transformers answers?

The file is 491 MB and from elsewhere (tests/README.md says whence), so only who has it is asked.
Does not cover: asking transformers (make_qwen2_coder.py), our answers (test_qwen2_coder.py).
"""

from __future__ import annotations

from pathlib import Path

GOLDEN = Path(__file__).parent / "qwen2_coder_greedy.json"
MODEL = Path(__file__).resolve().parent.parent.parent / "models" / "qwen2.5-coder-0.5b" / "model.gguf"
LENGTH = 64
LEAST_MARGIN = 2e-3
"""Nearer than this, rounding would decide."""

PROMPTS = {
    "english": "The capital of France is",
    "python": 'def fibonacci(n: int) -> int:\n    """Return the n-th Fibonacci number."""\n    if n',
    "rust": "fn main() {\n    let words = vec![",
    "sql": "SELECT name, COUNT(*) FROM devices GROUP BY",
    "chinese": "北京是中国的首都，",
    "german": "Übung macht den Meister, und",
    "html": "<!doctype html>\n<html>\n<head>\n<title>",
    "shell": "#!/bin/sh\nset -eu\nfor file in",
    "one token": "Once",
    "json": '{"name": "kitchen", "memory": ',
    "comment": "// Returns the sum of all even numbers in the list.\n",
}
CHATS = {
    "chat": "Write a function that reverses a string in Go.",
}
