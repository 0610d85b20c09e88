import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from clray.config import Config
from clray.data.augmentation import to_float
from clray.data.load import load_dataset
from clray.report.pictures import draw_run
from clray.track.models import write_model
from clray.training.checkpoint import BEST_FILE, read_checkpoint
from clray.training.export import load_model
from clray.training.workers.launch import train_in_process

LOAD = """
import sys
sys.modules["clray"] = sys.modules["ray"] = None  # neither can be imported
import mlflow.pytorch, numpy as np, torch
model = mlflow.pytorch.load_model(sys.argv[1])
np.save(sys.argv[3], model(torch.from_numpy(np.load(sys.argv[2]))).detach().numpy())
"""


@pytest.mark.slow
def test_an_encoder_loads_from_mlflow_without_clray_or_ray(tiny_config: Callable[..., Config], tmp_path: Path) -> None:
    config = tiny_config(clusters={"source": "labels"}, sweep={"metric": "eval/linear_accuracy"})
    data = load_dataset(config.data)
    train_in_process(config, data, tmp_path / "run", lambda _: None, None)
    path = write_model(tmp_path / "run", config, data)
    pixels = to_float(torch.from_numpy(data.test.images.pixels[:7]))
    np.save(tmp_path / "x.npy", pixels.numpy())
    command = [sys.executable, "-c", LOAD, str(path), str(tmp_path / "x.npy"), str(tmp_path / "h.npy")]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    encoder = load_model(read_checkpoint(tmp_path / "run" / BEST_FILE), config).encoder.eval()
    with torch.no_grad():
        expected = encoder(pixels).numpy()
    np.testing.assert_allclose(np.load(tmp_path / "h.npy"), expected, atol=1e-5)
    for picture in draw_run(tmp_path / "run", config, data):
        with Image.open(picture) as image:
            assert len(np.unique(np.asarray(image.convert("RGB").resize((80, 56))).reshape(-1, 3), axis=0)) > 10
