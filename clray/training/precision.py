"""What `train.precision: auto` is on this machine: the faster of its precisions for this encoder and batch.

A CPU that has bfloat16 may still be slower with it. So a step of each is timed, once: the machine's folder for caches
keeps the times.
"""

import copy
import hashlib
import json
import logging
import os
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from statistics import median
from typing import Literal

import torch

from clray.config import Config
from clray.data.remote.local import cache_root
from clray.folder_lock import in_turn
from clray.model.encoder import ContrastiveModel, product_type, uses_bfloat16
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
Seconds = dict[str, float]
"""Of a step, by precision."""
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
    seconds = _remembered(config, model, (batch_size, *image_shape))
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


def _remembered(config: Config, model: ContrastiveModel, shape: tuple[int, ...]) -> Seconds:
    """The times of this machine, encoder and batch; taken now where no process of this machine has taken them."""
    key = {
        "cpu": cpu_name(),
        "torch": torch.__version__,
        "encoder": config.encoder.model_dump(mode="json"),
        "parameters": [list(each.shape) for each in model.parameters()],
        "images": list(shape),
    }
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:24]
    path = cache_root(config.data) / FOLDER / f"{digest}.json"
    found = _read(path)
    if found is not None:
        return found
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Trials that start together would time each other; those that wait find the times of the first.
        with in_turn(path.with_suffix(".lock")):
            seconds = _read(path) or time_precisions(model, shape)
            partial = path.with_suffix(f".{os.getpid()}.partial")
            partial.write_text(json.dumps({"seconds": seconds, **key}), encoding="utf-8")
            partial.replace(path)
    except OSError:  # a folder that cannot be written costs a second for each run
        return time_precisions(model, shape)
    return seconds


def _read(path: Path) -> Seconds | None:
    with suppress(OSError, ValueError, TypeError, KeyError):
        found = json.loads(path.read_text(encoding="utf-8"))["seconds"]
        if all(isinstance(found[name], float) and found[name] > 0 for name in PRECISIONS):
            return {name: found[name] for name in PRECISIONS}
    return None


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
        _step(copies["float32"], few)  # the first pass of a shape sets up its kernels
        affordable = int(len(few) * STEP_SECONDS / _step(copies["float32"], few))
        if affordable > len(few):
            images = images[:affordable]
            _step(copies["float32"], images)
        else:
            images = few
        _step(copies["bfloat16"], images)
        rounds: list[list[float]] = []
        while not rounds or (sum(map(sum, rounds)) < MOST_SECONDS and len(rounds) < MOST_ROUNDS):
            rounds.append([_step(each, images) for each in copies.values()])
    return {name: median(times) for name, times in zip(copies, zip(*rounds, strict=True), strict=True)}


@contextmanager
def one_thread() -> Iterator[None]:
    """Within the block torch computes in the calling thread alone."""
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(num_threads)


def _step(model: ContrastiveModel, images: torch.Tensor) -> float:
    start = time.thread_time()
    outputs = model(images)
    parts = [outputs.h, outputs.z, *([] if outputs.second is None else [outputs.second])]
    torch.stack([each.square().sum() for each in parts]).sum().backward()
    for parameter in model.parameters():
        parameter.grad = None
    return max(time.thread_time() - start, 1e-9)


def cpu_name() -> str:
    """The CPU's model, and its flags where the system tells them; equal on equal machines."""
    with suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").split("\n\n")[0].splitlines()
        told = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        flags = told.get("flags", told.get("Features", ""))
        return f"{told.get('model name', platform.machine())}, flags {hashlib.sha256(flags.encode()).hexdigest()[:12]}"
    return f"{platform.machine()} {platform.processor()}"
