"""What of a step `train.compile` compiles, whether it pays, and what is said where it cannot."""

import copy
import importlib.util
import logging
import os
import resource
import shutil
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import torch
import torch.distributed as dist

from clray.config import Config
from clray.data.augmentation import Augmentation
from clray.model.encoder import ContrastiveModel
from clray.training.machine_times import MachineTimes, Seconds, embed_and_back, one_thread
from clray.training.objectives.port import Objective

LEAST_STEPS = 10_000
"""Below so many steps `auto` leaves a GPU's run as it is: a compilation takes up to a minute."""
FOLDER = "compiling"
"""Below the root of the cache; a file for each machine, encoder, batch and precision."""
TIMES = ("eager", "compiled", "compiling")
MOST_GAIN, LEAST_SECONDS = 0.25, 60.0
"""Where a quarter of all steps takes less than a compilation, `auto` does not find out what it gains on a CPU."""
NUM_TURNS = 5
log = logging.getLogger(__name__)


class OrEager:
    """A function that is compiled when it is first called, and called as it is where that fails."""

    def __init__(self, name: str, function: Callable[..., Any], **options: Any) -> None:
        """Args: `options` are those of `torch.compile`."""
        self.name, self.function = name, function
        self.compiled: Callable[..., Any] | None = torch.compile(function, **options)

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        if self.compiled is not None:
            try:
                return self.compiled(*arguments, **named)
            except (torch._dynamo.exc.TorchDynamoException, OSError) as error:
                reason = " ".join(str(error).split())[:160]
                log.warning(
                    "train.compile: %s cannot be compiled, and runs as it is (%s: %s)",
                    self.name,
                    type(error).__name__,
                    reason,
                )
                self.compiled = None
        return self.function(*arguments, **named)


def is_worth_compiling(config: Config, model: ContrastiveModel, shape: tuple[int, ...], *, num_steps: int) -> bool:
    """Whether this run is to be compiled; `auto` decides by its length, and on a CPU by what it gains there.

    What it gains on a CPU is measured once for a machine, encoder, batch and precision, and only for runs long enough
    to pay for that; not with `train.deterministic`, as times differ from run to run. Without a compiler the run goes on
    as it is, with a warning.

    Args:
        model: on its device, with its precision settled.
        shape: of the views that this process embeds in a step.
        num_steps: of the whole run.
    """
    wanted, device = config.train.compile, next(model.parameters()).device
    if wanted is False or (wanted == "auto" and device.type != "cpu" and num_steps < LEAST_STEPS):
        return False
    missing = missing_compiler(device)
    if missing is None:
        return wanted is True or device.type != "cpu" or _pays_on_cpu(config, model, shape, num_steps)
    if wanted is True or device.type != "cpu":
        log.warning("train.compile=%s: %s is missing, so nothing is compiled", wanted, missing)
    return False


def forget_compiled() -> None:
    """Let this process compile as a fresh one does.

    What earlier runs of the process have compiled is kept by torch for all that follow: it guards it against their
    temperatures and shapes, takes what differs between them for variable, and after eight of one kind compiles no more.
    Models of others in this process are compiled again when they are next called.
    """
    torch.compiler.reset()


def compile_step(model: ContrastiveModel, objective: Objective, augmentation: Augmentation, *, is_alone: bool) -> None:
    """Compile views, encoder and loss in place; weights and state keep their names, random numbers their order.

    Each is compiled for the shapes of training, which are the same in every step; evaluation embeds as before. A queue
    that fills has no fixed shape and an objective of the user's may be anything, so that their losses stay as they are,
    and so do those that several workers exchange embeddings for. On a GPU the encoder's calls are one CUDA graph.

    Args:
        is_alone: whether no batch before the optimizer's step leaves gradients behind, which a graph would overwrite.
    """
    on_gpu = next(model.parameters()).device.type == "cuda"
    encoder, options = model.encoder, {"mode": "reduce-overhead"} if on_gpu and is_alone else {}
    eager: Callable[..., Any] = encoder._call_impl
    compiled = OrEager("the encoder", eager, **options)

    def in_training(*arguments: Any, **named: Any) -> Any:
        return (compiled if encoder.training else eager)(*arguments, **named)

    encoder._compiled_call_impl = in_training  # as nn.Module.compile does
    views = OrEager("the augmentation", augmentation._call_impl, options={"fallback_random": True})
    augmentation._compiled_call_impl = views
    has_fixed_shapes = type(objective).__call__ is Objective.__call__ and not objective.settings.is_own
    if has_fixed_shapes and not dist.is_initialized():
        objective.loss = OrEager("the loss", objective.loss)  # type: ignore[method-assign]


def _pays_on_cpu(config: Config, model: ContrastiveModel, shape: tuple[int, ...], num_steps: int) -> bool:
    if config.train.deterministic:
        return False
    times = MachineTimes(FOLDER, TIMES, config, model, shape, precision=model.precision)
    found = times.known()
    if found is None:
        images = torch.rand(shape, generator=torch.Generator().manual_seed(0))
        with one_thread(), torch.random.fork_rng(devices=[]):
            step = embed_and_back(copy.deepcopy(model).train(), images)
        if num_steps * step * MOST_GAIN < LEAST_SECONDS:
            return False
        found = times.take(lambda: time_compilation(model, images))
    return num_steps * (found["eager"] - found["compiled"]) > found["compiling"]


def time_compilation(model: ContrastiveModel, images: torch.Tensor) -> Seconds:
    """Median CPU seconds of a forward and backward pass as it is and compiled, which take turns, and of compiling.

    The model stays as it is, and so do the random generators.
    """
    eager, compiled = (copy.deepcopy(model).train() for _ in range(2))
    compiled.encoder._compiled_call_impl = OrEager("the encoder", compiled.encoder._call_impl)
    with one_thread(), torch.random.fork_rng(devices=[]):
        embed_and_back(eager, images)
        start = _cpu_seconds()
        embed_and_back(compiled, images)
        compiling = _cpu_seconds() - start
        turns = [[embed_and_back(each, images) for each in (eager, compiled)] for _ in range(NUM_TURNS)]
    before, after = (median(times) for times in zip(*turns, strict=True))
    return {"eager": before, "compiled": after, "compiling": max(compiling - after, 1e-9)}


def _cpu_seconds() -> float:
    """Of this process and of the compilers that it has waited for."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def missing_compiler(device: torch.device) -> str | None:
    """What `torch.compile` needs on this device and does not find, or None."""
    chosen = os.environ.get("CXX", "")
    if device.type == "cpu":
        return None if any(map(shutil.which, (chosen, "g++", "clang++"))) else "a C++ compiler"
    if importlib.util.find_spec("triton") is None:
        return "the package triton"
    return None if any(map(shutil.which, (os.environ.get("CC", ""), "gcc", "cc", "clang"))) else "a C compiler"
