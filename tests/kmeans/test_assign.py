"""`clray assign`: new vectors under the centroids of a finished clustering."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import ray
from typer.testing import CliRunner

import clray
from clray.cli.app import app
from clray.clusters.saved import read_assignment
from clray.errors import UserError

RNG = np.random.default_rng(0)
OLD, NEW = (RNG.normal(size=(n, 6)).astype(np.float32) + 1000 for n in (300, 200))


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("assign") / "c"
    clray.cluster(OLD, [9, 3], use_ray=False, output=folder)
    return folder


def nearest(centroids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    distances = ((NEW[:, None].astype(np.float64) - centroids[None]) ** 2).sum(-1)
    return distances.argmin(1), distances.min(1)


def check(found: list[clray.Assigned]) -> None:
    assert [len(each.centroids) for each in found] == [9, 3]
    for each in found:
        ids, distances = nearest(each.centroids)
        np.testing.assert_array_equal(each.ids, ids)
        np.testing.assert_allclose(each.squared_distances, distances, rtol=1e-3)
        assert each.inertia == pytest.approx(distances.sum(), rel=1e-5)


@pytest.mark.parametrize("memory", [None, "150MB"])
def test_ids_and_distances_are_those_of_a_brute_force(result: Path, tmp_path: Path, memory: str | None) -> None:
    np.save(tmp_path / "new.npy", NEW)
    check(clray.assign(result, tmp_path / "new.npy", use_ray=False, memory_per_shard=memory))
    check(clray.assign(str(result), NEW, use_ray=False))


@pytest.mark.slow
def test_ray_gives_the_same(result: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "new.npy", NEW)
    check(clray.assign(result, tmp_path / "new.npy", num_shards=2, cpus_per_shard=0.1))
    ray.shutdown()


def test_the_vectors_of_the_clustering_get_their_own_ids(result: Path) -> None:
    (found,) = clray.assign(result, OLD, 9, use_ray=False)
    np.testing.assert_array_equal(found.ids, read_assignment(result, 9))


def test_the_output_is_a_clustering_of_the_new_vectors(result: Path, tmp_path: Path) -> None:
    vectors = NEW.copy()
    vectors[7] = np.inf
    np.save(tmp_path / "new.npy", vectors)
    done = CliRunner().invoke(
        app, ["assign", str(result), str(tmp_path / "new.npy"), "-o", str(tmp_path / "o"), "--local", "--table",
              "--drop-nonfinite", "--json"],
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    shown = json.loads(done.stdout)["granularities"]
    assert [each["num_clusters"] for each in shown] == [9, 3]
    assert [each["left_out"] for each in shown] == [1, 1]
    ids, distances = read_assignment(tmp_path / "o", 9), np.load(tmp_path / "o" / "k9" / "distances.npy")
    assert ids[7] == -1
    assert np.flatnonzero(np.isnan(distances)).tolist() == [7]
    np.testing.assert_array_equal(np.delete(ids, 7), np.delete(nearest(np.load(result / "k9" / "centroids.npy"))[0], 7))
    table = pq.read_table(tmp_path / "o" / "assignments.parquet")
    assert table.column_names == ["file", "row", "cluster_9", "squared_distance_9", "cluster_3", "squared_distance_3"]
    again = clray.assign(tmp_path / "o", NEW, 3, use_ray=False)
    np.testing.assert_array_equal(np.delete(again[0].ids, 7), np.delete(read_assignment(tmp_path / "o", 3), 7))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_clusters": 4}, "holds clusters for K = 9, 3; got 4"),
        ({"num_clusters": True}, "num_clusters: expected a whole number; got True"),
        ({"vectors": NEW[:, :5]}, "vectors of 5 dimensions; the centroids have 6"),
        ({"vectors": np.full((4, 6), np.nan)}, "none of the 4 vectors"),
        ({"vectors": "nowhere.npy"}, "no such file"),
        ({"result": "nowhere"}, "holds no finished clustering"),
        ({"result": np.full((3, 6), np.nan)}, "centroids hold NaN"),
        ({"result": np.zeros((0, 6))}, r"expected centroids of shape \[K, dim\]; got \[0, 6\]"),
        ({"result": None}, "got a NoneType"),
        ({"num_shard": 3}, "unknown option 'num_shard'. Did you mean 'num_shards'"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(result: Path, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        clray.assign(**{"result": result, "vectors": NEW, "use_ray": False, **arguments})


def test_the_command_line_speaks_of_its_own_options(result: Path, tmp_path: Path) -> None:
    vectors = NEW.copy()
    vectors[0] = np.nan
    np.save(tmp_path / "num_shards.npy", vectors)
    options = [str(tmp_path / "num_shards.npy"), "--local", "-o", str(tmp_path / "o")]
    for command, message in [
        (["assign", str(result), *options], "num_shards.npy: row 0 holds NaN. Correct them, or leave them out: --drop"),
        (["cluster", *options, "-k", "5", "--shards", "0"], "--shards must be greater than or equal to 1; got 0"),
        (["cluster", *options, "-k", "5", "--memory-per-shard", "lots"], "--memory-per-shard: expected a size"),
        (["cluster", *options, "-k", "5", "--resume"], "--resume: "),
        (["cluster", *options, "--levels", "5,50"], "--levels: nested clusters expect two or more falling numbers"),
        (["cluster", *options, "-k", "500"], "--num-clusters must be between 1 and 200"),
    ]:  # fmt: skip
        done = CliRunner().invoke(app, command)
        assert isinstance(done.exception, UserError), done.output
        assert message in str(done.exception)
