"""Two gloo workers: a run that starts from a trunk ends with the weights that it would have had alone."""

from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from clray.config import Config, parse_config
from clray.data.load import load_dataset
from clray.training.checkpoint import read_checkpoint
from clray.training.checkpoint_parts import Place
from clray.training.first_clusterings import Wanted
from clray.training.start import Start, start_clusters
from clray.training.trainer import grow, run
from clray.training.trunk import Trunk, trunk_config
from tests.conftest import TINY
from tests.training.workers.test_resumed_group import GlooSession

EMBEDDINGS = ("bank", "pass")


def config_of(embeddings: str, num_clusters: int) -> Config:
    return parse_config(
        {
            **TINY,
            "clusters": {**TINY["clusters"], "num_clusters": num_clusters},
            "recluster": {"warmup_epochs": 1, "embeddings": embeddings},
            "train": {**TINY["train"], "num_epochs": 2, "num_workers": 2},
        }
    )


def worker(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    for embeddings in EMBEDDINGS:
        train_both_ways(rank, Path(folder) / embeddings, config_of(embeddings, 4), config_of(embeddings, 7))
    dist.destroy_process_group()


def train_both_ways(rank: int, folder: Path, config: Config, other: Config) -> None:
    data = load_dataset(config.data)
    trunk = Trunk(folder / "trunk", config.recluster.warmup_epochs, (Wanted.of(other), Wanted.of(config)))

    def train(own: Config, growing: Path, wanted: tuple[Wanted, ...]) -> None:
        grow(own, data, GlooSession(growing, rank, None), wanted)

    if rank == 0:
        trunk.grow(other, "0000", train)
        (folder / "shared").mkdir()
        (folder / "alone").mkdir()
        assert trunk.start(folder / "shared")
    else:
        train(trunk_config(other), folder / "trunk.0000", trunk.wanted)
    dist.barrier()
    first = trunk.first_clustering(config)
    assert first is not None
    start = Start(start_clusters(config, data), first=first)
    shared = GlooSession(folder / "shared", rank, None)
    # A group without checkpoints of its own starts from the run's file.
    shared.before = [Place.here(folder / "shared")]
    run(config, data, shared, start)
    run(config, data, GlooSession(folder / "alone", rank, None))


@pytest.mark.slow
def test_a_group_that_starts_from_a_trunk_is_to_the_bit_what_it_would_be_alone(tmp_path: Path) -> None:
    for embeddings in EMBEDDINGS:
        (tmp_path / embeddings).mkdir()
    mp.spawn(worker, (str(tmp_path),), nprocs=2)
    for embeddings in EMBEDDINGS:
        shared, alone = (read_checkpoint(tmp_path / embeddings / name, "all") for name in ("shared", "alone"))
        assert shared["epoch"] == alone["epoch"] == 2
        assert shared["cluster_ids"].max() == 3
        for part in ("model", "optimizer", "bank", "cluster_ids", "centroids"):
            torch.testing.assert_close(shared[part], alone[part], rtol=0, atol=0)
