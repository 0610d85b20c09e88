"""Images per second of a SimCLR run beside lightly's own recipe, and of two workers beside one with two threads.

    python scripts/benchmarks/training.py CIFAR10/train.parquet
    python scripts/benchmarks/training.py CIFAR10/train.parquet --part workers

`lightly` (has to be installed): its SimCLR transform on decoded images in a DataLoader, torchvision's ResNet-18 with a
small-image stem, its projection head and NTXentLoss, Adam. clray: the same encoder, head, batch and optimizer, from the
same file. Both decode before the clock starts; the two take turns, and the ratio is the median over the turns.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median

import numpy as np
import torch
from torch import nn

from clray.config import Config, override, parse_config
from clray.data.augmentation import build_augmentation, draw_views
from clray.data.load import load_dataset
from clray.data.loaders import training_batches
from clray.data.samples import Dataset
from clray.ray_runtime.cluster import start_ray
from clray.training.metrics import read_metrics
from clray.training.start import Start, start_clusters
from clray.training.state import create_state
from clray.training.workers.launch import launch


def config_for(options: argparse.Namespace) -> Config:
    return parse_config(
        {
            "data": {"name": "parquet", "train_path": options.train, "max_train_images": options.images},
            "objective": {"name": "infonce", "temperature": 0.5},
            "encoder": {"name": options.encoder, "width": 32},
            "head": {"hidden_dim": 512, "embedding_dim": 128},
            "train": {"global_batch_size": options.batch, "learning_rate": 1e-3, "precision": options.precision},
        }
    )


def clray_steps(config: Config, data: Dataset, device: torch.device) -> Iterator[None]:
    """One step of training per item."""
    state = create_state(
        config,
        num_channels=data.num_channels,
        steps_per_epoch=1,
        start=Start(start_clusters(config, data)),
        device=device,
        shard=np.arange(len(data.train)),
    )
    augmentation = build_augmentation(config.augmentation, 32, data.num_channels)
    generator = np.random.default_rng(0)
    cluster_ids = torch.arange(len(data.train), device=device)[None]
    size = config.train.global_batch_size
    while True:
        order = generator.permutation(len(data.train))
        for batch in training_batches(data.train, order, batch_size=size, steps=len(order) // size, config=config.data):
            images, indices = (each.to(device) for each in batch)
            value = state.objective(state.model, draw_views(augmentation, images), indices, cluster_ids)
            value.loss.backward()
            state.optimizer.step()
            state.optimizer.zero_grad(set_to_none=True)
            yield


def lightly_steps(config: Config, data: Dataset, device: torch.device, num_loaders: int) -> Iterator[None]:
    """The same by lightly's documented recipe."""
    from lightly.loss import NTXentLoss
    from lightly.models.modules import SimCLRProjectionHead
    from lightly.transforms import SimCLRTransform
    from PIL import Image
    from torch.utils.data import DataLoader
    from torch.utils.data import Dataset as TorchDataset
    from torchvision.models import resnet18

    transform = SimCLRTransform(input_size=32, gaussian_blur=0.0, min_scale=config.augmentation.min_crop_scale)
    pixels = np.asarray(data.train.images.pixels).transpose(0, 2, 3, 1)

    class Images(TorchDataset):
        def __len__(self) -> int:
            return len(pixels)

        def __getitem__(self, index: int) -> list[torch.Tensor]:
            return transform(Image.fromarray(pixels[index]))

    backbone = resnet18(weights=None)
    backbone.conv1, backbone.maxpool = nn.Conv2d(3, 64, 3, padding=1, bias=False), nn.Identity()
    backbone.fc = nn.Identity()
    model = nn.Sequential(backbone, SimCLRProjectionHead(512, 512, 128)).to(device)
    criterion = NTXentLoss(temperature=0.5)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    loader = DataLoader(
        Images(),
        config.train.global_batch_size,
        shuffle=True,
        drop_last=True,
        num_workers=num_loaders,
        persistent_workers=num_loaders > 0,
    )
    while True:
        for views in loader:
            z = [model(view.to(device)) for view in views]
            criterion(*z).backward()
            optimizer.step()
            optimizer.zero_grad()
            yield


def images_per_second(steps: Iterator[None], num_steps: int, batch: int) -> float:
    start = time.perf_counter()
    for _ in range(num_steps):
        next(steps)
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return num_steps * batch / (time.perf_counter() - start)


def compare_with_lightly(config: Config, data: Dataset, options: argparse.Namespace) -> None:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    ours = clray_steps(config, data, device)
    theirs = lightly_steps(config, data, device, options.loaders)
    for steps in (ours, theirs):
        images_per_second(steps, 1, options.batch)
    rates = [
        [images_per_second(steps, options.steps, options.batch) for steps in (ours, theirs)]
        for _ in range(options.turns)
    ]
    own, rival = (median(column) for column in zip(*rates, strict=True))
    print(f"clray {own:.1f}, lightly {rival:.1f} images/s; ratio {median(a / b for a, b in rates):.2f}")


def compare_workers(config: Config, data: Dataset, options: argparse.Namespace) -> None:
    start_ray(needed_cpus=2, verbose=False)
    layouts: dict[str, dict[str, object]] = {
        "1 worker, 2 threads": {"train.num_workers": 1, "train.cpus_per_worker": 2},
        "2 workers": {"train.num_workers": 2, "train.cpus_per_worker": 1},
    }
    rates: dict[str, list[float]] = {name: [] for name in layouts}
    for _ in range(options.turns):
        for name, layout in layouts.items():
            with tempfile.TemporaryDirectory() as folder:
                chosen = override(config, {**layout, "train.num_epochs": 3})
                ignore: Callable[..., None] = _ignore
                launch(chosen, data, Path(folder), service=None, record=ignore, show=ignore)
                rates[name].append(median(m["train/samples_per_second"] for m in read_metrics(Path(folder))[1:]))
            print(f"{name}: {rates[name][-1]:.1f} images/s", flush=True)
    one, two = rates.values()
    print(f"2 workers over 1: {median(b / a for a, b in zip(one, two, strict=True)):.2f}")


def _ignore(_: object) -> None:
    """What Ray Train's controller calls; it has to pickle."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("train")
    parser.add_argument("--part", choices=["lightly", "workers"], default="lightly")
    parser.add_argument("--encoder", default="resnet18")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--images", type=int, default=4_096)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--loaders", type=int, default=2, help="DataLoader processes of lightly's recipe")
    options = parser.parse_args()
    torch.set_num_threads(os.cpu_count() or 1)
    config = config_for(options)
    data = load_dataset(config.data)
    {"lightly": compare_with_lightly, "workers": compare_workers}[options.part](config, data, options)


if __name__ == "__main__":
    main()
