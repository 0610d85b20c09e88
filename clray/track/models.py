"""A trained encoder as an MLflow model that loads where neither clray nor Ray is installed."""

import logging
import shutil
import warnings
from pathlib import Path

import numpy as np
import torch

from clray.config import Config
from clray.data.loaders import ordered_batches
from clray.data.samples import Dataset
from clray.training.checkpoint import BEST_FILE, read_checkpoint
from clray.training.export import load_model

MODEL_FOLDER = "model"


def write_model(folder: Path, config: Config, data: Dataset) -> Path:
    """Write the run's best encoder in MLflow's format, with its signature: pixels in 0..1 to the representation h.

    The program is torch's exported one, with a batch dimension of any size.
    """
    import mlflow.pytorch
    from mlflow.models import infer_signature

    best = folder / BEST_FILE
    model = load_model(read_checkpoint(best if best.exists() else folder), config).encoder.eval().float()
    pixels, _ = next(ordered_batches(data.test, np.arange(min(2, len(data.test))), batch_size=2, config=config.data))
    example = (pixels.float() / 255).numpy()
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
