from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clray.errors import UserError
from clray.kmeans import kmeans
from clray.kmeans.engine import cluster
from clray.kmeans.lloyd import Level
from clray.kmeans.nested import coarsen
from clray.kmeans.options import KMeansOptions
from clray.kmeans.progress import Progress
from clray.kmeans.shards.faiss_shard import FaissShard
from clray.kmeans.shards.together import LocalShards

LOCAL = {"use_ray": False, "num_iterations": 20, "seed": 1}


def blobs(num_vectors: int = 4000, dim: int = 8) -> np.ndarray:
    rng = np.random.default_rng(0)
    centers = rng.normal(size=(40, dim)) * 2
    vectors = centers[rng.integers(40, size=num_vectors)] + rng.normal(size=(num_vectors, dim)) + 30
    return vectors.astype(np.float32)


@pytest.mark.parametrize("backend", ["faiss", "torch"])
def test_iterations_on_a_sample_leave_few_for_all_vectors(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    accumulate = LocalShards.accumulate

    def counted(self: LocalShards, centroids: list[np.ndarray]) -> object:
        seen.append(self.num_vectors)
        return accumulate(self, centroids)

    whole = cluster(blobs(), [10, 60], backend=backend, **LOCAL)
    monkeypatch.setattr(LocalShards, "accumulate", counted)
    found = cluster(
        blobs(), [10, 60], backend=backend, sample_fraction=0.25, num_refresh_iterations=3, num_redos=2, **LOCAL
    )
    assert seen.count(4000) <= 3
    assert seen.count(1000) > 3
    assert set(seen) == {1000, 4000}
    for one, other in zip(found.clusterings, whole.clusterings, strict=True):
        assert one.inertia < 1.03 * other.inertia
        exact = ((blobs() - one.centroids[one.ids].astype(np.float64)) ** 2).sum()
        assert one.inertia == pytest.approx(exact, rel=1e-4)


def test_without_iterations_over_all_they_are_assigned_to_the_centroids_of_the_sample(tmp_path: Path) -> None:
    found = cluster(
        blobs(), 40, sample_fraction=0.5, num_refresh_iterations=0, output=tmp_path / "o", **LOCAL
    )  # fmt: skip
    exact = ((blobs()[:, None].astype(np.float64) - found.centroids[None]) ** 2).sum(-1)
    np.testing.assert_array_equal(found.ids, exact.argmin(1))
    assert found.inertia == pytest.approx(exact.min(1).sum(), rel=1e-5)
    assert found.inertia < 1.03 * cluster(blobs(), 40, **LOCAL).inertia
    assert found.clusterings[0].num_iterations == 0


def test_the_iterations_on_a_sample_end_where_they_follow_its_chance(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    accumulate = LocalShards.accumulate

    def counted(self: LocalShards, centroids: list[np.ndarray]) -> object:
        seen.append(self.num_vectors)
        return accumulate(self, centroids)

    monkeypatch.setattr(LocalShards, "accumulate", counted)
    counts = []
    for tolerance in (0.0, 0.2):
        seen.clear()
        cluster(blobs(), 60, sample_fraction=0.2, num_refresh_iterations=0, **LOCAL | {"tolerance": tolerance})
        counts.append(seen.count(800))
    assert 20 > counts[0] > counts[1]


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
