"""How long a step of a run takes here."""

import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np

from clray.config import Config, override
from clray.data.samples import Dataset
from clray.kmeans.kmeans import kmeans
from clray.kmeans.lloyd import Clustering
from clray.kmeans.options import KMeansOptions
from clray.kmeans.shards.faiss_shard import FaissShard
from clray.kmeans.shards.together import LocalShards
from clray.training.trainer import run
from clray.training.workers.gpus import device_beside
from clray.training.workers.process import LocalSession

NUM_TIMED = 4


class _Enough(Exception):
    """Ends a run that is only timed."""


def time_steps(config: Config, data: Dataset) -> float:
    """Median seconds of a training step of one worker, in this process, after the first, which warms up."""
    train = config.train
    share = max(2, train.global_batch_size // train.num_workers)
    alone = override(config, {"train.num_workers": 1, "train.global_batch_size": share})
    starts: list[float] = []

    def on_step(step: int, steps_per_epoch: int) -> None:  # noqa: ARG001
        starts.append(time.perf_counter())
        if len(starts) == NUM_TIMED + 2:
            raise _Enough

    with tempfile.TemporaryDirectory() as folder:
        session = LocalSession(Path(folder), _Quick, lambda _: None, device_beside(config.train), on_step)
        with suppress(_Enough):
            run(alone, data, session)
    return median(np.diff(starts)[1:]) if len(starts) > 2 else 0.0


@dataclass
class _Quick:
    """A clustering of one iteration: what is timed are the steps."""

    vectors: np.ndarray
    num_clusters: tuple[int, ...]
    nested: bool
    seed: int
    initial: list[np.ndarray] | None

    def ready(self) -> bool:
        return True

    def result(self) -> list[Clustering]:
        options = KMeansOptions(num_iterations=1, seed=self.seed)
        return kmeans(LocalShards([FaissShard(self.vectors)]), self.num_clusters, options, nested=self.nested)[0]
