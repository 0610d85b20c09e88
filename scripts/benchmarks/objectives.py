"""The blocked Cl-InfoNCE loss beside the dense ones: time and memory of forward and backward over the batch.

    python scripts/benchmarks/objectives.py --picture docs/objectives.png

Against SupCon's loss as its authors publish it (Khosla et al., arXiv 2004.11362, equation 2, over a dense matrix of
similarities) and, where it is installed, lightly's NTXentLoss. Each figure of time is the median over pairs of calls
that take turns in one process; memory is the growth of the peak over what the process held before, each in a process of
its own. A dense loss that would take more than `--memory-limit` is ended by that limit and reported as such.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch
from torch import Tensor
from torch.nn import functional as F

from clray.objective.contrastive import cl_infonce

DIM, TEMPERATURE, NUM_CLASSES = 128, 0.1, 100
SIZES = (256, 1_024, 4_096, 8_192, 16_384, 32_768)
GPU_SIZES = (*SIZES, 65_536, 131_072)
Loss = Callable[[Tensor, Tensor], Tensor]


def clray_loss(z: Tensor, ids: Tensor) -> Tensor:
    return cl_infonce(z, ids, temperature=TEMPERATURE).loss


def supcon_loss(z: Tensor, ids: Tensor) -> Tensor:
    """The dense form, with every matrix that the formula names."""
    anchors, labels = z.flatten(0, 1), ids.repeat(len(z))
    logits = anchors @ anchors.T / TEMPERATURE
    logits = logits - logits.max(dim=1, keepdim=True).values.detach()
    others = torch.ones_like(logits).fill_diagonal_(0)
    positives = (labels[:, None] == labels[None, :]).float() * others
    log_probabilities = logits - (logits.exp() * others).sum(dim=1, keepdim=True).log()
    return -((positives * log_probabilities).sum(dim=1) / positives.sum(dim=1)).mean()


def lightly_loss() -> Loss | None:
    try:
        from lightly.loss import NTXentLoss
    except ImportError:
        return None
    criterion = NTXentLoss(temperature=TEMPERATURE)
    return lambda z, _: criterion(z[0], z[1])


def implementation(name: str) -> Loss | None:
    return {"clray": lambda: clray_loss, "supcon": lambda: supcon_loss, "lightly": lightly_loss}[name]()


def batch(num_views: int, device: str, *, singletons: bool) -> tuple[Tensor, Tensor]:
    """Two unit-length views of `num_views` / 2 images, and their clusters."""
    generator = torch.Generator().manual_seed(0)
    z = F.normalize(torch.randn(2, num_views // 2, DIM, generator=generator), dim=2).to(device)
    ids = torch.randint(NUM_CLASSES, (num_views // 2,), generator=generator).to(device)
    return z.requires_grad_(), torch.arange(num_views // 2, device=device) if singletons else ids


def step_seconds(loss: Loss, z: Tensor, ids: Tensor) -> float:
    z.grad = None
    if z.is_cuda:
        torch.cuda.synchronize()
    start = time.perf_counter()
    loss(z, ids).backward()
    if z.is_cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - start


def paired(rival: str, num_views: int, device: str, pairs: int) -> dict[str, float]:
    """Seconds of clray and of the rival, and the median of the ratios, on the same clusters."""
    z, ids = batch(num_views, device, singletons=rival == "lightly")
    other = implementation(rival)
    assert other is not None, "asked for only where it is installed"
    for loss in (clray_loss, other):
        step_seconds(loss, z, ids)
    times = [(step_seconds(clray_loss, z, ids), step_seconds(other, z, ids)) for _ in range(pairs)]
    return {
        "clray_seconds": median(own for own, _ in times),
        "rival_seconds": median(rival for _, rival in times),
        "time_ratio": median(own / rival for own, rival in times),
    }


def peak_bytes(name: str, num_views: int, device: str) -> int:
    """Growth of the process's peak memory over one forward and backward."""
    loss = implementation(name)
    assert loss is not None, "asked for only where it is installed"
    step_seconds(loss, *batch(256, device, singletons=name == "lightly"))
    z, ids = batch(num_views, device, singletons=name == "lightly")
    if device == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        step_seconds(loss, z, ids)
        return torch.cuda.max_memory_allocated() - before
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    before = _status_bytes("VmRSS")
    step_seconds(loss, z, ids)
    return _status_bytes("VmHWM") - before


def _status_bytes(field: str) -> int:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))


def ask(*arguments: object) -> dict[str, float] | None:
    """One measurement in a process of its own; None where it ran out of memory."""
    done = subprocess.run(
        [sys.executable, __file__, "--measure", *map(str, arguments)], capture_output=True, text=True, check=False
    )
    if done.returncode == 0:
        return json.loads(done.stdout)
    if "memory" in done.stderr:
        return None
    raise SystemExit(done.stderr)


def measure(arguments: list[str], memory_limit: int) -> None:
    """The child's side of `ask`."""
    kind, name, num_views, device, pairs = *arguments[:2], int(arguments[2]), arguments[3], int(arguments[4])
    if device == "cpu":
        resource.setrlimit(resource.RLIMIT_DATA, (memory_limit, memory_limit))
    if kind == "memory":
        print(json.dumps({"bytes": peak_bytes(name, num_views, device)}))
    else:
        print(json.dumps(paired(name, num_views, device, pairs)))


def draw(rows: list[dict], path: Path, device: str) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, (time_axes, memory_axes) = plt.subplots(1, 2, figsize=(10, 4))
    for name in ("clray", "supcon", "lightly"):
        points = [row for row in rows if row["name"] == name]
        timed = [row for row in points if row["seconds"] is not None]
        sized = [row for row in points if row["bytes"] is not None]
        time_axes.plot([row["views"] for row in timed], [row["seconds"] for row in timed], "o-", label=name)
        memory_axes.plot([row["views"] for row in sized], [row["bytes"] / 2**20 for row in sized], "o-", label=name)
    for axes, what in ((time_axes, "seconds, forward and backward"), (memory_axes, "peak memory, MiB")):
        axes.set(xscale="log", yscale="log", xlabel="views in the batch (2B)", ylabel=what)
        axes.grid(alpha=0.3)
        axes.legend(frameon=False)
    figure.suptitle(f"Loss over the batch, d = {DIM}, {device}")
    figure.tight_layout()
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", help="views per batch (2B)")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--memory-limit", type=float, default=12.0, help="GB that a process may take (CPU)")
    parser.add_argument("--picture", type=Path)
    parser.add_argument("--measure", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        measure(options.measure, int(options.memory_limit * 1e9))
        return
    device = "cuda" if torch.cuda.is_available() else "cpu"
    rivals = ["supcon"] + (["lightly"] if lightly_loss() is not None else [])
    rows: list[dict] = []
    for views in options.sizes or (GPU_SIZES if device == "cuda" else SIZES):
        pairs = options.pairs * 4 if views <= 1_024 else options.pairs
        own_bytes = ask("memory", "clray", views, device, pairs)
        own_seconds = None
        for rival in rivals:
            times, memory = ask("time", rival, views, device, pairs), ask("memory", rival, views, device, pairs)
            if times is None or memory is None or own_bytes is None:
                print(f"2B={views:>7,}  {rival:<8} needs more than {options.memory_limit:g} GB", flush=True)
                continue
            own_seconds = times["clray_seconds"]
            rows.append({"name": rival, "views": views, "seconds": times["rival_seconds"], "bytes": memory["bytes"]})
            print(
                f"2B={views:>7,}  {rival:<8} time ratio {times['time_ratio']:.2f} "
                f"({own_seconds:.4f} s / {times['rival_seconds']:.4f} s)  "
                f"memory ratio {own_bytes['bytes'] / memory['bytes']:.3f} ({own_bytes['bytes'] / 2**20:.0f} MiB / "
                f"{memory['bytes'] / 2**20:.0f} MiB)",
                flush=True,
            )
        if own_seconds is None:
            z, ids = batch(views, device, singletons=False)
            own_seconds = min(step_seconds(clray_loss, z, ids) for _ in range(2))
        size = None if own_bytes is None else own_bytes["bytes"]
        print(f"2B={views:>7,}  clray    {own_seconds:.4f} s, {(size or 0) / 2**20:.0f} MiB", flush=True)
        rows.append({"name": "clray", "views": views, "seconds": own_seconds, "bytes": size})
    if options.picture is not None:
        draw(rows, options.picture, device)


if __name__ == "__main__":
    main()
