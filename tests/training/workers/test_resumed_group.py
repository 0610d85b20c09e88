"""Two gloo workers with a momentum encoder: a run that is cut and resumed ends with the weights of one that was not."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from clray.config import parse_config
from clray.data.load import load_dataset
from clray.kmeans.refresh import Done, LocalKMeans
from clray.training.checkpoint import read_checkpoint
from clray.training.checkpoint_form import Snapshot
from clray.training.checkpoint_parts import Place
from clray.training.metrics import Metrics
from clray.training.trainer import run
from clray.training.workers.port import Load, from_first, gather
from clray.training.workers.together import restore_together, write_together
from tests.conftest import TINY


class Stopped(Exception):
    """The run was cut."""


class GlooSession:
    """A worker that writes checkpoints with the others, in the folder of the run."""

    def __init__(self, folder: Path, rank: int, stop_after: int | None) -> None:
        self.folder, self.rank, self.world_size, self.device = folder, rank, 2, torch.device("cpu")
        self.stop_after, self.cluster, self.num_saved = stop_after, self._cluster, 0
        self.place, self.writers = Place.here(folder / "workers"), dist.new_group(backend="gloo")
        self.before = self.place.below()

    def _cluster(self, vectors: np.ndarray, num_clusters: tuple[int, ...], **options: Any) -> Any:
        """k-means of all vectors on every worker, each of which takes the ids of its own."""
        parts = gather(vectors, 2)
        found = LocalKMeans(parse_config(TINY).kmeans)(np.concatenate(parts), num_clusters, **options).result()
        start = len(parts[0]) * self.rank
        return Done([_of(each, slice(start, start + len(vectors))) for each in found])

    def restore(self, load: Load, rows: np.ndarray) -> bool:
        return restore_together(reversed(self.before), load, rows, self.rank, self.world_size)

    def report(self, metrics: Metrics, snapshot: Snapshot | None) -> None:  # noqa: ARG002
        if snapshot is not None:
            self.save(snapshot)

    def save(self, snapshot: Snapshot) -> None:
        name = f"checkpoint_{len(self.before) + self.num_saved:04d}"
        write_together(self.place.inside(name), snapshot, self.writers)
        dist.barrier()
        self.num_saved += 1
        if self.num_saved == self.stop_after:
            raise Stopped

    def share(self, make: Callable[[], np.ndarray]) -> np.ndarray:
        return from_first(make, self.world_size)

    def close(self) -> None:
        pass

    def at_step(self, step: int, steps_per_epoch: int) -> None:
        pass


def _of(clustering: Any, rows: slice) -> Any:

    return replace(clustering, ids=clustering.ids[rows])


def worker(rank: int, folder: str, stop_after: int | None, embeddings: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}.{stop_after}", rank=rank, world_size=2)
    tree = {
        **TINY,
        "objective": {"negatives": "queue", "queue_size": 64},
        "recluster": {"warmup_epochs": 0, "every_steps": 2, "embeddings": embeddings},
        "train": {**TINY["train"], "num_epochs": 2, "num_workers": 2, "checkpoint_every_steps": 1},
    }
    config = parse_config(tree)
    try:
        run(config, load_dataset(config.data), GlooSession(Path(folder), rank, stop_after))
    except Stopped:
        pass
    finally:
        dist.barrier()
        dist.destroy_process_group()


@pytest.mark.long
@pytest.mark.parametrize("embeddings", ["pass", "bank"])
def test_a_group_with_a_momentum_encoder_resumes_to_the_same_weights(tmp_path: Path, embeddings: str) -> None:
    mp.spawn(worker, (str(tmp_path / "whole"), None, embeddings), nprocs=2)
    for stop_after in (1, None):
        mp.spawn(worker, (str(tmp_path / "cut"), stop_after, embeddings), nprocs=2)
    whole, cut = (read_checkpoint(tmp_path / name, "all") for name in ("whole", "cut"))
    if whole["bank"] is not None:
        assert torch.equal(whole["bank"]["vectors"], cut["bank"]["vectors"])
    assert torch.equal(whole["cluster_ids"], cut["cluster_ids"])
    for name, value in whole["model"].items():
        assert torch.equal(value, cut["model"][name]), name
