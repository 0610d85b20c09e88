"""flash-kmeans as the search of a shard on a GPU, where it is installed, exact and faster than plain torch.

Its Triton kernel keeps the product of a tile on the chip and finds the minimum there. Only its search is used, for its
sums are float32. Source: arXiv 2603.09229; https://github.com/svg-project/flash-kmeans, Apache-2.0.
"""

import importlib
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from clray.errors import UserError
from clray.kmeans.shards.torch_kernels import Centroids, Nearest, nearest_by_tiles, squared_distances

log = logging.getLogger(__name__)
MODULE = "flash_kmeans.assign_euclid_triton"
NUM_TIMED = 3
LARGEST_EXCESS = 1e-6
"""Share of the inertia by which its ids may be worse than the nearest: rounding among ties."""


def faster_kernel(vectors: Tensor, centroids: Centroids) -> Nearest:
    """flash-kmeans where it is installed, gives the nearest centroids of this block and takes less time; else torch.

    With `train.deterministic` torch: the times differ from run to run, and with the kernel the ids among ties.
    """
    flash = None if torch.are_deterministic_algorithms_enabled() else find_flash()
    if flash is None or not _is_exact(flash, vectors, centroids):
        return nearest_by_tiles
    return min((nearest_by_tiles, flash), key=lambda kernel: _seconds(kernel, vectors, centroids))


def flash_kernel(vectors: Tensor, centroids: Centroids) -> Nearest:
    """flash-kmeans whatever its speed.

    Raises:
        UserError: it is not installed, does not run on this device, or gives other ids.
    """
    flash = find_flash()
    if flash is None:
        raise UserError(
            "kmeans.backend=flash-kmeans: the package is not installed or does not load. Install it with "
            "`pip install flash-kmeans`, or set kmeans.backend=auto"
        )
    if not _is_exact(flash, vectors, centroids):
        raise UserError(
            f"kmeans.backend=flash-kmeans: its kernel fails or does not find the nearest centroids on "
            f"{vectors.device}. Set kmeans.backend=torch"
        )
    return flash


def find_flash() -> Nearest | None:
    """The kernel of flash-kmeans, or None where it cannot be imported."""
    try:
        kernel = importlib.import_module(MODULE).euclid_assign_triton
    except (ImportError, AttributeError, RuntimeError):  # RuntimeError: Triton without a driver
        return None

    def nearest(vectors: Tensor, centroids: Centroids) -> Tensor:
        with _three_times_tf32():
            found: Tensor = kernel(
                vectors[None],
                centroids.points[None],
                vectors.square().sum(1)[None],
                c_sq=centroids.squares[None],
            )
        return found[0].long()

    return nearest


def _is_exact(flash: Nearest, vectors: Tensor, centroids: Centroids) -> bool:
    """Whether its ids are nearest but for ties; a kernel that fails is none."""
    try:
        ids = flash(vectors, centroids)
    except Exception as error:  # whatever Triton's compiler or the driver raises
        log.warning("flash-kmeans is not used: %s: %s", type(error).__name__, error)
        return False
    own, least = (
        squared_distances(vectors, centroids.points[each]).sum(dtype=torch.float64)
        for each in (ids, nearest_by_tiles(vectors, centroids))
    )
    if own <= least * (1 + LARGEST_EXCESS):
        return True
    log.warning("flash-kmeans is not used: its inertia is %.2e above the nearest's", float(own / least - 1))
    return False


def _seconds(kernel: Nearest, vectors: Tensor, centroids: Centroids) -> float:
    """Least time of a few searches; the first, which may compile, was that of `_is_exact`."""
    wait: Callable[[], Any] = torch.cuda.synchronize if vectors.is_cuda else lambda: None
    times = []
    for _ in range(NUM_TIMED):
        wait()
        start = time.perf_counter()
        kernel(vectors, centroids)
        wait()
        times.append(time.perf_counter() - start)
    return min(times)


@contextmanager
def _three_times_tf32() -> Iterator[None]:
    """Products of float32 as three of TF32, nearly exact; alone TF32 keeps ten bits and misses near centroids."""
    try:
        from triton import knobs
    except ImportError:
        yield
        return
    with knobs.language.scope():
        knobs.language.fp32_default = "tf32x3"
        yield
