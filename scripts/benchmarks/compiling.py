"""What `torch.compile` gains of each part of a step on this CPU, and after how many steps it has paid.

    python scripts/benchmarks/compiling.py                # small_cnn on 256 images of 32x32, and the demo's digits
    python scripts/benchmarks/compiling.py --only digits --precisions float32

CPU seconds of one thread, median over turns in which the eager and the compiled part alternate. `compiling` are those
of the first compiled call, its compilers' processes included; break-even is their quotient. A part that loses has none.
"""

import argparse
import os
import resource
import time
from collections.abc import Callable
from statistics import median

os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")

import torch
from machine import machine

from clray.config import Config, parse_config
from clray.data.augmentation import build_augmentation
from clray.model.encoder import ContrastiveModel
from clray.training.objectives.build import build_objective
from clray.training.objectives.port import EmbeddedBatch

CASES = {
    "small_cnn": {"encoder": {"name": "small_cnn"}, "augmentation": {"name": "simclr"}, "shape": (256, 3, 32, 32)},
    "digits": {
        "encoder": {"name": "small_cnn", "width": 16},
        "augmentation": {"name": "digits"},
        "shape": (128, 1, 8, 8),
    },
}
PARTS = ("views", "loss", "encoder")


def cpu_seconds() -> float:
    """Of this process and of the compilers it has waited for."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def part_of(name: str, config: Config, shape: tuple[int, int, int, int], compiled: bool) -> Callable[[], None]:
    """A call of one part of a step, forward and backward."""
    number, channels, height, _ = shape
    torch.manual_seed(0)
    images = torch.rand(shape)
    if name == "views":
        augmentation = build_augmentation(config.augmentation, height, channels)
        if compiled:
            augmentation.compile(options={"fallback_random": True})

        def views() -> None:
            with torch.no_grad():
                augmentation(images, 2)

        return views
    model = ContrastiveModel(config, channels, 10).train()
    if name == "encoder":
        if compiled:
            model.encoder.compile()
        both = images.repeat(2, 1, 1, 1)

        def encoder() -> None:
            model(both).z.sum().backward()

        return encoder
    loss_of = build_objective(config.objective, model).loss
    loss_of = torch.compile(loss_of) if compiled else loss_of
    z, ids = torch.nn.functional.normalize(torch.randn(2, number, 128), dim=2), torch.arange(number)[None] // 4

    def loss() -> None:
        embedded = z.clone().requires_grad_()
        loss_of(EmbeddedBatch(embedded, embedded, None, torch.arange(number), ids)).loss.backward()

    return loss


def measure(name: str, config: Config, shape: tuple[int, int, int, int], turns: int) -> str:
    eager, compiled = (part_of(name, config, shape, each) for each in (False, True))
    eager()
    start = cpu_seconds()
    compiled()
    compiling = cpu_seconds() - start
    compiled()
    seconds: list[list[float]] = [[], []]
    for _ in range(turns):
        for call, found in zip((eager, compiled), seconds, strict=True):
            start = time.process_time()
            call()
            found.append(time.process_time() - start)
    before, after = map(median, seconds)
    pays = f"{compiling / (before - after):,.0f}" if before > after else "never"
    return f"{1e3 * before:.1f} | {1e3 * after:.1f} | {before / after:.2f} | {compiling:.0f} | {pays}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=CASES, nargs="*", default=list(CASES))
    parser.add_argument("--parts", choices=PARTS, nargs="*", default=list(PARTS))
    parser.add_argument("--precisions", nargs="*", default=["float32", "bfloat16"])
    parser.add_argument("--turns", type=int, default=15)
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(machine())
    print("| step | part | precision | eager, ms | compiled, ms | ratio | compiling, s | break-even, steps |")
    print("|---|---|---|---|---|---|---|---|")
    for case in options.only:
        sections = dict(CASES[case])
        shape = sections.pop("shape")
        for part in options.parts:
            for precision in options.precisions if part == "encoder" else ["float32"]:
                config = parse_config({**sections, "train": {"precision": precision}})
                print(f"| {case} | {part} | {precision} | {measure(part, config, shape, options.turns)} |", flush=True)


if __name__ == "__main__":
    main()
