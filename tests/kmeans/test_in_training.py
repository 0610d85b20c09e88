"""k-means by the workers of a run themselves, against the same in one process."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from clray.config.sections import KMeansConfig
from clray.errors import UserError
from clray.kmeans.in_training import TrainingKMeans
from clray.kmeans.lloyd import Clustering
from clray.kmeans.refresh import LocalKMeans
from clray.kmeans.vectors.tensors import TensorRows

NUM_WORKERS = 3
CPU = torch.device("cpu")
CALLS: tuple[dict, ...] = (
    {"counts": (12,), "nested": False, "config": KMeansConfig(backend="torch")},
    {"counts": (30, 8), "nested": False, "config": KMeansConfig(backend="torch", init="kmeans++", num_redos=2)},
    {"counts": (30, 5), "nested": True, "config": KMeansConfig(backend="torch", spherical=True)},
)


def vectors() -> np.ndarray:
    rng = np.random.default_rng(0)
    centers = rng.normal(size=(15, 6)) * 3
    return (centers[rng.integers(15, size=1000)] + rng.normal(size=(1000, 6)) + 50).astype(np.float32)


def parts() -> list[np.ndarray]:
    """Of uneven sizes."""
    return np.split(vectors(), [100, 700])


def start(counts: tuple[int, ...]) -> list[np.ndarray]:
    return [vectors()[:k].copy() for k in counts]


def worker(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=NUM_WORKERS)
    found, own = [], parts()[rank]
    for call in CALLS:
        cluster = TrainingKMeans(call["config"], CPU, rank=rank, world_size=NUM_WORKERS)
        for initial in (None, start(call["counts"])):
            found.append(cluster(own, call["counts"], nested=call["nested"], seed=4, initial=initial).result())
    bad = own.copy()
    if rank == 1:
        bad[3, 2] = np.nan
    try:
        cluster(bad, (5,), nested=False, seed=0, initial=None)
    except UserError as error:
        found.append(str(error))
    torch.save(found, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.slow
def test_the_workers_together_find_what_one_process_finds(tmp_path: Path) -> None:
    mp.spawn(worker, (str(tmp_path),), nprocs=NUM_WORKERS)
    by_rank = [torch.load(tmp_path / f"{rank}.pt", weights_only=False) for rank in range(NUM_WORKERS)]
    assert [found[-1] for found in by_rank] == [by_rank[0][-1]] * NUM_WORKERS
    assert "1 of 1000 embeddings cannot be clustered" in by_rank[0][-1]
    expected: list[list[Clustering]] = []
    for call in CALLS:
        local = TrainingKMeans(call["config"], CPU)
        for initial in (None, start(call["counts"])):
            expected.append(local(vectors(), call["counts"], nested=call["nested"], seed=4, initial=initial).result())
    for number, clusterings in enumerate(expected):
        for level, whole in enumerate(clusterings):
            own = [found[number][level] for found in by_rank]
            assert np.mean(np.concatenate([each.ids for each in own]) == whole.ids) > 0.999
            for each in own:
                np.testing.assert_array_equal(each.centroids, own[0].centroids)
                np.testing.assert_allclose(each.centroids, whole.centroids, rtol=1e-4, atol=1e-4)
                assert each.inertia == own[0].inertia == pytest.approx(whole.inertia, rel=1e-6)
                assert each.history == own[0].history
                assert len(each.history) == len(whole.history)


@pytest.mark.parametrize("as_bank", [False, True])
def test_one_worker_finds_what_faiss_finds(as_bank: bool) -> None:
    """From float32 vectors, and from float16 ones that are scaled to unit length as they are read."""
    half = TensorRows(torch.from_numpy(vectors() - 50).half(), is_unit=True)
    given = half if as_bank else vectors()
    arguments = {"nested": False, "seed": 3, "initial": None}
    (ours,) = TrainingKMeans(KMeansConfig(backend="torch"), CPU)(given, (12,), **arguments).result()
    (theirs,) = LocalKMeans(KMeansConfig(backend="faiss"))(
        half.numpy() if as_bank else vectors(), (12,), **arguments
    ).result()  # fmt: skip
    assert np.mean(ours.ids == theirs.ids) > 0.999
    assert ours.inertia == pytest.approx(theirs.inertia, rel=1e-6)
