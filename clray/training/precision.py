"""What `train.precision: auto` is on this machine: the faster of its precisions for this encoder and batch.

A CPU that has bfloat16 may still be slower with it. So a step of each is timed, once: the machine's folder for caches
keeps the times.
"""

import copy
import logging
from statistics import median
from typing import Literal

import torch

from clray.config import Config
from clray.model.encoder import ContrastiveModel, product_type, uses_bfloat16
from clray.training.machine_times import MachineTimes, Seconds, embed_and_back, one_thread
from clray.training.metrics import Metrics

IS_BFLOAT16 = "train/bfloat16"
"""The metric by which a run tells its precision: 1 for bfloat16, 0 for others."""
IS_FLOAT16 = "train/float16"
"""The same of float16; runs in others have no such metric."""
FOLDER = "precision"
"""Below the root of the cache; a file for each machine, encoder and batch."""
Precision = Literal["auto", "bfloat16", "float16", "float32"]
PRECISIONS: tuple[Precision, ...] = ("float32", "bfloat16")
LEAST_GAIN = 1.05
"""So much faster bfloat16 has to be: below that, its rounding buys nothing that timing can tell from noise."""
STEP_SECONDS, MOST_SECONDS, MOST_ROUNDS = 0.1, 0.5, 9
log = logging.getLogger(__name__)


def settled_precision(
    config: Config, model: ContrastiveModel, image_shape: tuple[int, int, int], batch_size: int, device: torch.device
) -> Precision:
    """`train.precision`, with `auto` settled: on a CPU with bfloat16 whichever is faster, elsewhere by the hardware.

    With `train.deterministic` it is float32 on a CPU.

    Args:
        image_shape: channels, height and width of a view.
        batch_size: views that this process embeds in a step.
    """
    if config.train.precision != "auto":
        return config.train.precision
    if not uses_bfloat16("auto", device):
        return "float16" if product_type("auto", device) == torch.float16 else "float32"
    if device.type != "cpu":
        return "bfloat16"
    if config.train.deterministic:
        return "float32"  # times differ from run to run
    shape = (batch_size, *image_shape)
    seconds = MachineTimes(FOLDER, PRECISIONS, config, model, shape).take(lambda: time_precisions(model, shape))
    return "bfloat16" if seconds["float32"] >= LEAST_GAIN * seconds["bfloat16"] else "float32"


def gradient_scaler(precision: Precision, device: torch.device) -> torch.amp.GradScaler:
    """What keeps gradients of float16 above what it can hold; does nothing for others, nor before `auto` is settled."""
    return torch.amp.GradScaler(device.type, enabled=precision == "float16")


def warn_of_kept(precision: Precision, device: torch.device) -> None:
    """Say of a resumed run that it keeps the precision it began with, where this device would have taken another."""
    by_hardware = str(product_type("auto", device)).removeprefix("torch.")
    if precision != by_hardware and (device.type, precision) != ("cpu", "float32"):
        log.warning(
            "train.precision=auto: the run began in %s and goes on in it, where a new run on this %s device would take "
            "%s",
            precision,
            device.type,
            by_hardware,
        )


def precision_of(metrics: Metrics) -> str:
    """What an epoch was trained in, by its metrics."""
    return "bfloat16" if metrics[IS_BFLOAT16] else "float16" if metrics.get(IS_FLOAT16) else "float32"


def time_precisions(model: ContrastiveModel, shape: tuple[int, ...]) -> Seconds:
    """Median seconds of a forward and backward pass in each precision, which take turns.

    The seconds are those that one thread computes: on a busy machine the time on the clock says nothing, and threads
    that wait for each other least of all. Of a large batch only so many images are embedded as take about 0.1 s, so
    that all takes about a second; where two images take longer, it takes six of their steps. The model stays as it is,
    and so do the random generators.
    """
    images = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    copies = {name: copy.deepcopy(model).train() for name in PRECISIONS}
    for name, each in copies.items():
        each.precision = name
    with one_thread(), torch.random.fork_rng(devices=[]):
        few = images[:2]
        embed_and_back(copies["float32"], few)  # the first pass of a shape sets up its kernels
        affordable = int(len(few) * STEP_SECONDS / embed_and_back(copies["float32"], few))
        if affordable > len(few):
            images = images[:affordable]
            embed_and_back(copies["float32"], images)
        else:
            images = few
        embed_and_back(copies["bfloat16"], images)
        rounds: list[list[float]] = []
        while not rounds or (sum(map(sum, rounds)) < MOST_SECONDS and len(rounds) < MOST_ROUNDS):
            rounds.append([embed_and_back(each, images) for each in copies.values()])
    return {name: median(times) for name, times in zip(copies, zip(*rounds, strict=True), strict=True)}
