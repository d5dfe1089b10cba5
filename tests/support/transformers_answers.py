"""What transformers says in float32: greedy tokens and the logits they were taken from.

Does not cover: our own answers (mesh.py), making models (random_models.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from transformers import GenerationConfig, PreTrainedModel


@dataclass(frozen=True, kw_only=True)
class Answer:
    """Greedy tokens, and for each the logits, float32 [token_count, vocab_size]."""

    token_ids: list[int]
    logits: torch.Tensor

    @property
    def least_margin(self) -> float:
        """By how much the chosen token led where it was closest; a tie could fall on either side."""
        best = self.logits.topk(2).values
        return float((best[:, 0] - best[:, 1]).min())


def greedy_answer(model: PreTrainedModel, prompt_ids: Sequence[int], *, length: int) -> Answer:
    """Return what generate() gives, going on past end tokens; the model must be float32."""
    if model.dtype != torch.float32:
        raise ValueError(f"the model computes in {model.dtype}, which is no reference")
    model.generation_config = GenerationConfig(  # type: ignore[no-untyped-call]  # transformers has no types here
        do_sample=False, max_new_tokens=length, pad_token_id=0, output_logits=True, return_dict_in_generate=True
    )
    ids = torch.tensor([list(prompt_ids)])
    result = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids))  # type: ignore[operator]
    return Answer(token_ids=result.sequences[0, len(prompt_ids) :].tolist(), logits=torch.cat(result.logits))


def float32_copy(model: PreTrainedModel) -> PreTrainedModel:
    """Return a new model with the same weights, each converted to float32; rotary tables are made anew.

    Also the way to forget what a model keeps of earlier prompts: `dynamic` rotary scaling remembers the longest.
    """
    copy = type(model)(model.config)
    torch.nn.Module.to(copy, torch.float32)
    copy.load_state_dict({name: tensor.float() for name, tensor in model.state_dict().items()})
    copy.train(mode=False)
    return copy
