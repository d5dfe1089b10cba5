"""Turns text into tokens and back with one `tokenizers` pipeline, however it was assembled.

Does not cover: assembling it (hf_directory.py, sentencepiece_model.py, gguf_vocab.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tokenizers import Tokenizer as Pipeline
from tokenizers import processors

from common.errors import CheckpointError, InputError


class TextTokenizer:
    """The `Tokenizer` of every model format: a pipeline, its ends, and a chat template."""

    def __init__(
        self,
        pipeline: Pipeline,
        *,
        bos_id: int | None,
        eos_ids: frozenset[int],
        chat_templates: Mapping[str, str],
        special_tokens: Mapping[str, str],
        source: str,
        silent_ids: frozenset[int] = frozenset(),
    ) -> None:
        """Args:
        chat_templates: by name; the one that is used is `default`.
        special_tokens: what a template may name, e.g. bos_token.
        source: the place errors point to.
        silent_ids: tokens that are in the vocabulary and have no text.
        """
        # A file may ask for truncation or padding of training batches; a prompt is never cut silently.
        pipeline.no_truncation()
        pipeline.no_padding()
        self._pipeline = pipeline
        self._chat_templates = dict(chat_templates)
        self._special_tokens = dict(special_tokens)
        self._source = source
        self._silent_ids = silent_ids
        self.bos_id = bos_id
        self.eos_ids = eos_ids
        self.byte_token_ids: frozenset[int] = _byte_token_ids(pipeline)
        """Byte-fallback tokens: the text of a run of them is known only when the run has ended."""

    @property
    def vocab_size(self) -> int:
        """Number of tokens that have a text, added ones too."""
        size: int = self._pipeline.get_vocab_size(with_added_tokens=True)
        return size

    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        """Return the token ids of `text`.

        Raises: InputError: not valid Unicode (a lone surrogate). CheckpointError: the vocabulary cannot write it.
        """
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            raise InputError(f"the prompt is not valid Unicode: character {error.start} is half a pair") from None
        try:
            ids: list[int] = self._pipeline.encode(text, add_special_tokens=add_special_tokens).ids
        except Exception as error:  # tokenizers raises nothing narrower.
            raise CheckpointError(f"the tokenizer in '{self._source}' cannot encode this text: {error}") from error
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of `ids`, special tokens and those without a text left out."""
        spoken = [i for i in ids if i not in self._silent_ids] if self._silent_ids else list(ids)
        text: str = self._pipeline.decode(spoken, skip_special_tokens=True)
        return text

    def chat_prompt(self, messages: Sequence[Mapping[str, str]]) -> str:
        """Render the model's chat template, ready for the assistant's answer.

        Raises: InputError: there is no template, or it fails on these messages.
        """
        if not self._chat_templates:
            raise InputError(f"the model in '{self._source}' has no chat template: ask without --chat")
        if "default" not in self._chat_templates:
            names = ", ".join(sorted(self._chat_templates))
            raise InputError(f"the model in '{self._source}' has the chat templates {names}, and none of them is its "
                             "default: ask without --chat")  # fmt: skip
        # Imported here: most runs have no chat, and jinja2 costs every start some 50 ms.
        from coordinator.tokenizer.chat_template import render_chat

        return render_chat(self._chat_templates["default"], messages, self._special_tokens)


def add_ends(pipeline: Pipeline, *, bos: tuple[str, int] | None, eos: tuple[str, int] | None) -> None:
    """Make `pipeline` put the (token, id) of BOS before and of EOS after every text; None adds nothing."""
    template = [*([f"{bos[0]}:0"] if bos else []), "$A:0", *([f"{eos[0]}:0"] if eos else [])]
    pipeline.post_processor = processors.TemplateProcessing(
        single=template, pair=[*template, "$B:1"], special_tokens=[end for end in (bos, eos) if end]
    )


def _byte_token_ids(pipeline: Pipeline) -> frozenset[int]:
    if "ByteFallback" not in repr(pipeline.decoder):
        return frozenset()
    names = (f"<0x{value:02X}>" for value in range(256))
    return frozenset(i for i in map(pipeline.token_to_id, names) if i is not None)
