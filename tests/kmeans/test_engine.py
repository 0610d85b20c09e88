"""`clray.cluster` in this process and on a real local Ray."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import ray
import torch

import clray
from clray.errors import UserError
from clray.kmeans.engine import cluster
from clray.kmeans.progress import Progress
from clray.ray_runtime import cluster as ray_cluster

VECTORS = np.random.default_rng(0).normal(size=(600, 8)).astype(np.float32)


@pytest.fixture(scope="module")
def ray_at_end() -> Iterator[None]:
    yield
    ray.shutdown()


def test_the_package_offers_it() -> None:
    assert clray.cluster is cluster


@pytest.mark.slow
@pytest.mark.usefixtures("ray_at_end")
@pytest.mark.parametrize("as_file", [False, True])
def test_remote_shards_give_what_local_ones_give(tmp_path: Path, as_file: bool) -> None:
    np.save(tmp_path / "v.npy", VECTORS)
    source = tmp_path / "v.npy" if as_file else VECTORS
    remote = cluster(source, [4, 30], num_shards=2, cpus_per_shard=0.2, num_redos=2)
    local = cluster(VECTORS, [4, 30], use_ray=False, num_redos=2)
    for one, other in zip(remote.clusterings, local.clusterings, strict=True):
        np.testing.assert_array_equal(one.ids, other.ids)
    assert remote.summary["bytes_to_each_shard_per_iteration"] > 0


@pytest.mark.slow
@pytest.mark.usefixtures("ray_at_end")
@pytest.mark.parametrize(
    ("use_ray", "as_file"),
    [(False, False), (False, True), pytest.param(True, False, marks=pytest.mark.long), (True, True)],
)
def test_rows_with_nan_are_named_or_left_out(tmp_path: Path, use_ray: bool, as_file: bool) -> None:
    vectors, bad = VECTORS.copy(), [0, 299, 300, 599]
    vectors[bad, 3] = [np.nan, np.inf, -np.inf, np.nan]
    np.save(tmp_path / "v.npy", vectors)
    options = {"use_ray": use_ray, "num_shards": 2, "cpus_per_shard": 0.2}
    source = tmp_path / "v.npy" if as_file else vectors
    with pytest.raises(
        UserError, match=r"4 of 600 vectors .*row 0 holds NaN; .*row 299 holds infinity; .*row 300 .*drop_nonfinite"
    ):
        cluster(source, 5, **options)
    found = cluster(source, 5, drop_nonfinite=True, **options)
    assert found.nonfinite_rows.tolist() == bad
    assert np.flatnonzero(found.ids < 0).tolist() == bad
    expected = cluster(np.delete(vectors, bad, axis=0), 5, use_ray=False)
    np.testing.assert_array_equal(np.delete(found.ids, bad), expected.ids)


def test_any_array_will_do() -> None:
    half = VECTORS.astype(np.float16)
    expected = cluster(half.astype(np.float32), 5, use_ray=False).ids
    for vectors in (half, torch.from_numpy(half), half.astype(np.float64), half.tolist()):
        np.testing.assert_array_equal(cluster(vectors, 5, use_ray=False).ids, expected)
    bfloat16 = torch.from_numpy(VECTORS).bfloat16()
    np.testing.assert_array_equal(
        cluster(bfloat16, 5, use_ray=False).ids, cluster(bfloat16.float(), 5, use_ray=False).ids
    )


@pytest.mark.parametrize("settings", [{"sample_fraction": 0.5}, {"resample_steps": 1}])
def test_what_was_asked_for_before_and_is_left_out_now_is_another_clustering(tmp_path: Path, settings: dict) -> None:
    def interrupt(_: Progress) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cluster(VECTORS, 6, output=tmp_path / "o", on_iteration=interrupt, use_ray=False, **settings)
    (name,) = settings
    with pytest.raises(UserError, match=rf"another .*{name}.* \(.*, now left out\)"):
        cluster(VECTORS, 6, output=tmp_path / "o", resume=True, use_ray=False)


def test_an_interrupted_clustering_goes_on_to_the_same_result(tmp_path: Path) -> None:
    options = {"use_ray": False, "num_iterations": 8, "tolerance": 0.0, "num_redos": 2}
    expected = cluster(VECTORS, [6, 40], **options)

    def interrupt(progress: Progress) -> None:
        if progress.iteration == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cluster(VECTORS, [6, 40], output=tmp_path / "o", on_iteration=interrupt, **options)
    with pytest.raises(UserError, match="holds an interrupted clustering; resume it"):
        cluster(VECTORS, [6, 40], output=tmp_path / "o", **options)
    with pytest.raises(UserError, match=r"started with another num_redos \(num_redos: 2, now 1\)"):
        cluster(VECTORS, [6, 40], output=tmp_path / "o", resume=True, **{**options, "num_redos": 1})
    iterations: list[int] = []
    found = cluster(
        VECTORS,
        [6, 40],
        output=tmp_path / "o",
        resume=True,
        on_iteration=lambda each: iterations.append(each.iteration),
        **options,
    )
    assert iterations[0] == 4
    for one, other in zip(found.clusterings, expected.clusterings, strict=True):
        np.testing.assert_array_equal(one.centroids, other.centroids)
        assert one.history == other.history
    with pytest.raises(UserError, match="is finished"):
        cluster(VECTORS, [6, 40], output=tmp_path / "o", resume=True, **options)
    with pytest.raises(UserError, match="is not empty; choose another"):
        cluster(VECTORS, [6, 40], output=tmp_path / "o", **options)


def test_the_folder_holds_what_is_returned(tmp_path: Path) -> None:
    result = cluster(VECTORS, 5, use_ray=False, output=tmp_path / "o")
    np.testing.assert_array_equal(np.load(tmp_path / "o" / "assignments.npy"), result.ids)
    np.testing.assert_array_equal(np.load(tmp_path / "o" / "centroids.npy"), result.centroids)
    summary = json.loads((tmp_path / "o" / "clustering.json").read_text())
    assert summary == result.summary
    assert summary["versions"].keys() == {"clray", "numpy", "ray", "faiss"}
    assert len(summary["granularities"][0]["inertia_history"]) == summary["granularities"][0]["num_iterations"]
    assert sorted(path.name for path in (tmp_path / "o").iterdir()) == [
        "assignments.npy",
        "centroids.npy",
        "clustering.json",
    ]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_clusters": 601}, r"between 1 and 600 \(the vectors\); got 601"),
        ({"num_clusters": 0}, "between 1 and 600"),
        ({"num_clusters": []}, "at least one number"),
        ({"num_clusters": [5, 5]}, "each may occur once; got 5, 5"),
        ({"num_clusters": [5, 50], "nested": True}, "falling numbers of clusters.* got 5,50"),
        ({"num_iterations": 0}, "num_iterations must be greater than or equal to 1; got 0"),
        ({"tolerance": -1.0}, "tolerance must be greater than or equal to 0; got -1"),
        ({"num_shards": 0}, "num_shards must be greater than or equal to 1"),
        ({"memory_per_shard": "lots"}, r"expected a size such as 300MB or 2GiB; got 'lots'"),
        ({"memory_per_shard": "900000GB"}, "are free on this machine"),
        ({"initial": VECTORS[:4]}, r"expected centroids of shapes \[\(5, 8\)\]; got \[\(4, 8\)\]"),
        ({"initial": np.full((5, 8), np.nan)}, "the centroids hold NaN"),
        ({"resume": True}, "name the output folder"),
    ],
)
def test_impossible_requests_are_refused_before_ray_starts(
    options: dict, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_cluster, "start_ray", lambda **_: pytest.fail("Ray was started"))
    with pytest.raises(UserError, match=message):
        cluster(VECTORS, **{"num_clusters": 5, **options})


def test_every_start_counts_in_the_memory_of_a_shard(tmp_path: Path) -> None:
    """All go through the vectors together: of eight the bound holds the centroids and sums of few."""
    np.save(tmp_path / "v.npy", np.random.default_rng(0).normal(size=(3000, 64)).astype(np.float32))
    options = {"use_ray": False, "memory_per_shard": "48MB", "num_iterations": 1}
    cluster(tmp_path / "v.npy", 2000, **options)
    with pytest.raises(UserError, match=r"are too little: a shard needs at least .* for 16000 centroids"):
        cluster(tmp_path / "v.npy", 2000, num_redos=8, **options)
    # On a sample, which lies in memory, one of them goes on.
    cluster(tmp_path / "v.npy", 2000, num_redos=8, sample_fraction=0.9, **options)


def test_all_rows_bad_is_said_so() -> None:
    with pytest.raises(UserError, match=r"none of the 9 vectors can be clustered: .*row 0 holds NaN.*and 4 more"):
        cluster(np.full((9, 2), np.nan), 2, use_ray=False, drop_nonfinite=True)
