from pathlib import Path

import numpy as np
import pytest
from sklearn.cluster import KMeans, kmeans_plusplus

from clray.errors import UserError
from clray.kmeans.engine import cluster
from clray.kmeans.estimator import KMeans as ClrayKMeans
from clray.kmeans.options import KMeansOptions
from clray.kmeans.parallel_start import draw_candidates
from clray.kmeans.shards.faiss_shard import FaissShard
from clray.kmeans.shards.together import LocalShards
from clray.kmeans.starts import start_centroids
from clray.kmeans.vectors.source import split_rows

LOCAL = {"use_ray": False, "init": "kmeans-parallel", "seed": 3}


def planted(num_vectors: int = 6000, dim: int = 8, num_blobs: int = 40) -> np.ndarray:
    rng = np.random.default_rng(0)
    centers = rng.normal(size=(num_blobs, dim)) * 4
    sizes = rng.dirichlet(np.full(num_blobs, 0.7))
    return (centers[rng.choice(num_blobs, num_vectors, p=sizes)] + rng.normal(size=(num_vectors, dim))).astype(
        np.float32
    )


def shards_of(vectors: np.ndarray, num_shards: int) -> LocalShards:
    return LocalShards([FaissShard(vectors[a:b]) for a, b in split_rows(len(vectors), num_shards)])


def start(vectors: np.ndarray, num_shards: int = 2, num_clusters: int = 40, **options: object) -> np.ndarray:
    settings = KMeansOptions(**{"init": "kmeans-parallel", "seed": 5} | options)
    return start_centroids(shards_of(vectors, num_shards), num_clusters, settings, 0)


def potential(vectors: np.ndarray, centroids: np.ndarray) -> float:
    exact = ((vectors[:, None].astype(np.float64) - centroids[None]) ** 2).sum(-1)
    return float(exact.min(1).sum())


def scikit_learn(vectors: np.ndarray, seed: int, num_trials: int | None) -> float:
    """Inertia from k-means++: with one trial a centroid as published, by default with the best of several."""
    centers, _ = kmeans_plusplus(vectors, 40, random_state=seed, n_local_trials=num_trials)
    return float(KMeans(40, init=centers, n_init=1, max_iter=50).fit(vectors).inertia_)


def test_the_start_is_the_same_for_any_number_of_shards() -> None:
    vectors = planted()
    one, four, other = start(vectors, 1), start(vectors, 4), start(vectors, 1, seed=6)
    np.testing.assert_array_equal(one, four)
    assert not np.array_equal(one, other)
    assert one.shape == (40, 8)
    assert one.dtype == np.float32


def test_the_first_potential_is_that_of_the_start_by_brute_force() -> None:
    vectors, heard = planted(), []
    cluster(vectors, 40, num_iterations=1, on_iteration=lambda each: heard.append(each.inertia[40]), **LOCAL)
    assert heard[0] == pytest.approx(potential(vectors, start(vectors, seed=3)), rel=1e-4)


def test_as_many_candidates_are_drawn_as_are_asked_for() -> None:
    """The mean of the sum of the probabilities, which few vectors reach here with certainty."""
    vectors = planted(5000)
    for oversampling in (0.5, 2.0):
        options = KMeansOptions(init="kmeans-parallel", oversampling=oversampling)
        counts = []
        for seed in range(12):
            found, weights = draw_candidates(
                shards_of(vectors, 2),
                40,
                options.model_copy(update={"seed": seed}),
                0,
                np.random.default_rng(seed),
            )
            counts.append(len(found))
            assert weights.sum() == len(vectors)
        assert np.mean(counts) == pytest.approx(1 + 5 * oversampling * 40, rel=0.1)


def test_the_start_is_lower_than_random_vectors_and_ends_as_low_as_scikit_learn() -> None:
    vectors = planted()
    random = np.mean([potential(vectors, start(vectors, seed=seed, init="random")) for seed in range(4)])
    ours = np.mean([potential(vectors, start(vectors, seed=seed)) for seed in range(4)])
    assert ours < 0.7 * random
    ended = np.mean([cluster(vectors, 40, num_iterations=50, **LOCAL | {"seed": seed}).inertia for seed in range(4)])
    theirs = [np.mean([scikit_learn(vectors, seed, num_trials) for seed in range(4)]) for num_trials in (1, None)]
    assert ended < 1.03 * theirs[0]
    assert ended < 1.05 * theirs[1]


@pytest.mark.parametrize("backend", ["faiss", "torch"])
@pytest.mark.parametrize("dtype", [np.uint8, np.float16])
def test_files_of_narrow_types_start_as_their_float32_copies(dtype: type, backend: str, tmp_path: Path) -> None:
    narrow = (planted() * 8 + 128).clip(0, 255).astype(dtype)
    np.save(tmp_path / "v.npy", narrow)
    ours = cluster(tmp_path / "v.npy", [10, 40], num_iterations=3, backend=backend, **LOCAL)
    theirs = cluster(narrow.astype(np.float32), [10, 40], num_iterations=3, backend=backend, **LOCAL)
    for one, other in zip(ours.clusterings, theirs.clusterings, strict=True):
        assert one.inertia == pytest.approx(other.inertia, rel=1e-6)


def test_redos_differ_and_a_sample_starts_so_too() -> None:
    vectors = planted()
    options = KMeansOptions(init="kmeans-parallel")
    first, second = (start_centroids(shards_of(vectors, 2), 40, options, redo) for redo in range(2))
    assert not np.array_equal(first, second)
    sampled = cluster(vectors, 40, sample_fraction=0.3, num_redos=2, **LOCAL)
    assert sampled.inertia < 1.05 * cluster(vectors, 40, **LOCAL).inertia


def test_spherical_centroids_have_unit_length() -> None:
    vectors = planted()
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    np.testing.assert_allclose(np.linalg.norm(start(vectors, spherical=True), axis=1), 1, atol=1e-6)


@pytest.mark.parametrize("num_clusters", [4, 12, 60])
def test_fewer_different_vectors_than_clusters_are_enough(num_clusters: int) -> None:
    vectors = np.tile(planted(12), (5, 1))
    found = cluster(vectors, num_clusters, **LOCAL)
    assert np.isfinite(found.centroids).all()
    assert (found.inertia == pytest.approx(0, abs=1e-6)) == (num_clusters >= 12)


def test_the_estimator_takes_the_name_of_others() -> None:
    vectors = planted(800)
    found = ClrayKMeans(10, init="k-means||", random_state=0).fit(vectors)
    assert found.inertia_ < 1.1 * KMeans(10, n_init=3, random_state=0).fit(vectors).inertia_


@pytest.mark.parametrize(("value", "told"), [(0, "greater than 0; got 0"), (np.inf, "a finite number; got inf")])
def test_an_oversampling_that_draws_none_or_all_is_refused(value: float, told: str) -> None:
    with pytest.raises(UserError, match=f"oversampling must be {told}"):
        cluster(planted(100), 10, oversampling=value, **LOCAL)


def test_a_clustering_is_resumed_with_the_same_oversampling_only(tmp_path: Path) -> None:
    def interrupt(_: object) -> None:
        raise KeyboardInterrupt

    vectors = planted(800)
    with pytest.raises(KeyboardInterrupt):
        cluster(vectors, 10, output=tmp_path / "o", on_iteration=interrupt, **LOCAL)
    with pytest.raises(UserError, match="oversampling"):
        cluster(vectors, 10, output=tmp_path / "o", resume=True, oversampling=3.0, **LOCAL)
