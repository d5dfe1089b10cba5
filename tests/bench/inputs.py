"""What do the benchmarks measure with: the demo model, its slices, and the form of it that transformers loads fast?

Covers: making each once and keeping it beside the model, under bench/ (`make clean-all` removes it).
Does not cover: fetching the model (`make model`).
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from coordinator.models.local_model import LocalModel, ModelOptions
from coordinator.tokenizer import load_tokenizer
from tests.bench.report import BenchBroken
from tests.bench.workers import Worker

REPOSITORY = Path(__file__).resolve().parent.parent.parent
MODEL_DIRECTORY = REPOSITORY / "models" / "smollm2-135m-instruct"
MODEL_FILE = "model.gguf"
KEPT_DIRECTORY = MODEL_DIRECTORY / "bench"
PROMPT = "The capital of France is"
WORDS = ("the", "river", "runs", "past", "a", "town", "where", "people", "trade", "wood", "and", "tell", "stories")
"""Of long prompts."""


def check_model() -> None:
    """Raises: BenchBroken: the demo model is not there."""
    if not (MODEL_DIRECTORY / MODEL_FILE).is_file():
        raise BenchBroken(f"no {MODEL_FILE} in {MODEL_DIRECTORY}; run `make model`")
    KEPT_DIRECTORY.mkdir(exist_ok=True)


def prompt_ids() -> tuple[int, ...]:
    """Return the tokens of the prompt."""
    return tuple(load_tokenizer(MODEL_DIRECTORY).encode(PROMPT))


def long_prompt(model_directory: Path, token_count: int) -> str:
    """Return a text of exactly so many tokens. Raises: BenchBroken: none was found."""
    tokenizer = load_tokenizer(model_directory)
    text, index = WORDS[0], 0
    while len(tokenizer.encode(text)) < token_count:
        index += 1
        text += " " + WORDS[index * 7 % len(WORDS)]
    while len(tokenizer.encode(text)) > token_count:
        text = text[:-1]
    if len(tokenizer.encode(text)) != token_count:
        raise BenchBroken(f"no prompt of {token_count} tokens could be made for {model_directory}")
    return text


def sliced(world_size: int) -> Path:
    """Return the directory of float32 slices for so many nodes; makes them if they are not there."""
    directory = KEPT_DIRECTORY / f"split{world_size}"
    model = LocalModel(ModelOptions(
        model=MODEL_DIRECTORY, world_size=world_size, save_dir=str(directory), weights_dtype="float32"
    ))  # fmt: skip
    try:
        model.slice(lambda done, total: None)
    finally:
        model.close()
    return directory


def transformers_directory() -> Path:
    """Return the model as transformers writes it after loading the GGUF: that takes it 30 s, this is loaded in 2."""
    directory = KEPT_DIRECTORY / "transformers"
    if not directory.is_dir():
        print("converting the demo model for transformers (once, half a minute)", flush=True)
        worker = Worker("transformers", _open_converter)
        try:
            worker.wait_until_ready()
            worker.ask(directory)
        finally:
            worker.close()
    return directory


@contextmanager
def _open_converter() -> Iterator[Callable[[Path], None]]:
    import torch
    from transformers import AutoModelForCausalLM

    def convert(directory: Path) -> None:
        unfinished = directory.with_name(f".{directory.name}")
        shutil.rmtree(unfinished, ignore_errors=True)
        loaded = AutoModelForCausalLM.from_pretrained(MODEL_DIRECTORY, gguf_file=MODEL_FILE, dtype=torch.float32)
        # What came out of a GGUF refuses to be saved, though it is plain float32 by now.
        if hasattr(loaded.config, "quantization_config"):
            del loaded.config.quantization_config
        plain = type(loaded)(loaded.config)
        plain.load_state_dict(loaded.state_dict())
        plain.save_pretrained(unfinished)
        os.rename(unfinished, directory)

    yield convert
