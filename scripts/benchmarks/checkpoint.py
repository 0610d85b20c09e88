"""How long a checkpoint holds up training: until its copy is taken, beside until its file is on the disk.

    python scripts/benchmarks/checkpoint.py

The state of a run with SGD's momentum and a bank of embeddings is saved into a temporary folder, a few times. Training
waits for `held`; where it writes by itself, it waits for `written`. Medians.
"""

import argparse
import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np
import torch
from machine import machine

from clray.clusters.assignment import ClusterAssignment
from clray.config import parse_config
from clray.training.checkpoint_form import Snapshot
from clray.training.epoch import EpochMeter
from clray.training.start import Start
from clray.training.state import create_state
from clray.training.workers.gpus import default_device
from clray.training.workers.process import LocalSession


def snapshot(options: argparse.Namespace, device: torch.device) -> Snapshot:
    """Of a run that has made a step."""
    config = parse_config(
        {
            "encoder": {"name": options.encoder},
            "head": {"embedding_dim": options.dim},
            "clusters": {"source": "kmeans", "num_clusters": 1_000},
            "train": {"optimizer": "sgd"},
        }
    )
    rows = np.arange(options.images)
    state = create_state(
        config,
        num_channels=3,
        steps_per_epoch=1,
        start=Start((ClusterAssignment(rows.astype(np.int32) % 1_000, 1_000, "kmeans"),)),
        device=device,
        shard=rows,
    )
    for each in state.model.parameters():
        each.grad = torch.zeros_like(each)
    state.optimizer.step()
    assert state.bank is not None
    shared = {**state.to_checkpoint(config, 3), "recluster_metrics": {}}
    meter = EpochMeter.on(device).state_dict()
    return Snapshot(shared, {"rows": torch.from_numpy(rows), "meter": meter, "bank": state.bank.state_dict()})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoder", default="resnet18")
    parser.add_argument("--images", type=int, default=50_000)
    parser.add_argument("--dim", type=int, default=128)
    parser.add_argument("--times", type=int, default=9)
    options = parser.parse_args()
    print(machine(), flush=True)
    device, held, written, busy = default_device(), [], [], []
    taken = snapshot(options, device)
    with tempfile.TemporaryDirectory() as folder:
        session = LocalSession(Path(folder), None, lambda _: None, device)
        for _ in range(options.times):
            start, begun = time.perf_counter(), time.thread_time()
            session.save(taken)
            held.append(time.perf_counter() - start)
            busy.append(time.thread_time() - begun)
            session.close()
            written.append(time.perf_counter() - start)
        size = (Path(folder) / "checkpoint.pt").stat().st_size
    print(f"{options.encoder}, a bank of {options.images} x {options.dim}: {size / 1e6:.0f} MB a checkpoint")
    print(f"held {median(held):.3f} s ({median(busy):.3f} s of CPU), written {median(written):.3f} s")


if __name__ == "__main__":
    main()
