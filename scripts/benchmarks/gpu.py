"""All checks and comparisons of clray on a GPU, written to a page with the card and the versions.

    python scripts/benchmarks/gpu.py CIFAR10/train.parquet CIFAR10/test.parquet             # writes docs/gpu.md; hours
    python scripts/benchmarks/gpu.py CIFAR10/train.parquet CIFAR10/test.parquet --reduced -o /tmp/gpu.md    # minutes

Without a GPU it runs the same code at reduced size on the CPU, wants a path of its own, and says on the page that its
figures are those of a CPU. A check that fails is on the page with its reason; the command then ends with 1.
"""

import argparse
import importlib.metadata
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import median

import faiss
import numpy as np
import objectives
import torch
import training
from machine import machine
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

import clray
from clray.config import Config, parse_config
from clray.data.load import load_dataset
from clray.errors import UserError
from clray.evaluate.labelled import Labelled
from clray.evaluate.linear_probe import LinearProbe
from clray.evaluate.nearest_neighbors import nearest
from clray.kmeans.lloyd import lloyd
from clray.kmeans.options import KMeansOptions
from clray.kmeans.shards.choice import torch_shard
from clray.kmeans.shards.faiss_shard import FaissShard
from clray.kmeans.shards.together import LocalShards
from clray.kmeans.vectors.tensors import TensorRows
from clray.model.encoder import ContrastiveModel

PAGE = Path(__file__).resolve().parents[2] / "docs" / "gpu.md"
PACKAGES = ("torch", "faiss-gpu", "faiss-cpu", "flash-kmeans", "lightly", "triton")
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Sizes:
    """How much is measured."""

    encoder: str
    batch: int
    steps: int
    turns: int
    images: int | None
    vectors: int
    clusters: tuple[int, ...]
    views: tuple[int, ...]
    product: int
    epochs: int


FULL = Sizes("resnet18", 512, 20, 5, None, 1_000_000, (1_000, 10_000), (4_096, 32_768, 131_072), 8_192, 200)
REDUCED = Sizes("small_cnn", 16, 1, 1, 64, 2_000, (10, 20), (64, 128), 128, 1)


@dataclass
class Page:
    """The rows so far: section, what, result."""

    train: str
    test: str
    sizes: Sizes
    device: torch.device
    rows: list[tuple[str, str, str]] = field(default_factory=list)
    num_failed: int = 0

    def add(self, section: str, what: str, result: str, *, is_right: bool = True) -> None:
        self.num_failed += not is_right
        self.rows.append((section, what, result if is_right else f"**FAILED**: {result}"))
        print(" | ".join(self.rows[-1]), flush=True)

    def config(self, **train: object) -> Config:
        """A SimCLR run on the CIFAR-10 files."""
        data = {"name": "parquet", "train_path": self.train, "test_path": self.test}
        return parse_config(
            {
                "data": {**data, "max_train_images": self.sizes.images, "max_test_images": self.sizes.images},
                "objective": {"name": "infonce", "temperature": 0.5},
                "encoder": {"name": self.sizes.encoder},
                "head": {"hidden_dim": 512, "embedding_dim": 128},
                "train": {"global_batch_size": self.sizes.batch, **train},
                "tracking": {"pictures": "none", "models": "none", "pages": "none"},
            }
        )


def correctness(page: Page) -> None:
    """The same numbers as on the CPU, in full float32."""
    name, device = "correctness, beside the CPU", page.device
    generator = torch.Generator().manual_seed(0)
    with full_float32():
        config = page.config(precision="float32")
        model = ContrastiveModel(config, 3, 10).eval()
        images = torch.rand(8, 3, 32, 32, generator=generator)
        with torch.no_grad():
            there = model(images).z
            here = model.to(device)(images.to(device)).z.cpu()
        departs(page, name, "embeddings of the encoder", here, there, 1e-4)
        z = F.normalize(torch.randn(2, 128, 64, generator=generator), dim=2)
        ids = torch.randint(8, (128,), generator=generator)
        (there, there_gradient), (here, here_gradient) = (loss_and_gradient(z, ids, at) for at in (CPU, device))
        departs(page, name, "loss", here, there, 1e-5)
        departs(page, name, "gradient of the loss", here_gradient, there_gradient, 1e-5)
        h, labels = torch.randn(400, 16, generator=generator), torch.randint(4, (400,), generator=generator)
        h[:, :4] += 2 * F.one_hot(labels, 4)
        there, here = (nearest(h[:50].to(at), h.to(at), 5)[0].cpu() for at in (CPU, device))
        departs(page, name, "similarities of the nearest neighbours", here, there, 1e-4)
        part = Labelled(h.numpy(), labels.numpy())
        found = [
            LinearProbe(part, part, num_classes=4, seed=0, device=at).measure({"test": part})["test"]["linear_accuracy"]
            for at in (device, CPU)
        ]
        departs(page, name, "accuracy of the linear probe", torch.tensor(found[0]), torch.tensor(found[1]), 0.01)
    vectors = np.random.default_rng(0).normal(size=(2_000, 32)).astype(np.float32)
    options = KMeansOptions(num_iterations=10)
    own = lloyd(shards_on(device, vectors), (20,), options)[0].inertia
    reference = lloyd(LocalShards([FaissShard(vectors)]), (20,), options)[0].inertia
    departs(page, name, "inertia of k-means, over FAISS's", torch.tensor(own / reference), torch.tensor(1.0), 1e-5)


def loss_and_gradient(z: torch.Tensor, ids: torch.Tensor, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    z = z.to(device).requires_grad_()
    loss = objectives.clray_loss(z, ids.to(device))
    return loss.detach().cpu(), torch.autograd.grad(loss, z)[0].cpu()


def departs(page: Page, section: str, what: str, here: torch.Tensor, there: torch.Tensor, most: float) -> None:
    largest = float((here.double() - there.double()).abs().max())
    page.add(section, what, f"departs by {largest:.1e}, at most {most:.0e} allowed", is_right=largest <= most)


def refusals(page: Page) -> None:
    """What cannot be honoured is an error before anything is trained."""
    asked = {"two workers on half a GPU each": {"num_workers": 2, "gpus_per_worker": 0.5}}
    asked["more GPUs than there are"] = {"gpus_per_worker": float(torch.cuda.device_count() + 1)}
    for what, train in asked.items():
        with tempfile.TemporaryDirectory() as output:
            try:
                clray.train(page.config(num_epochs=1, **train), {"output": output})
                page.add("refusals", what, "trained", is_right=False)
            except UserError as error:
                page.add("refusals", what, f"refused: {str(error).splitlines()[0]}")


def steps(page: Page) -> None:
    """Step time, beside the network alone, the card's matrix rate, and lightly."""
    sizes, device = page.sizes, page.device
    data = load_dataset(page.config().data)
    config = training.settled(page.config(), data, device)
    precision = config.train.precision
    ways = {"clray": training.clray_steps(config, data, device)}
    ways["network alone"] = training.network_steps(config, data, device)
    if has("lightly"):
        ways["lightly, same precision"] = training.lightly_steps(config, data, device, 2, precision)
        ways["lightly, float32"] = training.lightly_steps(config, data, device, 2, "float32")
    else:
        page.add("steps", "lightly", "not installed")
    for way in ways.values():
        training.images_per_second(way, 2, sizes.batch)
    rates = [[training.images_per_second(way, sizes.steps, sizes.batch) for way in ways.values()]
             for _ in range(sizes.turns)]  # fmt: skip
    title = f"{sizes.encoder}, batch {sizes.batch}, {precision}"
    for name, own in zip(ways, map(median, zip(*rates, strict=True)), strict=True):
        page.add("steps", f"{title}: {name}", f"{own:,.0f} images/s")
    for i, name in list(enumerate(ways))[1:]:
        page.add("steps", f"clray over {name}", f"{median(row[0] / row[i] for row in rates):.2f}")
    with FlopCounterMode(display=False) as counter:
        next(training.network_steps(config, data, device))
    flops = counter.get_total_flops() * median(row[0] for row in rates) / sizes.batch
    peak = matrix_rate(sizes.product, device, precision)
    page.add("steps", "share of the card's matrix rate", f"{flops / peak:.1%} of {peak / 1e12:.1f} TFLOP/s")


def matrix_rate(size: int, device: torch.device, precision: str) -> float:
    """Floating-point operations a second of one square product."""
    a = torch.randn(size, size, device=device, dtype=getattr(torch, precision))
    seconds = [timed(lambda: a @ a, device) for _ in range(6)][1:]
    return 2 * size**3 / median(seconds)


def compiled(page: Page) -> None:
    """torch.compile of the network, plain and with CUDA graphs, beside eager."""
    data = load_dataset(page.config().data)
    config = training.settled(page.config(), data, page.device)
    modes = {"eager": None, "compiled": "default"} | ({"CUDA graphs": "reduce-overhead"} if on_gpu(page) else {})
    for name, mode in modes.items():
        start = time.perf_counter()
        way = training.network_steps(config, data, page.device, compile_mode=mode)
        training.images_per_second(way, 2, page.sizes.batch)
        setup = time.perf_counter() - start
        rate = median(training.images_per_second(way, page.sizes.steps, page.sizes.batch)
                      for _ in range(page.sizes.turns))  # fmt: skip
        page.add("torch.compile", f"network alone, {name}", f"{rate:,.0f} images/s, ready after {setup:.0f} s")


def k_means(page: Page) -> None:
    """Seconds of an iteration: torch where the vectors lie, flash-kmeans, and FAISS."""
    vectors = np.random.default_rng(0).normal(size=(page.sizes.vectors, 128)).astype(np.float32)
    kinds: dict[str, Callable[[], LocalShards]] = {"torch": lambda: shards_on(page.device, vectors)}
    if on_gpu(page) and has("flash-kmeans"):
        kinds["flash-kmeans"] = lambda: shards_on(page.device, vectors, "flash-kmeans")
    for num_clusters in page.sizes.clusters:
        what = f"{page.sizes.vectors:,} x 128, K = {num_clusters:,}"
        start = vectors[:num_clusters].copy()
        for kind, make in kinds.items():
            iteration = partial(make().accumulate, [start])
            seconds = median([timed(iteration, page.device) for _ in range(4)][1:])
            page.add("k-means, an iteration", f"{what}: {kind}", f"{seconds:.4f} s")
        index = faiss_index(128)
        seconds = median([faiss_iteration(index, vectors, start) for _ in range(3)][1:])
        where = "on a GPU" if faiss.get_num_gpus() else "on the CPU"
        page.add("k-means, an iteration", f"{what}: FAISS {where}, search alone", f"{seconds:.4f} s")


def refresh(page: Page) -> None:
    """Fresh clusters from the bank's vectors on the device, warm."""
    vectors = F.normalize(torch.randn(page.sizes.vectors // 20, 128, device=page.device), dim=1).half()
    shards = LocalShards([torch_shard(TensorRows(vectors), "auto")])
    counts, options = page.sizes.clusters[:1], KMeansOptions(num_iterations=5, tolerance=0.0)
    first = lloyd(shards, counts, options)[0]
    seconds = median(
        timed(lambda: lloyd(shards, counts, options, initial=[first.centroids]), page.device) for _ in range(3)
    )
    page.add("refresh", f"{len(vectors):,} x 128 float16, K = {counts[0]:,}, 5 iterations", f"{seconds:.3f} s")


def losses(page: Page) -> None:
    """The loss and its gradient over the batch."""
    for views in page.sizes.views:
        z, ids = objectives.batch(views, page.device.type, singletons=False)
        if on_gpu(page):
            torch.cuda.reset_peak_memory_stats()
        seconds = median([objectives.step_seconds(objectives.clray_loss, z, ids) for _ in range(4)][1:])
        memory = f", {torch.cuda.max_memory_allocated() / 2**20:,.0f} MiB" if on_gpu(page) else ""
        page.add("loss, forward and backward", f"2B = {views:,}, d = {objectives.DIM}", f"{seconds:.4f} s{memory}")


def whole_run(page: Page) -> None:
    """SimCLR on CIFAR-10 to the end."""
    with tempfile.TemporaryDirectory() as output:
        config = page.config(num_epochs=page.sizes.epochs, learning_rate=1e-3)
        start = time.perf_counter()
        metrics = clray.train(config, {"output": output}).metrics
        seconds = time.perf_counter() - start
    what = f"{page.sizes.encoder}, {page.sizes.epochs} epochs, batch {page.sizes.batch}"
    shown = ", ".join(f"{name} {100 * metrics[f'test/{name}_accuracy']:.1f} %" for name in ("linear", "knn"))
    page.add("CIFAR-10", what, f"{shown} on test images, {seconds / 60:.1f} min with evaluation")


CHECKS = (correctness, refusals, steps, compiled, k_means, refresh, losses, whole_run)


def shards_on(device: torch.device, vectors: np.ndarray, backend: str = "torch") -> LocalShards:
    return LocalShards([torch_shard(TensorRows(torch.from_numpy(vectors).to(device)), backend)])  # type: ignore[arg-type]


def faiss_index(dim: int) -> faiss.Index:
    index = faiss.IndexFlatL2(dim)
    if faiss.get_num_gpus() == 0:
        return index
    resources = faiss.StandardGpuResources()
    index = faiss.index_cpu_to_gpu(resources, 0, index)
    index.resources = resources  # which have to live as long as it
    return index


def faiss_iteration(index: faiss.Index, vectors: np.ndarray, centroids: np.ndarray) -> float:
    start = time.perf_counter()
    index.reset()
    index.add(centroids)
    index.search(vectors, 1)
    return time.perf_counter() - start


def timed(call: Callable[[], object], device: torch.device) -> float:
    start = time.perf_counter()
    call()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


@contextmanager
def full_float32() -> Iterator[None]:
    """Products without TF32, so that they can be compared with those of a CPU."""
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before[0])
        torch.backends.cudnn.allow_tf32 = before[1]


def on_gpu(page: Page) -> bool:
    return page.device.type == "cuda"


def has(package: str) -> bool:
    try:
        importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def written(page: Page, *, is_reduced: bool) -> str:
    """The page as Markdown."""
    kind = "" if on_gpu(page) else " This is a run on a CPU: it shows that the command works, and nothing of a GPU."
    size = " The sizes are reduced." if is_reduced else ""
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in PACKAGES if has(name))
    lines = ["# clray on a GPU", "", f"Written by `python scripts/benchmarks/gpu.py`.{kind}{size}", ""]
    lines += [f"- Machine: {machine()}", f"- Versions: clray {importlib.metadata.version('clray')}, {versions}"]
    for section in dict.fromkeys(row[0] for row in page.rows):
        lines += ["", f"## {section[0].upper()}{section[1:]}", "", "| what | result |", "| --- | --- |"]
        lines += [f"| {what} | {result} |" for own, what, result in page.rows if own == section]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("train")
    parser.add_argument("test")
    parser.add_argument("-o", "--output", type=Path, help="the page; without a GPU it has to be given")
    parser.add_argument("--reduced", action="store_true", help="small sizes, as always without a GPU")
    parser.add_argument("--only", nargs="+", choices=[each.__name__ for each in CHECKS], help="some of the checks")
    options = parser.parse_args()
    has_gpu = torch.cuda.is_available()
    if not has_gpu and options.output is None:
        parser.error("torch sees no GPU: name a page with --output, as docs/gpu.md is for the figures of a GPU")
    is_reduced = options.reduced or not has_gpu
    page = Page(
        options.train, options.test, REDUCED if is_reduced else FULL, torch.device("cuda" if has_gpu else "cpu")
    )
    for check in CHECKS:
        if options.only and check.__name__ not in options.only:
            continue
        try:
            check(page)
        except Exception as error:  # the other checks still tell something
            reason = " ".join(str(error).split())[:200]
            page.add(check.__name__, check.__name__, f"{type(error).__name__}: {reason}", is_right=False)
        (options.output or PAGE).write_text(written(page, is_reduced=is_reduced), encoding="utf-8")
    sys.exit(1 if page.num_failed else 0)


if __name__ == "__main__":
    main()
