"""What is it called here? Options that users of llama.cpp, Ollama and transformers know by another name.

Covers: long spellings that are taken for ours, others that are told. Does not cover: verbs (other_verbs.py).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

SAME = {
    "top-k": "k", "top-p": "p", "temp": "temperature", "max-tokens": "length", "max-new-tokens": "length",
    "n-predict": "length", "num-predict": "length", "predict": "length", "model-path": "model",
    "repeat-penalty": "repetition-penalty",
}  # fmt: skip
"""Without their leading dashes: the same thing under another name, so that it is done instead of told."""

LIKE: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("-p",), ("--prompt",)),
    **dict.fromkeys(("-s",), ("--seed",)),
    **dict.fromkeys(("-m", "--model"), ("--model", "--slice-dir")),
    **dict.fromkeys(("-t", "--threads"), ("--threads", "--world-size")),
    **dict.fromkeys(("-ngl", "--gpu", "--n-gpu-layers", "--gpu-layers", "--device", "--cuda"), ("--use-gpu",)),
    **dict.fromkeys(("--host", "--bind"), ("--listen", "--master-ip")),
    **dict.fromkeys(("--port", "--listen"), ("--listen", "--master-port")),
    **dict.fromkeys(("--address", "--server", "--url"), ("--coordinator", "--listen")),
    **dict.fromkeys(("--format", "--output", "-o"), ("--json",)),
    **dict.fromkeys(("-v", "--verbose", "--debug", "-q", "--quiet"), ("--log-level",)),
    **dict.fromkeys(("--dtype", "--torch-dtype"), ("--weights-dtype",)),
    **dict.fromkeys(("--memory", "--max-memory", "--ram"), ("--memory-budget",)),
    **dict.fromkeys(("--tp", "--tensor-parallel-size", "--nproc", "--num-nodes"), ("--world-size",)),
    **dict.fromkeys(("--rpc", "--hosts", "--workers"), ("--nodes",)),
    **dict.fromkeys(("--tensor-split", "-ts"), ("--split-strategy",)),
    **dict.fromkeys(("-cnv", "--conversation", "--chat-template"), ("--chat",)),
    **dict.fromkeys(("--stop-sequences", "--reverse-prompt", "-r"), ("--stop",)),
    **dict.fromkeys(("-c", "--ctx-size", "--num-ctx"), ("--kv-budget-bytes",)),
    **dict.fromkeys(("-f", "--file"), ("--prompt-file",)),
    **dict.fromkeys(("-sys", "--system", "--system-prompt"), ("--prefix",)),
    **dict.fromkeys(("--data", "--dir"), ("--data-dir", "--state-dir")),
}
"""Ours, of which the first that a command has is told."""
ABOUT = {
    ("-p", "--prompt"): "is the text, and --p is what others call top-p",
    ("--threads", "--world-size"): "is how many nodes compute; together they take all cores",
    ("-t", "--world-size"): "is how many nodes compute; together they take all cores",
    ("-c", "--kv-budget-bytes"): "bounds the memory of a conversation; how long it may be, the model says",
    ("--ctx-size", "--kv-budget-bytes"): "bounds the memory of a conversation; how long it may be, the model says",
    ("--num-ctx", "--kv-budget-bytes"): "bounds the memory of a conversation; how long it may be, the model says",
    ("-f", "--prompt-file"): "reads the prompt from a file, or from stdin as -",
    ("--file", "--prompt-file"): "reads the prompt from a file, or from stdin as -",
    ("--tensor-split", "--split-strategy"): "is what you mean, such as ratio:3,1",
    ("-ts", "--split-strategy"): "is what you mean, such as ratio:3,1",
}
"""What ours is, where it is not the same."""
NEEDLESS = {
    "--stream": "text comes as it is generated; --json waits for the end",
    "--no-stream": "text comes as it is generated; --json waits for the end",
    "--do-sample": "a --temperature above 0 samples, and 0 takes the likeliest token",
    "--no-mmap": "--memory-window 0 keeps all weights in memory",
    "--mlock": "--memory-window 0 keeps all weights in memory",
    "--trust-remote-code": "no code of a model is ever run",
}
"""Why `generate` has none, and what it has instead."""


def our_word(word: str) -> str:
    """Return ours for the name of an option or a verb, which comes without its leading dashes."""
    dashed = word.replace("_", "-")
    return SAME.get(dashed, dashed)


def what_is_meant(option: str, known: Collection[str], typed: Sequence[str]) -> str:
    """Return a sentence about an option that there is not; empty where nobody knows what is meant.

    Args: option: as it was understood; known: options of the command; typed: the command line.
    """
    for ours in LIKE.get(option, ()):
        if ours in known:
            return f"there is no {option}; {ours} {ABOUT.get((option, ours), 'is what you mean')}"
    if option in NEEDLESS and "--temperature" in known:
        return f"there is no {option}: {NEEDLESS[option]}"
    for word in (word.partition("=")[0] for word in typed):
        name = word.lstrip("-").replace("_", "-")
        if name in SAME and f"--{SAME[name]}" == option:
            return f"there is no {word} here"
    return ""
