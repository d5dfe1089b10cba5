"""Options that several verbs share, each defined once."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from common.program.path_options import path_option

ModelOption = Annotated[
    Path,
    path_option("--model", "-m", help="A Hugging Face model directory, a .gguf file, or a directory with one .gguf."),
]
PromptOption = Annotated[
    str,
    typer.Option(
        help="The text to go on from; empty starts from the model's BOS. Other users of this machine can read it "
        "meanwhile, which --prompt-file avoids."
    ),
]
PromptFileOption = Annotated[
    Path | None,
    path_option("--prompt-file", help="Read the prompt from this file, or from stdin if it is -.", show_default=False),
]
WorldSizeOption = Annotated[int, typer.Option(help="How many nodes the model is cut for.")]
StrategyOption = Annotated[
    str, typer.Option(help="How the model is shared out: uniform, or ratio:3,1,1 with a number per node.")
]
WireDtypeOption = Annotated[
    str,
    typer.Option(
        help="How numbers travel: float32; bfloat16: half the bytes; int8: a quarter of a prompt's bytes, for slow "
        "links. With the last two tokens are not quite the same."
    ),
]
RoundsOption = Annotated[
    str,
    typer.Option(
        help="What carries rounds to other devices: frames (TLS over TCP, several times as quick), grpc, or auto: "
        "frames where a node takes them."
    ),
]
BackendOption = Annotated[
    str, typer.Option(help="What computes: native, kernels of our own, or torch, for comparison; --use-gpu is torch.")
]
ActivationsOption = Annotated[
    str,
    typer.Option(
        help="What rows are in products with weights in GGUF's blocks: float32, or int8, whole numbers with a scale "
        "for 32, which is quicker. With int8 tokens are not quite the same: coordinator-cli quality measures it."
    ),
]
SaveDirOption = Annotated[Path, path_option(help="Where slices are kept; relative to the model's directory.")]
SplitBinOption = Annotated[bool, typer.Option("--split-bin", help="Slice again even if slices are there.")]
WeightsDtypeOption = Annotated[
    str | None,
    typer.Option(
        help="Stored as: float32, float16, bfloat16; q8_0 or q4_0 (quantized here, in blocks of 32); gguf (as a "
        "quantized GGUF file has it). The source's own by default. Computed in float32."
    ),
]
LogLevelOption = Annotated[str, typer.Option(help="debug, info, warning or error.")]
StateOption = Annotated[
    Path | None, path_option("--state-dir", help="Where the mesh is kept, if not in the usual directory.")
]


def as_typed(state_dir: Path | None) -> str:
    """Return the option that the next command needs to find the same mesh."""
    return "" if state_dir is None else f" --state-dir {shlex.quote(str(state_dir))}"
