"""Small configs and images that many tests share."""

import io
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from clray.config import Config, parse_config
from clray.track import store_file
from tests import commands
from tests.stores import TEMPLATE, create_by_copy

REPOSITORY = Path(__file__).parent.parent
CIFAR10 = REPOSITORY.parent / "shared" / "data" / "cifar10"

TINY = {
    "data": {"name": "digits", "max_train_images": 96, "max_test_images": 48, "validation_fraction": 0},
    "augmentation": {"name": "digits"},
    "clusters": {"source": "kmeans", "num_clusters": 6},
    "recluster": {"warmup_epochs": 1},
    "kmeans": {"num_shards": 2, "num_iterations": 4, "cpus_per_shard": 0.1},
    "encoder": {"name": "small_cnn", "width": 4},
    "head": {"hidden_dim": 16, "embedding_dim": 8},
    # Equal on every machine: `auto` would take what is faster.
    "train": {"num_epochs": 3, "global_batch_size": 32, "cpus_per_worker": 0.5, "precision": "float32"},
    "evaluate": {"num_neighbors": 5},
    # Drawing and writing models takes longer than such a run; tests of these ask for them.
    "tracking": {"pictures": "none", "models": "none", "pages": "none"},
}
ALL_ARTIFACTS = {"tracking": {}}

torch.set_num_threads(1)
os.environ["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] = "false"  # seven processes of a server that no test needs
for variable in ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME"):
    os.environ.pop(variable, None)  # a test records where it says, also on the machine of somebody who uses MLflow


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests come first, so that no worker is left with one while the others have nothing more to do."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(scope="module", autouse=True)
def ray_ends_with_its_module() -> Iterator[None]:
    """What the library starts stays for the next call of a user; another module starts a cluster of its own."""
    yield
    if "ray" in sys.modules:
        sys.modules["ray"].shutdown()


@pytest.fixture(scope="session", autouse=True)
def quick_stores(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """New MLflow stores of this process are copies of one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(TEMPLATE, str(tmp_path_factory.getbasetemp() / "store.db"))
        patch.setattr(store_file, "_create", create_by_copy)
        yield


@pytest.fixture
def tiny_config() -> Callable[..., Config]:
    """A config that trains in a second; keyword sections are merged in."""

    def make(**sections: dict) -> Config:
        tree = {name: dict(values) for name, values in TINY.items()}
        for name, values in sections.items():
            tree[name] = {**tree.get(name, {}), **values} if isinstance(values, dict) else values
        return parse_config(tree)

    return make


@pytest.fixture
def tiny_yaml(tmp_path: Path) -> Callable[..., Path]:
    """The same as a file."""

    def write(search_space: object = None, **sections: dict) -> Path:
        tree = {name: {**values, **sections.pop(name, {})} for name, values in TINY.items()} | sections
        if search_space is not None:
            tree["search_space"] = search_space
        path = tmp_path / "tiny.yaml"
        path.write_text(yaml.safe_dump(tree), encoding="utf-8")
        return path

    return write


@pytest.fixture
def clray() -> Callable[..., subprocess.CompletedProcess]:
    """Runs the command in a process of its own, as a user does."""

    def call(*arguments: object, timeout: float = 480, **environment: str) -> subprocess.CompletedProcess:
        return commands.run(arguments, {"COLUMNS": "200", **environment}, timeout=timeout)

    return call


def png(seed: int, size: int = 8) -> bytes:
    """A random RGB image, encoded."""
    pixels = np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()
