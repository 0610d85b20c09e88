"""A trained encoder as an MLflow model that loads where neither clray nor Ray is installed."""

import logging
import shutil
import warnings
from pathlib import Path

import numpy as np
import torch

from clray.config import Config
from clray.data.augmentation import to_float
from clray.data.loaders import ordered_batches
from clray.data.samples import Dataset
from clray.track.runs import RunLogger
from clray.training.checkpoint import BEST_FILE, read_checkpoint
from clray.training.export import load_model
from clray.training.metrics import best_epoch
from clray.training.storage import fetch_checkpoints

MODEL_FOLDER = "model"
log = logging.getLogger(__name__)


def log_model(
    logger: RunLogger, folder: Path, config: Config, data: Dataset, *, stored_as: str, register_as: str | None = None
) -> None:
    """Write a run's encoder as a model and record it; the run is not lost over it.

    Args:
        register_as: name in the model registry, whose champion it becomes.
        stored_as: the run's name in `train.storage_path`, from which a checkpoint that is not in `folder` is fetched.
    """
    try:
        fetch_checkpoints(config, folder, stored_as)
        logger.log_model(write_model(folder, config, data), best_epoch(folder, config.sweep.metric))
        if register_as is not None:
            logger.register_model(register_as)
    except Exception as error:  # such as an encoder of the user's that torch cannot export
        log.warning("could not write an MLflow model of %s: %s", folder, error)


def write_model(folder: Path, config: Config, data: Dataset) -> Path:
    """Write the run's best encoder in MLflow's format, with its signature: pixels in 0..1 to the representation h.

    An encoder of embeddings takes vectors [B, dim].

    The program is torch's exported one, with a batch dimension of any size.
    """
    import mlflow.pytorch
    from mlflow.models import infer_signature

    best = folder / BEST_FILE
    model = load_model(read_checkpoint(best if best.exists() else folder), config).encoder.eval().float()
    pixels, _ = next(ordered_batches(data.test, np.arange(min(2, len(data.test))), batch_size=2, config=config.data))
    floats = to_float(pixels)
    example = (floats if data.test.images.has_pixels else floats.flatten(1)).numpy()
    with torch.no_grad():
        h = model(torch.from_numpy(example)).numpy()
    path = folder / MODEL_FOLDER
    shutil.rmtree(path, ignore_errors=True)
    logging.getLogger("mlflow").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        mlflow.pytorch.save_model(
            model,
            path,
            signature=infer_signature(example, h),
            input_example=example,
            pip_requirements=[f"torch=={torch.__version__.partition('+')[0]}"],
        )
    return path
