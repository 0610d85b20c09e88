"""Resampling against brute force, and on planted densities whose support is known."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from clray.cli.app import app
from clray.errors import UserError
from clray.kmeans import closest
from clray.kmeans.closest import closest_members, join_closest
from clray.kmeans.engine import ClusterResult, cluster
from clray.kmeans.lloyd import lloyd
from clray.kmeans.options import KMeansOptions
from clray.kmeans.resample import resample
from clray.kmeans.shards.faiss_shard import FaissShard
from clray.kmeans.shards.together import LocalShards

RNG = np.random.default_rng(0)
SQUARES = np.concatenate([RNG.random((10_000, 2)), RNG.random((100, 2)) + np.array([1, 0])]).astype(np.float32)
"""Two unit squares side by side, the left one 100 times as dense."""
LEVELS = [200, 50, 10]


def nested(**settings: object) -> ClusterResult:
    return cluster(SQUARES, LEVELS, nested=True, use_ray=False, init="kmeans++", **settings)


def share_right(centroids: np.ndarray) -> float:
    return float((centroids[:, 0] > 1).mean())


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 5)), max_size=40), st.integers(1, 4), st.integers(0, 40))
def test_the_closest_are_those_of_a_brute_force(pairs: list[tuple[int, int]], most: int, cut: int) -> None:
    ids, squares = (np.array([pair[i] for pair in pairs], dtype) for i, dtype in enumerate((np.int32, np.float32)))
    expected = sorted(
        row
        for k in range(4)
        for row in sorted(np.flatnonzero(ids == k).tolist(), key=lambda row: (squares[row], row))[:most]
    )
    slices = slice(0, cut), slice(cut, None)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(closest, "BLOCK", 3)  # so that limits pass from one block to the next
        whole = closest_members(ids, squares, 4, most)
        parts = [closest_members(ids[each], squares[each], 4, most) for each in slices]
    assert whole.rows.tolist() == expected
    assert join_closest(parts, [0, min(cut, len(ids))], 4, most).rows.tolist() == expected


def test_resampled_levels_spread_over_the_support() -> None:
    """Half of the area holds one vector of 101: half of the coarsest clusters should lie there."""
    plain, resampled = nested(), nested(resample_steps=5)
    for one, other in zip(resampled.clusterings, plain.clusterings, strict=True):
        assert share_right(one.centroids) > 1.3 * share_right(other.centroids)
    assert share_right(plain.clusterings[-1].centroids) <= 0.3
    assert 0.4 <= share_right(resampled.clusterings[-1].centroids) <= 0.6
    fine, middle, coarse = (each.ids for each in resampled.clusterings)
    np.testing.assert_array_equal(middle, resampled.parents[0][fine])
    np.testing.assert_array_equal(coarse, resampled.parents[1][middle])


def test_ids_and_inertia_are_those_of_all_vectors() -> None:
    (found,) = cluster(SQUARES, 50, use_ray=False, resample_steps=2, resample_points=10).clusterings
    squares = ((SQUARES[:, None].astype(np.float64) - found.centroids) ** 2).sum(axis=2)
    np.testing.assert_array_equal(found.ids, squares.argmin(axis=1))
    assert found.inertia == pytest.approx(squares.min(axis=1).sum(), rel=1e-5)


def test_without_steps_nothing_changes() -> None:
    """Not by a bit, and not even the work: the clustering itself comes back."""
    shards = LocalShards([FaissShard(SQUARES)])
    (found,) = lloyd(shards, [20])
    assert resample(shards, found, KMeansOptions(resample_points=5)) is found
    for one, other in zip(nested().clusterings, nested(resample_points=3).clusterings, strict=True):
        np.testing.assert_array_equal(one.centroids, other.centroids)


def test_the_seed_decides() -> None:
    runs = [cluster(SQUARES, 30, use_ray=False, resample_steps=2, seed=seed).centroids for seed in (1, 1, 2)]
    np.testing.assert_array_equal(runs[0], runs[1])
    assert not np.array_equal(runs[0], runs[2])


def test_vectors_far_from_the_origin_and_equal_ones_are_resampled() -> None:
    near = cluster(SQUARES, 30, use_ray=False, resample_steps=2).centroids
    far = cluster(SQUARES + np.float32(1024), 30, use_ray=False, resample_steps=2).centroids
    assert share_right(far - 1024) == pytest.approx(share_right(near), abs=0.1)
    same = cluster(np.ones((30, 4), np.float32), 5, use_ray=False, resample_steps=2)
    assert same.inertia == 0


def test_the_command_takes_its_settings_and_resume_asks_for_the_same(tmp_path: Path) -> None:
    np.save(tmp_path / "v.npy", SQUARES)
    arguments = ["cluster", str(tmp_path / "v.npy"), "-k", "20", "--local", "--json", "-o", str(tmp_path / "out")]
    done = CliRunner().invoke(app, [*arguments, "--resample-steps", "1", "--resample-points", "4"])
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert (told["resample_steps"], told["resample_points"]) == (1, 4)
    expected = cluster(SQUARES, 20, use_ray=False, resample_steps=1, resample_points=4).centroids
    np.testing.assert_array_equal(np.load(tmp_path / "out" / "centroids.npy"), expected)
    refused = CliRunner().invoke(app, [*arguments, "--resample-points", "1"])
    assert "--resample-points must be greater than or equal to 2; got 1" in str(refused.exception)


@pytest.mark.parametrize(("value", "message"), [(-1, "greater than or equal to 0; got -1"), (1.5, "a whole number")])
def test_steps_that_are_none_are_refused(value: float, message: str) -> None:
    with pytest.raises(UserError, match=f"resample_steps must be {message}"):
        cluster(SQUARES, 20, use_ray=False, resample_steps=value)
