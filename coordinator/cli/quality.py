"""`coordinator-cli quality`: what fewer bits change in what a model says."""

from __future__ import annotations

import json
import tempfile
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from common.compute.backend import FLOAT32, NATIVE, check_activations
from common.errors import InputError
from common.program.logs import configure_logs
from common.program.path_options import path_argument
from common.wording import counted
from coordinator.cli.early import check_weights_dtype
from coordinator.cli.options import ActivationsOption, LogLevelOption, WeightsDtypeOption
from coordinator.cli.telling import say, tell

if TYPE_CHECKING:  # they import numpy and gRPC, and --help must not wait for that
    from coordinator.answering.open_model import OpenModel
    from coordinator.answering.quality import Quality

LEAST_TOKENS = 2
KV_BYTES = 256 << 20
"""Of keys and values on either side; four pieces of text of a large model have less."""


def quality(
    model: Annotated[
        Path, path_argument(help="A Hugging Face model directory, or a .gguf file: what is measured against.")
    ],
    text: Annotated[Path, path_argument(help="A text file; its first --tokens tokens are read.")],
    weights_dtype: WeightsDtypeOption = None,
    activations: ActivationsOption = FLOAT32,
    tokens: Annotated[int, typer.Option(help="How many tokens of the text are read; 512 take minutes.")] = 512,
    json_output: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
    log_level: LogLevelOption = "warning",
) -> None:
    """Measure what a stored dtype, or rows of whole numbers, change in what a model says, before you use them.

    The model reads the text twice at once, as it is and with --weights-dtype (q8_0 if nothing is said) and
    --activations, each on one node of this machine. Said are the mean Kullback-Leibler divergence of the next token's
    distribution (0: none; above 0.05 answers differ often), how often the same token is likeliest, and the text's
    perplexity. Slices are made beside the model for that, and go at the end.
    Examples: coordinator-cli quality models/my-model README.md --weights-dtype q4_0
    coordinator-cli quality models/my-model.gguf README.md --activations int8
    """
    configure_logs(log_level)
    check_weights_dtype(weights_dtype)
    check_activations(activations, NATIVE)
    if weights_dtype is None and activations == FLOAT32:
        weights_dtype = "q8_0"
    if tokens < LEAST_TOKENS:
        raise InputError(f"--tokens is {tokens}; at least {LEAST_TOKENS} are needed")
    from coordinator.checkpoints.model_place import find_model
    from coordinator.tokenizer import Nursery, TokenizerApart

    find_model(model)
    with closing(Nursery()) as nursery, closing(TokenizerApart(nursery, model)) as tokenizer:
        token_ids = tokenizer.encode(_text(text))[:tokens]
    if len(token_ids) < LEAST_TOKENS:
        raise InputError(f"{text} has {counted(len(token_ids), 'token')}; at least {LEAST_TOKENS} are needed")
    base = model if model.is_dir() else model.parent
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=base, prefix=".quality-")))
        source, source_bytes = _opened(stack, model, directory / "source", None, FLOAT32)
        judged, judged_bytes = _opened(stack, model, directory / "judged", weights_dtype, activations)
        found = _compared(source, judged, token_ids)
    _show(found, weights_dtype, activations, source_bytes, judged_bytes, json_output=json_output)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError:
        raise InputError(f"{path} is no text in UTF-8") from None


def _opened(
    stack: ExitStack, model: Path, directory: Path, weights_dtype: str | None, activations: str
) -> tuple[OpenModel, int]:  # fmt: skip
    """Return a model on one node of this machine, and the bytes of its slices."""
    from common.weights.manifest import read_manifest
    from common.weights.slice_description import total_bytes
    from coordinator.answering.open_model import OpenModel
    from coordinator.answering.run_options import RunOptions
    from coordinator.cli.progress import byte_progress
    from coordinator.local.pool import LocalNodes
    from coordinator.models.local_model import LocalModel, ModelOptions

    local = LocalNodes()
    stack.callback(local.close)
    opened = LocalModel(ModelOptions(model=model, save_dir=str(directory.absolute()), weights_dtype=weights_dtype))
    stack.callback(opened.close)
    with byte_progress(f"slicing as {opened.dtype}") as progress:
        opened.slice(progress)
    run = RunOptions(kv_budget_bytes=KV_BYTES, activations=activations)
    running = stack.enter_context(OpenModel(opened, run, local))
    return running, total_bytes(read_manifest(opened.own_directory))


def _compared(source: OpenModel, judged: OpenModel, token_ids: list[int]) -> Quality:
    from coordinator.answering.quality import compare
    from coordinator.cli.progress import token_progress

    with token_progress("reading") as progress:
        return compare(source.engine, judged.engine, token_ids, progress)


def _show(
    found: Quality, dtype: str | None, activations: str, source_bytes: int, judged_bytes: int, *, json_output: bool
) -> None:  # fmt: skip
    before, after = found.perplexities()
    if json_output:
        say(json.dumps({
            "weights_dtype": dtype, "activations": activations, "token_count": found.token_count,
            "mean_divergence_nats": found.mean_divergence,
            "most_divergence_nats": max(found.divergences), "same_likeliest_share": found.same_share,
            "perplexity": {"source": before, "judged": after},
            "slice_bytes": {"source": source_bytes, "judged": judged_bytes},
        }))  # fmt: skip
        return
    own = dtype or "the model's own weights"
    judged = own if activations == FLOAT32 else f"{own} with {activations} activations"
    say(f"{judged} on {counted(found.token_count, 'token')}: mean divergence {found.mean_divergence:.4f} nats (most "
        f"{max(found.divergences):.3f}), the same likeliest token after {found.same_share:.1%} of them, perplexity "
        f"{after:.3f} instead of {before:.3f}")  # fmt: skip
    tell(f"its slices are {judged_bytes / 1e6:.0f} MB instead of {source_bytes / 1e6:.0f} MB")
