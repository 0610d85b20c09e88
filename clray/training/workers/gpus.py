"""The GPUs that a run asks for, and the device it gets for them: never a CPU in place of a GPU, nor the reverse."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from clray.config import Config, override
from clray.config.sections import TrainConfig
from clray.errors import UserError


def with_gpus(config: Config, num_gpus: float) -> Config:
    """The config with `train.gpus_per_worker: auto` settled: one where each worker of the run finds one, or none.

    Args:
        num_gpus: that the workers may take.
    """
    return override(config, {"train.gpus_per_worker": gpus_of(config.train, num_gpus)})


def gpus_of(train: TrainConfig, num_gpus: float) -> float:
    """GPUs for each worker; see `with_gpus`."""
    if train.gpus_per_worker == "auto":
        return float(num_gpus >= train.group_sizes[0])
    return train.gpus_per_worker


def num_visible_gpus() -> int:
    """GPUs that torch can use in this process."""
    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def default_device() -> torch.device:
    """The GPU of this process where there is one, else the CPU."""
    return torch.device("cuda" if num_visible_gpus() else "cpu")


def device_of(train: TrainConfig) -> torch.device:
    """Where a run in this process trains; Ray shows a trial no GPU but its own.

    Raises:
        UserError: it asks for a GPU, and torch sees none.
    """
    if train.gpus_per_worker == "auto":
        return default_device()
    if train.gpus_per_worker == 0:
        return torch.device("cpu")
    if not num_visible_gpus():
        built = "is built without CUDA" if torch.version.cuda is None else "sees none here; look at `nvidia-smi`"
        raise UserError(
            f"train.gpus_per_worker={train.gpus_per_worker:g} asks for a GPU, and PyTorch {torch.__version__} {built}. "
            "Set train.gpus_per_worker=0 to train on the CPU, or auto"
        )
    return torch.device("cuda")


def device_beside(train: TrainConfig) -> torch.device:
    """Where what such a run has trained is used afterwards, on whatever machine: on no GPU where it asked for none."""
    return torch.device("cpu") if train.gpus_per_worker == 0 else default_device()


@contextmanager
def own_share(train: TrainConfig, device: torch.device) -> Iterator[None]:
    """Keep to the run's share of its GPU, and leave none of its memory behind for the run after it."""
    if device.type != "cuda":
        yield
        return
    share = gpus_of(train, 1.0)
    torch.cuda.set_per_process_memory_fraction(min(share, 1.0) or 1.0, device)
    try:
        yield
    finally:
        torch.cuda.empty_cache()
        torch.cuda.set_per_process_memory_fraction(1.0, device)
