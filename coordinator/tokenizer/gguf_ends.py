"""Which tokens of a GGUF vocabulary end an answer: those that llama.cpp takes as the end of generation.

Covers: ids in the metadata, and tokens that are known as ends by their text alone, which many files leave unnamed.
Does not cover: ends of Hugging Face directories (hf_directory.py).
Source: llama.cpp's vocabulary loader.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

END_KEYS = ("eos_token_id", "eot_token_id", "eom_token_id")
FILL_IN_KEYS: Mapping[str, tuple[str, ...]] = {
    "fim_pad_token_id": ("<|fim_pad|>", "<fim-pad>", "<fim_pad>", "<PAD>", "[PAD]"),
    "fim_rep_token_id": ("<|fim_repo|>", "<|repo_name|>", "<fim-repo>", "<REPO>", "<reponame>"),
    "fim_sep_token_id": ("<|file_sep|>",),
}
"""What filling in code ends at, by key, and the texts that are looked for where there is no key."""
_BAR, _SPACE = "\N{FULLWIDTH VERTICAL LINE}", "\N{LOWER ONE EIGHTH BLOCK}"
END_TEXTS = (
    "<|eot_id|>", "<|eom_id|>", "<|end_of_text|>", "<|im_end|>", "<|endoftext|>", "</s>", "<|end|>", "<|return|>",
    "<|call|>", "<|calls|>", "<|flush|>", "<end_of_turn>", "<turn|>", "<eos>", "<|tool_response>", "<EOT>", "_<EOT>",
    "[EOT]", "[EOS]", "<end_of_utterance>", f"<{_BAR}end{_SPACE}of{_SPACE}sentence{_BAR}>", "[e~[",
)  # fmt: skip
"""Whatever their type."""
NOT_BESIDE: Mapping[str, tuple[frozenset[str], ...]] = {
    "<|end|>": (frozenset({"<|return|>", "<|call|>"}), frozenset({"<|return|>", "<|calls|>"}),
                frozenset({"<|call|>", "<|flush|>"}), frozenset({"<|calls|>", "<|flush|>"})),
    "</s>": (frozenset({"<|tool_response>"}),),
}  # fmt: skip
"""A text that ends only a part of an answer, where the vocabulary has all of one of these."""


def end_ids(vocab: Mapping[str, int], token_id: Callable[[str], int | None]) -> frozenset[int]:
    """Return the ids of all tokens that end an answer.

    Args: vocab: the id of every text; token_id: the id under a key of tokenizer.ggml.
    """
    found = {token_id(key) for key in END_KEYS}
    for key, texts in FILL_IN_KEYS.items():
        named = token_id(key)
        found.add(next((vocab[text] for text in texts if text in vocab), None) if named is None else named)
    found |= {vocab[text] for text in END_TEXTS if text in vocab}
    ids = {token for token in found if token is not None}
    for text, companions in NOT_BESIDE.items():
        if any(all(vocab.get(other) in ids for other in group) for group in companions):
            ids.discard(vocab.get(text, -1))
    return frozenset(ids)
