from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clray.errors import UserError
from clray.kmeans import kmeans
from clray.kmeans.batches import MAX_BATCHES, MIN_UPDATES, Moving, centroids_of_sample
from clray.kmeans.engine import cluster
from clray.kmeans.lloyd import Level
from clray.kmeans.nested import coarsen
from clray.kmeans.options import KMeansOptions
from clray.kmeans.progress import Progress
from clray.kmeans.shards.faiss_shard import FaissShard
from clray.kmeans.shards.port import PartialSums
from clray.kmeans.shards.together import LocalShards

LOCAL = {"use_ray": False, "num_iterations": 20, "seed": 1}


def blobs(num_vectors: int = 4000, dim: int = 8) -> np.ndarray:
    rng = np.random.default_rng(0)
    centers = rng.normal(size=(40, dim)) * 2
    vectors = centers[rng.integers(40, size=num_vectors)] + rng.normal(size=(num_vectors, dim)) + 30
    return vectors.astype(np.float32)


@pytest.fixture
def searched(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of vectors in each search of the shards of this process that moves centroids."""
    seen: list[int] = []
    accumulate = LocalShards.accumulate

    def counted(self: LocalShards, centroids: list[np.ndarray]) -> list[PartialSums]:
        seen.append(self.num_vectors)
        return accumulate(self, centroids)

    monkeypatch.setattr(LocalShards, "accumulate", counted)
    return seen


@pytest.mark.parametrize("backend", ["faiss", "torch"])
def test_batches_of_a_sample_leave_few_iterations_for_all_vectors(backend: str, searched: list[int]) -> None:
    whole = cluster(blobs(), [10, 60], backend=backend, **LOCAL)
    searched.clear()
    found = cluster(
        blobs(), [10, 60], backend=backend, sample_fraction=0.5, num_refresh_iterations=3, num_redos=2, **LOCAL
    )
    assert searched == [1000] * MIN_UPDATES + [4000] * 3  # two batches of 16 vectors a cluster and some, in turn
    for one, other in zip(found.clusterings, whole.clusterings, strict=True):
        assert one.inertia < 1.03 * other.inertia
        exact = ((blobs() - one.centroids[one.ids].astype(np.float64)) ** 2).sum()
        assert one.inertia == pytest.approx(exact, rel=1e-4)


def structureless(num_vectors: int, dim: int) -> np.ndarray:
    """One normal cloud whose width falls by dimension, as embeddings have it."""
    widths = np.arange(1, dim + 1) ** -0.5
    return (np.random.default_rng(0).normal(size=(num_vectors, dim)) * widths).astype(np.float32)


def uneven(num_vectors: int, dim: int) -> np.ndarray:
    """Blobs of very different sizes and widths."""
    rng = np.random.default_rng(0)
    sizes, widths = rng.lognormal(0, 1.5, 40), rng.lognormal(0, 0.5, 40)
    which = rng.choice(40, num_vectors, p=sizes / sizes.sum())
    centers = rng.normal(size=(40, dim))
    return (centers[which] + widths[which, None] * rng.normal(size=(num_vectors, dim))).astype(np.float32)


def crowded(num_vectors: int, dim: int) -> np.ndarray:
    """More blobs than clusters, which lie into each other."""
    rng = np.random.default_rng(0)
    centers = rng.normal(size=(400, dim))
    return (centers[rng.integers(400, size=num_vectors)] + rng.normal(size=(num_vectors, dim))).astype(np.float32)


@pytest.mark.parametrize("init", ["random", "kmeans++"])
@pytest.mark.parametrize("planted", [structureless, crowded])
def test_a_sample_is_within_a_hundredth_of_plain_lloyd_after_half_of_its_searches(
    planted: Callable[[int, int], np.ndarray], init: str, searched: list[int]
) -> None:
    vectors = planted(40_000, 24)
    options = {"use_ray": False, "init": init, "tolerance": 0.0}
    (plain,) = cluster(vectors, 50, num_iterations=20, **options).clusterings
    goal = 1.01 * plain.inertia
    num_needed = next(i for i, each in enumerate(plain.history) if each <= goal)
    # Three quarters of a pass on the sample, and of the half that plain Lloyd leaves as many whole ones as fit.
    num_left = int(num_needed / 2 - 0.75)
    searched.clear()
    (found,) = cluster(vectors, 50, sample_fraction=0.75, num_refresh_iterations=num_left, **options).clusterings
    assert found.inertia <= goal
    assert sum(searched) <= len(vectors) * num_needed / 2


def test_the_batches_move_the_centroids_alike_however_the_vectors_are_divided() -> None:
    options = KMeansOptions(sample_fraction=0.5, num_redos=2, seed=3)
    whole = LocalShards([FaissShard(blobs())])
    divided = LocalShards([FaissShard(part) for part in np.array_split(blobs(), [700, 2900])])
    for one, other in zip(*(centroids_of_sample(each, [10, 30], options) for each in (whole, divided)), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4)


def test_centroids_are_the_means_of_the_vectors_in_the_batches_that_count() -> None:
    rng = np.random.default_rng(0)
    batches = [PartialSums(rng.normal(size=(3, 2)), rng.integers(1, 9, 3).astype(float), 5.0) for _ in range(6)]
    moving = Moving(0, np.zeros((3, 2), np.float32))
    for number, sums in enumerate(batches):
        moving.move(sums, min(number // 2 + 1, 3), KMeansOptions())
        last = batches[number - min(number // 2, 2) : number + 1]
        counts = sum(each.counts for each in last)
        np.testing.assert_allclose(moving.centroids, sum(each.sums for each in last) / counts[:, None], rtol=1e-5)
        assert moving.history[-1] == pytest.approx(5 * len(last) / counts.sum())


def test_a_centroid_that_the_batches_left_goes_where_vectors_are() -> None:
    rng = np.random.default_rng(0)
    vectors = np.concatenate([np.full((1, 4), 1e3), rng.normal(size=(9999, 4))]).astype(np.float32)
    moving = Moving(0, np.concatenate([vectors[:1], vectors[1:10]]))
    for number, part in enumerate(np.array_split(vectors, 8)):
        moving.move(FaissShard(part).accumulate([moving.centroids])[0], number // 2 + 1, KMeansOptions())
    assert np.abs(moving.centroids).max() < 10


def test_without_iterations_over_all_they_are_assigned_to_the_centroids_of_the_sample(tmp_path: Path) -> None:
    found = cluster(
        blobs(), 40, sample_fraction=0.5, num_refresh_iterations=0, output=tmp_path / "o", **LOCAL
    )  # fmt: skip
    exact = ((blobs()[:, None].astype(np.float64) - found.centroids[None]) ** 2).sum(-1)
    np.testing.assert_array_equal(found.ids, exact.argmin(1))
    assert found.inertia == pytest.approx(exact.min(1).sum(), rel=1e-5)
    assert found.inertia < 1.03 * cluster(blobs(), 40, **LOCAL).inertia
    assert found.clusterings[0].num_iterations == 0


def test_a_small_sample_is_seen_again(searched: list[int]) -> None:
    cluster(blobs(), 60, sample_fraction=0.2, num_refresh_iterations=0, **LOCAL)
    assert searched == [800] * MIN_UPDATES


def test_of_a_large_sample_each_vector_is_seen_once(searched: list[int]) -> None:
    cluster(blobs(), 2, sample_fraction=0.75, num_refresh_iterations=0, **LOCAL)
    assert len(searched) == MAX_BATCHES
    assert sum(searched) == 3000


def test_the_start_with_the_least_inertia_goes_on() -> None:
    shards = LocalShards([FaissShard(uneven(6000, 8))])
    ends = [
        shards.assign(centroids_of_sample(shards, [20], KMeansOptions(sample_fraction=0.5, num_redos=redos)))[0][1]
        for redos in (1, 8)
    ]
    assert ends[1] < ends[0]


def test_the_sample_is_drawn_by_the_seed() -> None:
    runs = [
        cluster(blobs(), 20, use_ray=False, sample_fraction=0.1, num_refresh_iterations=1, seed=seed).centroids
        for seed in (1, 1, 2)
    ]
    np.testing.assert_array_equal(runs[0], runs[1])
    assert not np.array_equal(runs[0], runs[2])


def test_an_interrupted_clustering_resumes_after_the_sample(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = {**LOCAL, "sample_fraction": 0.2, "num_refresh_iterations": 6, "tolerance": 0.0}
    expected = cluster(blobs(), 30, **options)

    def interrupt(progress: Progress) -> None:
        if progress.iteration == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cluster(blobs(), 30, output=tmp_path / "o", on_iteration=interrupt, **options)
    monkeypatch.setattr(FaissShard, "holding", lambda *_: pytest.fail("the sample was clustered again"))
    found = cluster(blobs(), 30, output=tmp_path / "o", resume=True, **options)
    np.testing.assert_array_equal(found.centroids, expected.centroids)


def test_a_sample_of_fewer_vectors_than_clusters_is_refused() -> None:
    with pytest.raises(UserError, match=r"sample_fraction=0\.01 of 4000 vectors are 40; at least 60 are needed"):
        cluster(blobs(), 60, sample_fraction=0.01, **LOCAL)


def test_coarser_levels_iterate_as_without_a_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    """They see the centroids alone, which are few."""
    asked: list[tuple[int, int]] = []

    def heard(finest: Level, levels: tuple[int, ...], options: KMeansOptions, **settings: Any) -> Any:
        asked.append((options.num_iterations, options.num_redos))
        return coarsen(finest, levels, options, **settings)

    monkeypatch.setattr(kmeans, "coarsen", heard)
    cluster(blobs(), [40, 5], nested=True, sample_fraction=0.25, num_refresh_iterations=1, num_redos=7, **LOCAL)
    assert asked == [(20, 7)]
