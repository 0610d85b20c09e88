"""A run whose classes and attributes have the names that a page must not believe."""

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from clray.config import Config, override, parse_config
from clray.data.load import load_dataset
from clray.data.validation import with_validation
from clray.kmeans.refresh import LocalKMeans
from clray.training.workers.launch import train_in_process
from tests.conftest import TINY

CLASSES = (
    "<img src=x onerror=\"document.title='owned'\">",
    "</script><script>document.title='owned'</script>",
    "\u05e9\u05dc\u05d5\u05dd \u202e\x1b[31m 'quoted'",
    "y" * 300,
)
COLOURS = ((220, 40, 40), (40, 200, 60), (50, 60, 220), (220, 210, 50))
NUM_CLUSTERS = 5


def train_here(config: Config, folder: Path) -> Path:
    """A run in this process, without MLflow or Ray."""
    folder.mkdir(parents=True)
    data = with_validation(load_dataset(config.data), config.data)
    train_in_process(config, data, folder, lambda _: None, LocalKMeans(config.kmeans))
    return folder


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table of 80 photos, a colour for each class, one of them very wide and one very high."""
    folder, draw = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    rows = []
    for i in range(80):
        size = {5: (60, 4), 6: (4, 60)}.get(i, (12, 12))
        pixels = np.clip(draw.normal(COLOURS[i % 4], 25, (size[1], size[0], 3)), 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{i:02d}.png")
        rows.append((f"{i:02d}.png", CLASSES[i % 4], "<b>warm</b>" if i % 4 in (0, 3) else "cold"))
    with (folder / "photos.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("path", "class", "mood"), *rows])
    return folder / "photos.csv"


@pytest.fixture(scope="session")
def make_run(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    def make(name: str, **overrides: object) -> Path:
        tree = {
            **TINY,
            "data": {"name": "csv", "train_path": str(photos), "image_size": 12, "validation_fraction": 0},
            "clusters": {"source": "kmeans", "num_clusters": NUM_CLUSTERS},
            "train": {**TINY["train"], "num_epochs": 4},
            "augmentation": {"name": "simclr"},
        }
        config = override(parse_config(tree), {key.replace("__", "."): value for key, value in overrides.items()})
        return train_here(config, tmp_path_factory.mktemp("runs") / name)

    return make


@pytest.fixture(scope="session")
def run_folder(make_run: Callable[..., Path]) -> Path:
    return make_run("photos")


@pytest.fixture(scope="session")
def other_folder(make_run: Callable[..., Path]) -> Path:
    return make_run("finer", clusters__num_clusters=9)
