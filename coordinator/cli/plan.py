"""`coordinator-cli plan`: what a model would take on each device, and how fast it would be."""

from __future__ import annotations

import os
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated

import typer

from common.errors import PromptTooLong
from common.program.path_options import path_argument, path_option
from coordinator.cli.documents import JsonOption, show_document
from coordinator.cli.early import check_cut, check_weights_dtype, ratio_count
from coordinator.cli.options import RoundsOption, StateOption, WeightsDtypeOption, WireDtypeOption
from coordinator.cli.plan_table import show_plan
from coordinator.cli.telling import tell

PromptTokensOption = Annotated[int, typer.Option(help="Tokens of the prompt that times are predicted for.", min=1)]
LengthOption = Annotated[int, typer.Option(help="Tokens of its answer.", min=1)]


def plan(
    model: Annotated[Path, path_argument(help="A model's directory (config.json alone will do), or a .gguf.")],
    devices: Annotated[
        Path | None,
        path_option(help="TOML file that describes the devices; without, the mesh's nodes are measured."),
    ] = None,
    split_strategy: Annotated[
        str, typer.Option(help="Who holds how much: uniform, ratio:3,1, memory or measured.")
    ] = "measured",
    weights_dtype: WeightsDtypeOption = None,
    wire_dtype: WireDtypeOption = "float32",
    rounds: RoundsOption = "auto",
    prompt_tokens: PromptTokensOption = 128,
    length: LengthOption = 128,
    state_dir: StateOption = None,
    json_output: JsonOption = False,
) -> None:
    """Say what a model would take on each device and how fast it would be, before anything is moved.

    Exit code 6 where it does not fit; then it is said what would.

    Example: coordinator-cli plan models/my-model --devices deploy/config/devices.toml
    """
    from coordinator.checkpoints.model_place import find_model
    from coordinator.membership.reach import owner_access
    from coordinator.membership.state import default_state_directory
    from coordinator.planning.devices import read_devices
    from coordinator.planning.outline import outline_of
    from coordinator.planning.prediction import Workload, predict
    from coordinator.planning.strategies import MEASURED, MEMORY, plan_for
    from coordinator.planning.survey import survey
    from coordinator.ranks.travel import Travel, wire_item_bytes

    travel = Travel(dtype=wire_dtype, rounds=rounds)
    wire_bytes = wire_item_bytes(travel.dtype)
    check_weights_dtype(weights_dtype)
    described = read_devices(devices) if devices is not None else None
    if split_strategy not in (MEASURED, MEMORY):
        check_cut(len(described.nodes) if described else ratio_count(split_strategy), split_strategy, weights_dtype)
    if not os.path.isfile(model / "config.json"):
        find_model(model)
    outline = outline_of(model)
    description = outline.description(weights_dtype)
    most = outline.spec.max_position_count
    if prompt_tokens + length - 1 > most:
        raise PromptTooLong(f"--prompt-tokens {prompt_tokens} and --length {length} do not fit this model's context of "
                            f"{most}; make one of them smaller")  # fmt: skip
    workload = Workload(prompt_tokens=prompt_tokens, length=length, wire_bytes=wire_bytes)
    if described is not None:
        found = described
    else:
        state = state_dir or default_state_directory()
        mesh = owner_access(state)
        hidden_size = outline.spec.hidden_size
        found = survey(mesh, mesh.alive(), state, hidden_size, workload, tell, rounds=travel.rounds).devices
    chosen = plan_for(description, split_strategy, found, workload)
    description = replace(description, plan=chosen)
    predicted = predict(description, found, workload)
    if json_output:
        show_document({"plan": chosen.to_json(), **asdict(predicted)})
    else:
        show_plan(description, predicted)
    from coordinator.planning.fitting import check_fits

    check_fits(description, split_strategy, found, workload)
