"""Vectors far from the origin, of any scale, or beyond what float32 can search, against a brute force in float64."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score

from clray.config.sections import KMeansConfig
from clray.errors import UserError
from clray.kmeans.assign import assign
from clray.kmeans.balance import balance
from clray.kmeans.engine import ClusterResult, cluster
from clray.kmeans.estimator import KMeans as ClrayKMeans
from clray.kmeans.in_training import TrainingKMeans
from clray.kmeans.origin import MAX_SQUARED_NORM, choose_origin, join_surveys
from clray.kmeans.progress import Progress
from clray.kmeans.refresh import LocalKMeans
from clray.kmeans.shards.faiss_shard import FaissShard, search_again
from clray.kmeans.shards.together import LocalShards
from clray.kmeans.vectors.source import split_rows
from clray.ray_runtime import cluster as ray_cluster

HUGE_ROW = Path(__file__).parent / "data" / "one_huge_row.npy"


def blobs(num_vectors: int = 1500, dim: int = 8, num_blobs: int = 12, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    centers = rng.normal(size=(num_blobs, dim)) * 4
    return centers[rng.integers(num_blobs, size=num_vectors)] + rng.normal(size=(num_vectors, dim))


def squared_distances(vectors: np.ndarray, centroids: np.ndarray) -> np.ndarray:
    return ((vectors[:, None].astype(np.float64) - centroids[None].astype(np.float64)) ** 2).sum(-1)


def check_against_brute_force(vectors: np.ndarray, result: ClusterResult) -> None:
    """Ids are nearest but for ties of float32, and the inertia is that of ids and centroids."""
    distances = squared_distances(vectors, result.centroids)
    own = distances[np.arange(len(vectors)), result.ids]
    assert (own <= distances.min(1) * 1.01 + 1e-9 * distances.max()).all()
    assert np.mean(result.ids == distances.argmin(1)) > 0.99
    assert result.inertia == pytest.approx(own.sum(), rel=1e-3, abs=1e-100)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("offset", [1e3, 1e4, -1e5])
def test_an_offset_changes_neither_ids_nor_inertia(offset: float, dtype: type) -> None:
    # Multiples of 1/64 are held exactly by float32 at this distance too.
    vectors = np.round(blobs() * 64) / 64
    expected = cluster(vectors.astype(dtype), 12, use_ray=False, init="kmeans++")
    found = cluster(
        (vectors + offset).astype(dtype), 12, use_ray=False, init="kmeans++", initial=expected.centroids + offset
    )
    check_against_brute_force(vectors + offset, found)
    assert np.mean(found.ids == expected.ids) > 0.999
    assert found.inertia == pytest.approx(expected.inertia, rel=1e-4)
    cold = cluster((vectors + offset).astype(dtype), 12, use_ray=False, init="kmeans++")
    check_against_brute_force(vectors + offset, cold)
    assert cold.inertia < 1.5 * expected.inertia


def test_float64_vectors_keep_what_float32_would_round_away() -> None:
    vectors = blobs() + 1e9
    found = cluster(vectors, 12, use_ray=False, init="kmeans++")
    assert found.centroids.dtype == np.float64
    check_against_brute_force(vectors, found)


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from([0.0, 1.0, 1e3, 1e5]),
    st.sampled_from([1e-22, 1e-6, 1.0, 1e6]),
    st.booleans(),
    st.integers(0, 1000),
)
def test_any_scale_and_place_agrees_with_a_brute_force(
    offset: float, scale: float, has_outlier: bool, seed: int
) -> None:
    """Also where the mean says nothing of the place: one vector far away, or two groups far apart."""
    vectors = (blobs(300, 4, 6, seed) + offset) * scale
    if has_outlier:
        vectors[0] = 1e4 * (1 + abs(offset)) * scale
        vectors[1::2] += 3e3 * scale
    vectors = vectors.astype(np.float32)
    check_against_brute_force(vectors, cluster(vectors, 8, use_ray=False, num_iterations=5, seed=seed))


def test_vectors_about_the_origin_are_searched_as_they_are() -> None:
    vectors = blobs().astype(np.float32)
    assert choose_origin(FaissShard(vectors).survey(), vectors.dtype) is None
    vectors[0] = 1e8  # moves the mean, but the others do not lie about it
    assert choose_origin(FaissShard(vectors).survey(), vectors.dtype) is None
    assert choose_origin(FaissShard(vectors[1:] + 100).survey(), vectors.dtype) is not None


def test_slices_together_tell_what_the_whole_tells() -> None:
    vectors = blobs().astype(np.float32)
    vectors[[3, 700, 1499], 0] = [np.nan, np.inf, 1e30]
    whole = FaissShard(vectors).survey()
    parts = join_surveys([FaissShard(vectors[a:b]).survey() for a, b in split_rows(len(vectors), 4)])
    assert whole.bad_rows.tolist() == parts.bad_rows.tolist() == [3, 700, 1499]
    assert whole.num_vectors == parts.num_vectors == 1497
    np.testing.assert_allclose(whole.total, np.delete(vectors, [3, 700, 1499], 0).astype(np.float64).sum(0))
    np.testing.assert_allclose(parts.total, whole.total)
    assert parts.squares == pytest.approx(whole.squares)


@pytest.mark.parametrize("as_file", [False, True])
@pytest.mark.parametrize("memory", [None, "200MB"])
def test_files_and_arrays_far_away_agree(tmp_path: Path, as_file: bool, memory: str | None) -> None:
    vectors = (blobs() + 1e4).astype(np.float32)
    vectors[[5, 600]] = np.nan
    np.save(tmp_path / "v.npy", vectors)
    found = cluster(
        tmp_path / "v.npy" if as_file else vectors, 9, use_ray=False, drop_nonfinite=True, memory_per_shard=memory
    )
    expected = cluster(np.delete(vectors, [5, 600], 0), 9, use_ray=False)
    np.testing.assert_array_equal(np.delete(found.ids, [5, 600]), expected.ids)
    np.testing.assert_array_equal(found.centroids, expected.centroids)


def test_nested_and_balanced_clusters_far_away_equal_those_near() -> None:
    near, offset = np.round(blobs() * 64) / 64, 1e4
    options = {"use_ray": False, "nested": True, "balanced": True, "num_iterations": 30}
    start = near[:12].astype(np.float32)
    expected = cluster(near.astype(np.float32), [12, 3], initial=start, **options)
    found = cluster((near + offset).astype(np.float32), [12, 3], initial=start + offset, **options)
    np.testing.assert_array_equal(found.parents[0], expected.parents[0])
    for one, other in zip(found.clusterings, expected.clusterings, strict=True):
        assert np.mean(one.ids == other.ids) > 0.995
        assert one.inertia == pytest.approx(other.inertia, rel=0.01)
        np.testing.assert_allclose(one.centroids - offset, other.centroids, atol=0.05)


def test_balance_measures_what_it_gives() -> None:
    vectors = blobs().astype(np.float32)
    clustering = cluster(vectors, 12, use_ray=False).clusterings[0]
    even = balance(LocalShards([FaissShard(vectors)]), clustering)
    own = squared_distances(vectors, even.centroids)[np.arange(len(vectors)), even.ids]
    assert even.inertia == pytest.approx(own.sum(), rel=1e-4)


def test_spherical_centroids_are_about_zero_wherever_the_vectors_lie() -> None:
    vectors = blobs() + 50
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    found = cluster(vectors, 12, use_ray=False, spherical=True)
    np.testing.assert_allclose(np.linalg.norm(found.centroids, axis=1), 1, atol=1e-6)
    check_against_brute_force(vectors, found)


def test_an_interrupted_clustering_far_away_goes_on_to_the_same_result(tmp_path: Path) -> None:
    vectors = (blobs() + 1e4).astype(np.float32)
    options = {"use_ray": False, "num_iterations": 8, "tolerance": 0.0}
    expected = cluster(vectors, 30, **options)

    def interrupt(progress: Progress) -> None:
        if progress.iteration == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cluster(vectors, 30, output=tmp_path / "o", on_iteration=interrupt, **options)
    found = cluster(vectors, 30, output=tmp_path / "o", resume=True, **options)
    np.testing.assert_array_equal(found.centroids, expected.centroids)
    np.testing.assert_array_equal(found.ids, expected.ids)


def test_a_row_whose_squared_norm_overflows_is_named_with_the_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """A public report: FAISS answered -1, and the sparse product corrupted the heap."""
    message = (
        r"1 of 2000 vectors .*one_huge_row\.npy: row \d+ has a squared norm of 1\.\de\+5\d, above the bound of 1e\+35"
    )
    with pytest.raises(UserError, match=message):
        cluster(HUGE_ROW, 10, use_ray=False)
    monkeypatch.setattr(ray_cluster, "start_ray", lambda **_: pytest.fail("Ray was started"))
    with pytest.raises(UserError, match=message):
        cluster(HUGE_ROW, 10)
    found = cluster(HUGE_ROW, 10, use_ray=False, drop_nonfinite=True)
    assert np.flatnonzero(found.ids < 0).tolist() == found.nonfinite_rows.tolist()
    assert len(found.nonfinite_rows) == 1


FAR = [(np.float32, 1e4, 1.0), (np.float16, 1e3, 20.0)]
"""Type, offset and scale of the blobs: float16 holds whole numbers at 1,024 to 2,048."""


@pytest.mark.parametrize("backend", ["faiss", "torch"])
@pytest.mark.parametrize(("dtype", "offset", "scale"), FAR)
def test_every_way_to_cluster_far_away_agrees_with_scikit_learn(
    backend: str, dtype: type, offset: float, scale: float
) -> None:
    """A public report: clusters at an offset of 1e4 had nothing to do with the blobs (ARI 0)."""
    vectors = (blobs() * scale + offset).astype(dtype)
    exact = vectors.astype(np.float64)
    start = exact[:12]
    reference = KMeans(12, init=start - offset, n_init=1, max_iter=50, tol=0).fit(exact - offset)
    settings = {"initial": start.astype(np.float32), "num_iterations": 50}
    found = cluster(vectors, 12, use_ray=False, backend=backend, **settings)
    config = KMeansConfig(backend=backend, num_refresh_iterations=50)
    refresh = LocalKMeans(config) if backend == "faiss" else TrainingKMeans(config, torch.device("cpu"))
    (trained,) = refresh(
        vectors.astype(np.float32), (12,), nested=False, seed=0, initial=[settings["initial"]]
    ).result()  # fmt: skip
    (assigned,) = assign(found.centroids, vectors, use_ray=False, backend=backend)
    for ids in (found.ids, trained.ids, assigned.ids):
        assert adjusted_rand_score(reference.labels_, ids) > 0.99
    assert found.inertia == pytest.approx(reference.inertia_, rel=1e-3)
    assert assigned.inertia == pytest.approx(found.inertia, rel=1e-5)
    np.testing.assert_array_equal(assigned.ids, found.ids)


@pytest.mark.parametrize(("dtype", "offset", "scale"), FAR)
def test_a_start_from_far_away_vectors_finds_the_blobs(dtype: type, offset: float, scale: float) -> None:
    vectors = (blobs() * scale + offset).astype(dtype)
    near = cluster(vectors.astype(np.float64) - offset, 12, use_ray=False, init="kmeans++")
    far = cluster(vectors, 12, use_ray=False, init="kmeans++", backend="torch")
    assert adjusted_rand_score(near.ids, far.ids) > 0.99
    estimated = ClrayKMeans(12, random_state=0, n_init=3).fit(vectors.astype(np.float32))
    assert estimated.inertia_ <= 1.05 * near.inertia


@pytest.mark.parametrize(("value", "fault"), [(1e39, r"1\.0e\+78"), (1e200, r"1\.0e\+400")])
def test_float64_beyond_float32_is_called_what_it_is(value: float, fault: str) -> None:
    vectors = blobs()
    vectors[7, :] = 0
    vectors[7, 2] = value
    with pytest.raises(UserError, match=f"row 7 has a squared norm of {fault}, above the bound"):
        cluster(vectors, 5, use_ray=False)


def test_the_largest_vectors_allowed_are_clustered_and_balanced() -> None:
    vectors = blobs()
    vectors *= (0.9 * MAX_SQUARED_NORM) ** 0.5 / np.linalg.norm(vectors, axis=1).max()
    found = cluster(vectors, 12, use_ray=False, balanced=True)
    assert np.isfinite(found.inertia)
    assert found.ids.min() >= 0


def test_shards_never_index_by_the_id_of_nothing() -> None:
    """Even where no survey was made: the search in float64 finds what FAISS did not."""
    vectors = blobs().astype(np.float32)
    vectors[3] = 1e25
    (sums,) = FaissShard(vectors).accumulate([vectors[:10]])
    assert sums.counts.sum() == len(vectors)
    ((ids, _),) = FaissShard(vectors).assign([vectors[:10]])
    np.testing.assert_array_equal(ids, squared_distances(vectors, vectors[:10]).argmin(1))


def test_the_search_in_float64_is_exact_over_tiles() -> None:
    vectors, centroids = blobs(200).astype(np.float32), blobs(2500, seed=1).astype(np.float32)
    distances, ids = search_again(vectors, centroids, np.full(200, -1))
    expected = squared_distances(vectors, centroids)
    np.testing.assert_array_equal(ids, expected.argmin(1))
    np.testing.assert_allclose(distances, expected.min(1))
    equal = search_again(centroids[:5], centroids, np.arange(5))
    assert equal[0].tolist() == [0] * 5
