"""`coordinator-cli split`: cut a model into slices, without running it."""

from __future__ import annotations

import time
from pathlib import Path

from common.program.logs import configure_logs
from common.wording import counted
from coordinator.cli.early import check_cut
from coordinator.cli.options import (
    LogLevelOption,
    ModelOption,
    SaveDirOption,
    SplitBinOption,
    StrategyOption,
    WeightsDtypeOption,
    WorldSizeOption,
)
from coordinator.cli.telling import tell


def split(
    model: ModelOption,
    world_size: WorldSizeOption = 1,
    split_strategy: StrategyOption = "uniform",
    save_dir: SaveDirOption = Path("split"),
    split_bin: SplitBinOption = False,
    weights_dtype: WeightsDtypeOption = None,
    log_level: LogLevelOption = "warning",
) -> None:
    """Cut a model into one slice per node, and one for the coordinator.

    Slices that are there already are kept unless --split-bin is given.
    Example: coordinator-cli split --model models/my-model --world-size 3 --split-strategy ratio:3,1,1
    """
    configure_logs(log_level)
    from coordinator.checkpoints.model_place import find_model

    check_cut(world_size, split_strategy, weights_dtype)
    find_model(model)  # a mistake is told before anything is imported that takes time
    # Here and not at the top: --help must not wait for it.
    from coordinator.cli.progress import byte_progress
    from coordinator.models.local_model import LocalModel, ModelOptions

    options = ModelOptions(
        model=model, world_size=world_size, split_strategy=split_strategy, save_dir=str(save_dir),
        split_bin=split_bin, weights_dtype=weights_dtype,
    )  # fmt: skip
    started = time.monotonic()
    opened = LocalModel(options)
    try:
        with byte_progress("slicing") as progress:
            made = opened.slice(progress)
    finally:
        opened.close()
    seconds = time.monotonic() - started
    what = f"made in {seconds:.1f} s" if made else "there already"
    tell(f"slices for {counted(world_size, 'node')} in {options.split_directory}: {what}")
