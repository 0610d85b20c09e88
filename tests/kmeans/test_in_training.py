"""k-means by the workers of a run themselves, against the same in one process."""

from datetime import timedelta
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from clray.config.sections import KMeansConfig
from clray.errors import TrainingError, UserError
from clray.kmeans.in_training import TrainingKMeans
from clray.kmeans.lloyd import Clustering
from clray.kmeans.refresh import LocalKMeans
from clray.kmeans.shards.choice import torch_shard
from clray.kmeans.shards.port import Shard
from clray.kmeans.vectors.tensors import TensorRows

NUM_WORKERS = 3
CPU = torch.device("cpu")
CALLS: tuple[dict, ...] = (
    {"counts": (12,), "nested": False, "config": KMeansConfig(backend="torch")},
    {"counts": (30, 8), "nested": False, "config": KMeansConfig(backend="torch", init="kmeans++", num_redos=2)},
    {"counts": (30, 8), "nested": False, "config": KMeansConfig(backend="torch", init="kmeans-parallel")},
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


PLACES = {
    "the shards of worker 0": (0, "made"),
    "worker 0 in a pass": (0, "accumulate"),
    "worker 0 between passes": (0, "between"),
    "worker 1 in a pass": (1, "accumulate"),
    "worker 1 in the last pass": (1, "assign"),
}


class Broken:
    """A shard that has no memory for one of its answers."""

    def __init__(self, shard: Shard, answer: str) -> None:
        self.shard, self.answer = shard, answer

    def about(self, origin: np.ndarray | None) -> "Broken":
        return Broken(self.shard.about(origin), self.answer)

    def __getattr__(self, name: str) -> object:
        if name == self.answer:
            raise MemoryError("full")
        return getattr(self.shard, name)

    def __len__(self) -> int:
        return len(self.shard)


def broken_shard(answer: str, rows: TensorRows, backend: str) -> Broken:
    return Broken(torch_shard(rows, backend), answer)


def out_of_memory(*_: object, **__: object) -> None:
    raise MemoryError("full")


def failing_worker(rank: int, folder: str) -> None:
    """Goes on after each failure, as a process that Ray holds does: no closed connection tells the other of it."""
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2, timeout=timedelta(seconds=40)
    )
    found, own = [], np.array_split(vectors(), 2)[rank]
    cluster = TrainingKMeans(KMeansConfig(backend="torch"), CPU, rank=rank, world_size=2)
    for failing, place in PLACES.values():
        with pytest.MonkeyPatch.context() as patch:
            if rank == failing and place == "between":
                patch.setattr("clray.kmeans.update.fill_empty", out_of_memory)
            elif rank == failing:
                broken = out_of_memory if place == "made" else partial(broken_shard, place)
                patch.setattr("clray.kmeans.in_training.torch_shard", broken)
            try:
                cluster(own, (5,), nested=False, seed=0, initial=None)
            except (MemoryError, TrainingError) as error:
                found.append((type(error).__name__, str(error)))
    found.append(cluster(own, (5,), nested=False, seed=0, initial=None).result()[0].inertia)
    torch.save(found, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.slow
def test_whatever_fails_on_one_worker_is_heard_by_all_at_once(tmp_path: Path) -> None:
    """And the group can be used afterwards, as no worker was left in another's exchange."""
    mp.spawn(failing_worker, (str(tmp_path),), nprocs=2)
    by_rank = [torch.load(tmp_path / f"{rank}.pt", weights_only=False) for rank in (0, 1)]
    *told, (first, second) = zip(*by_rank, strict=True)
    assert first == second
    for (failing, _), errors in zip(PLACES.values(), told, strict=True):
        assert errors[failing] == ("MemoryError", "full")
        assert errors[1 - failing] == ("TrainingError", f"k-means failed on worker {failing}: MemoryError: full")


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
