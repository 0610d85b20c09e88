"""How torch computes while a run trains: bit for bit again or as fast as it can, and how float32 is multiplied."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from clray.config.sections import TrainConfig
from clray.errors import UserError
from clray.seeding import forbid_chance

NOT_DETERMINISTIC = "does not have a deterministic implementation"


@contextmanager
def arithmetic_of_run(train: TrainConfig, device: torch.device) -> Iterator[None]:
    """With `train.deterministic` what has no deterministic form is refused; else cuDNN tries out what is fastest.

    Leaves torch as it was, for the run that comes next in this process.

    Raises:
        UserError: an operation, of the encoder or of the objective, that has none.
    """
    cudnn, before = torch.backends.cudnn, torch.are_deterministic_algorithms_enabled()
    only_warned = torch.is_deterministic_algorithms_warn_only_enabled()
    kept = cudnn.benchmark, cudnn.deterministic
    if train.deterministic:
        forbid_chance()
    cudnn.benchmark, cudnn.deterministic = device.type == "cuda" and not train.deterministic, train.deterministic
    try:
        yield
    except RuntimeError as error:
        if train.deterministic and NOT_DETERMINISTIC in str(error):
            operation = str(error).split(" does not", maxsplit=1)[0].split()[-1]
            raise UserError(
                f"train.deterministic=true: {operation} has no deterministic form on a {device.type} device; choose "
                "another encoder or objective, or leave train.deterministic out"
            ) from error
        raise
    finally:
        torch.use_deterministic_algorithms(before, warn_only=only_warned)
        cudnn.benchmark, cudnn.deterministic = kept


@contextmanager
def products_of_step(train: TrainConfig, device: torch.device) -> Iterator[None]:
    """On a GPU, `train.float32_matmul_precision` for one step; evaluation and k-means multiply at full precision."""
    if device.type != "cuda":
        yield
        return
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(train.float32_matmul_precision)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
