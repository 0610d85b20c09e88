"""Milliseconds for the views of a batch: clray's fused augmentation, kornia's chain, torchvision v2 image by image.

    python scripts/benchmarks/views.py
    python scripts/benchmarks/views.py --repeats 3 --batch 8

kornia's rows are left out where it is not installed. All make two views of each image, with the same settings, in
turns, so that a busy machine is busy for all; quoted are the medians and the median ratio. The last part is a whole
step of the digits demo (small CNN of width 16, batch 128) with the views of either.
"""

import argparse
import time
from collections.abc import Callable, Mapping
from functools import partial
from importlib.util import find_spec
from statistics import median

import numpy as np
import torch
from machine import machine
from torch import Tensor, nn

from clray.config import Config, parse_config
from clray.config.sections import AugmentationConfig
from clray.data.augmentation import build_augmentation, draw_views, to_float
from clray.data.load import load_dataset
from clray.training.start import Start, start_clusters
from clray.training.state import create_state


def by_kornia(name: str, size: int) -> dict[str, Callable[[Tensor], Tensor]]:
    """kornia's chain by its name; nothing where it is not installed."""
    if find_spec("kornia") is None:
        return {}
    import kornia.augmentation as K

    crop = K.RandomResizedCrop((size, size), scale=(0.4, 1.0), ratio=(0.75, 4 / 3))
    if name == "digits":
        chain = nn.Sequential(K.RandomAffine(10.0, translate=(0.1, 0.1), p=1.0), crop)
    else:
        jitter = K.ColorJitter(0.4, 0.4, 0.4, 0.1, p=0.8)
        chain = nn.Sequential(crop, K.RandomHorizontalFlip(), jitter, K.RandomGrayscale(p=0.2))
    return {"kornia": lambda images: torch.stack([chain(to_float(images)) for _ in range(2)])}


def by_torchvision(size: int) -> Callable[[Tensor], Tensor]:
    from torchvision.transforms import v2

    chain = v2.Compose(
        [
            v2.RandomResizedCrop(size, scale=(0.4, 1.0)),
            v2.RandomHorizontalFlip(),
            v2.RandomApply([v2.ColorJitter(0.4, 0.4, 0.4, 0.1)], p=0.8),
            v2.RandomGrayscale(p=0.2),
        ]
    )
    return lambda images: torch.stack([torch.stack([chain(image) for image in to_float(images)]) for _ in range(2)])


def by_clray(name: str, size: int, channels: int) -> Callable[[Tensor], Tensor]:
    augmentation = build_augmentation(AugmentationConfig.model_validate({"name": name}), size, channels)
    return lambda images: draw_views(augmentation, images)


def digits_config() -> Config:
    return parse_config(
        {
            "data": {"name": "digits"},
            "augmentation": {"name": "digits"},
            "objective": {"name": "infonce"},
            "encoder": {"name": "small_cnn", "width": 16},
            "train": {"global_batch_size": 128},
        }
    )


def digits_step(views: Callable[[Tensor], Tensor], batch: int) -> Callable[[], None]:
    """A whole step of the demo, with these views."""
    config = digits_config()
    data = load_dataset(config.data)
    state = create_state(
        config,
        num_channels=1,
        steps_per_epoch=1,
        start=Start(start_clusters(config, data)),
        device=torch.device("cpu"),
        shard=np.arange(len(data.train)),
    )
    ids, indices = torch.arange(len(data.train))[None], torch.arange(batch)
    images = torch.randint(256, (batch, 1, 8, 8), dtype=torch.uint8)

    def step() -> None:
        state.objective(state.model, views(images), indices, ids).loss.backward()
        state.optimizer.step()
        state.optimizer.zero_grad(set_to_none=True)

    return step


def compare(title: str, parts: Mapping[str, Callable[[], object]], repeats: int) -> None:
    """Time all in turns and print medians and their ratios to the first."""
    times: dict[str, list[float]] = {name: [] for name in parts}
    for call in parts.values():
        call()
    for _ in range(repeats):
        for name, call in parts.items():
            start = time.perf_counter()
            call()
            times[name].append(time.perf_counter() - start)
    first = next(iter(times.values()))
    for name, own in times.items():
        ratio = median(b / a for a, b in zip(first, own, strict=True))
        print(f"{title}, {name}: {median(own) * 1e3:.2f} ms, {ratio:.1f} times the first's", flush=True)


def compare_all(title: str, batch: int, repeats: int) -> None:
    images = torch.randint(256, (batch, 3, 32, 32), dtype=torch.uint8)
    ways = {"clray": by_clray("simclr", 32, 3), **by_kornia("simclr", 32), "torchvision": by_torchvision(32)}
    compare(f"{title}, {batch} x 2 views of 32x32", {name: partial(way, images) for name, way in ways.items()}, repeats)
    size = min(batch, 128)
    small = torch.randint(256, (size, 1, 8, 8), dtype=torch.uint8)
    ways = {"clray": by_clray("digits", 8, 1), **by_kornia("digits", 8)}
    compare(f"{title}, {size} x 2 views of 8x8", {name: partial(way, small) for name, way in ways.items()}, repeats)
    steps = {name: digits_step(way, size) for name, way in ways.items()}
    compare(f"{title}, step of the digits demo", steps, repeats)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    options = parser.parse_args()
    print(machine())
    for threads in options.threads:
        torch.set_num_threads(threads)
        compare_all(f"{threads} threads", options.batch, options.repeats)


if __name__ == "__main__":
    main()
