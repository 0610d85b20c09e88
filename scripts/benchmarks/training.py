"""Images per second of a SimCLR run beside its network alone, lightly's own recipe, and two workers.

    python scripts/benchmarks/training.py CIFAR10/train.parquet                     # beside the network alone
    python scripts/benchmarks/training.py CIFAR10/train.parquet --part lightly      # and beside lightly's recipe
    python scripts/benchmarks/training.py CIFAR10/train.parquet --part workers      # two workers beside two threads

The network alone is the floor of the machine: forward and backward pass of encoder and head over views that are there
already. `lightly` (has to be installed): its SimCLR transform on decoded images in a DataLoader, the same encoder, its
projection head and NTXentLoss, Adam; in float32 as it comes, and in clray's precision. All decode before the clock
starts and take turns on the same batch size; ratios are medians over the turns. Last comes where the time of a step
goes.
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
from machine import machine
from torch import nn

from clray.config import Config, override, parse_config
from clray.data.augmentation import build_augmentation, draw_views
from clray.data.images.port import Batch
from clray.data.load import load_dataset
from clray.data.loaders import training_batches
from clray.data.samples import Dataset
from clray.model.encoder import build_encoder
from clray.ray_runtime.cluster import start_ray
from clray.training.check import pixel_size
from clray.training.metrics import read_metrics
from clray.training.precision import settled_precision
from clray.training.start import Start, start_clusters
from clray.training.state import TrainState, create_state
from clray.training.workers.launch import launch


def config_for(options: argparse.Namespace) -> Config:
    return parse_config(
        {
            "data": {"name": "parquet", "train_path": options.train, "max_train_images": options.images},
            "objective": {"name": "infonce", "temperature": 0.5},
            "encoder": {"name": options.encoder, "width": options.width},
            "head": {"hidden_dim": 512, "embedding_dim": 128},
            "train": {"global_batch_size": options.batch, "learning_rate": 1e-3, "precision": options.precision},
        }
    )


def clray_steps(config: Config, data: Dataset, device: torch.device) -> Iterator[None]:
    """One step of training per item."""
    state = new_state(config, data, device)
    augmentation = build_augmentation(config.augmentation, pixel_size(data.train)[1], data.num_channels)
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


def network_steps(
    config: Config, data: Dataset, device: torch.device, compile_mode: str | None = None
) -> Iterator[None]:
    """Forward and backward pass of the model alone, one per item; its encoder compiled where a mode is given."""
    state = new_state(config, data, device)
    if compile_mode is not None:
        state.model.encoder.compile(mode=compile_mode)
    size = (state.objective.num_views * config.train.global_batch_size, data.num_channels, *pixel_size(data.train))
    views = torch.rand(size, device=device)
    direction = torch.randn(size[0], config.head.embedding_dim, device=device)
    while True:
        (state.model(views).z * direction).sum().backward()
        state.optimizer.zero_grad(set_to_none=True)
        yield


def new_state(config: Config, data: Dataset, device: torch.device) -> TrainState:
    state = create_state(
        config,
        num_channels=data.num_channels,
        steps_per_epoch=1,
        start=Start(start_clusters(config, data)),
        device=device,
        shard=np.arange(len(data.train)),
    )
    state.model.train()
    return state


def lightly_steps(
    config: Config, data: Dataset, device: torch.device, num_loaders: int, precision: str
) -> Iterator[None]:
    """The same by lightly's documented recipe."""
    from lightly.loss import NTXentLoss
    from lightly.models.modules import SimCLRProjectionHead
    from lightly.transforms import SimCLRTransform
    from PIL import Image
    from torch.utils.data import DataLoader
    from torch.utils.data import Dataset as TorchDataset

    transform = SimCLRTransform(input_size=32, gaussian_blur=0.0, min_scale=config.augmentation.min_crop_scale)
    pixels = np.asarray(data.train.images.pixels).transpose(0, 2, 3, 1)

    class Images(TorchDataset):
        def __len__(self) -> int:
            return len(pixels)

        def __getitem__(self, index: int) -> list[torch.Tensor]:
            return transform(Image.fromarray(pixels[index]))

    backbone, dim = build_encoder(config.encoder, data.num_channels)
    head = SimCLRProjectionHead(dim, config.head.hidden_dim, config.head.embedding_dim)
    model = nn.Sequential(backbone, head).to(device)
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
            with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16"):
                z = [model(view.to(device)) for view in views]
            criterion(*(each.float() for each in z)).backward()
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


def compare(config: Config, data: Dataset, options: argparse.Namespace, *, with_lightly: bool) -> None:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    config = settled(config, data, device)
    precision = config.train.precision
    ways = {
        f"clray, {precision}": clray_steps(config, data, device),
        f"network alone, {precision}": network_steps(config, data, device),
    }
    if with_lightly:
        for each in dict.fromkeys((precision, "float32")):
            ways[f"lightly, {each}"] = lightly_steps(config, data, device, options.loaders, each)
    for steps in ways.values():
        images_per_second(steps, 1, options.batch)
    rates = [
        [images_per_second(steps, options.steps, options.batch) for steps in ways.values()]
        for _ in range(options.turns)
    ]
    for name, own, ratio in zip(
        ways,
        map(median, zip(*rates, strict=True)),
        (median(row[0] / row[i] for row in rates) for i in range(len(ways))),
        strict=True,
    ):
        print(f"{options.encoder}, {name}: {own:.1f} images/s; clray over it {ratio:.2f}", flush=True)
    show_shares(config, data, device, options.turns)


def settled(config: Config, data: Dataset, device: torch.device) -> Config:
    """With `train.precision: auto` decided as a run does."""
    model, views = new_state(config, data, device).model, 2 * config.train.global_batch_size
    shape = (data.num_channels, *pixel_size(data.train))
    return override(config, {"train.precision": settled_precision(config, model, shape, views, device)})


def show_shares(config: Config, data: Dataset, device: torch.device, turns: int) -> None:
    """Where the time of a step goes: its parts one by one, and what is left of the whole."""
    state, size = new_state(config, data, device), config.train.global_batch_size
    augmentation = build_augmentation(config.augmentation, pixel_size(data.train)[1], data.num_channels)
    order = np.random.default_rng(0).permutation(len(data.train))[:size]

    def batch() -> Batch:
        return next(iter(training_batches(data.train, order, batch_size=size, steps=1, config=config.data)))

    images = batch()[0].to(device)
    whole, network = clray_steps(config, data, device), network_steps(config, data, device)
    for parameter in state.model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    parts: dict[str, Callable[[], object]] = {
        "whole step": lambda: next(whole),
        "batch": batch,
        "views": lambda: draw_views(augmentation, images),
        "network": lambda: next(network),
        "optimizer": state.optimizer.step,
    }
    times: dict[str, list[float]] = {name: [] for name in parts}
    for turn in range(turns + 1):
        for name, call in parts.items():
            seconds = size / images_per_second(iter(call, parts), 1, size)
            if turn:  # the first warms up
                times[name].append(seconds)
    milliseconds = {name: 1000 * median(own) for name, own in times.items()}
    left = milliseconds["whole step"] - sum(list(milliseconds.values())[1:])
    shown = ", ".join(f"{name} {own:.1f}" for name, own in milliseconds.items())
    print(f"milliseconds: {shown}, loss and the rest {left:.1f}")


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
                chosen = override(config, {**layout, "train.num_epochs": options.epochs})
                launch(chosen, data, Path(folder), service=None, on_report=_ignore)
                rates[name].append(median(m["train/samples_per_second"] for m in read_metrics(Path(folder))[1:]))
            print(f"{name}: {rates[name][-1]:.1f} images/s", flush=True)
    one, two = rates.values()
    print(f"2 workers over 1: {median(b / a for a, b in zip(one, two, strict=True)):.2f}")


def _ignore(_: object) -> None:
    """What Ray Train's controller calls; it has to pickle."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("train")
    parser.add_argument("--part", choices=["floor", "lightly", "workers"], default="floor")
    parser.add_argument("--encoder", default="resnet18")
    parser.add_argument("--width", type=int, default=32, help="of small_cnn")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--images", type=int, default=4_096)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=3, help="of `workers`; the first is not counted")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="of all but `workers`")
    parser.add_argument("--loaders", type=int, default=2, help="DataLoader processes of lightly's recipe")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    config = config_for(options)
    data = load_dataset(config.data)
    print(machine(), flush=True)
    if options.part == "workers":
        compare_workers(config, data, options)
    else:
        compare(config, data, options, with_lightly=options.part == "lightly")


if __name__ == "__main__":
    main()
