"""Where kernels run: on the CPU, or on a CUDA device that torch must have.

Does not cover: moving weights there (weights/tile_tensors.py).
"""

from __future__ import annotations

import torch

from common.errors import InputError


def select_device(use_gpu: bool) -> torch.device:
    """Return where kernels run.

    Raises: InputError: a GPU is asked for and torch has none.
    """
    if not use_gpu:
        return torch.device("cpu")
    if not torch.cuda.is_available():
        build = torch.version.cuda or "CPU only"
        raise InputError(f"--use-gpu: torch {torch.__version__} ({build}) finds no CUDA device on this machine; "
                         "leave the option out to compute on the CPU")  # fmt: skip
    return torch.device("cuda")
