from pathlib import Path

import numpy as np
import pytest
import torch

from clray.kmeans.shards.faiss_shard import FaissShard
from clray.kmeans.shards.nearest import Nearest, approach, draw, random_of_rows
from clray.kmeans.shards.port import Shard
from clray.kmeans.shards.torch_shard import TorchShard
from clray.kmeans.vectors.source import open_vectors
from clray.kmeans.vectors.tensors import tensor_of

KEY = np.array([3, 4], np.uint64)


def vectors(dtype: type) -> np.ndarray:
    return (np.random.default_rng(0).normal(size=(3000, 6)) * 20 + 100).clip(0, 255).astype(dtype)


def shard_of(kind: str, values: np.ndarray, folder: Path) -> Shard:
    if kind == "torch":
        return TorchShard(tensor_of(values, torch.device("cpu")))
    if kind == "files":
        np.save(folder / "v.npy", values)
        return FaissShard(open_vectors(folder / "v.npy").slice(0, len(values)))
    return FaissShard(values)


@pytest.mark.parametrize("kind", ["faiss", "torch", "files"])
@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.uint8])
def test_rounds_of_candidates_leave_the_nearest_of_all(dtype: type, kind: str, tmp_path: Path) -> None:
    values, origin = vectors(dtype), np.full(6, 100, np.float32)
    shard = shard_of(kind, values, tmp_path).about(origin)
    rounds = np.split(values[:60].astype(np.float32) - origin, [1, 20, 45])
    nearest: Nearest | None = None
    for candidates in rounds:
        nearest = approach(shard, candidates, nearest)
    assert nearest is not None
    exact = ((values[:, None].astype(np.float64) - values[None, :60].astype(np.float64)) ** 2).sum(-1)
    np.testing.assert_allclose(nearest.squares, exact.min(1), rtol=1e-5, atol=1e-3)
    np.testing.assert_allclose(exact[np.arange(3000), nearest.ids], exact.min(1))
    assert nearest.potential == pytest.approx(exact.min(1).sum(), rel=1e-6)
    np.testing.assert_array_equal(nearest.weights, np.bincount(nearest.ids, minlength=60))
    assert nearest.squares[:60].max() == 0


def test_the_number_of_a_row_is_the_same_in_any_slice() -> None:
    whole = random_of_rows(0, 1000, KEY)
    for start, stop in ((0, 7), (1, 2), (3, 900), (998, 1000)):
        np.testing.assert_array_equal(random_of_rows(start, stop - start, KEY), whole[start:stop])
    assert not np.array_equal(random_of_rows(0, 1000, KEY + np.uint64(1)), whole)
    far = random_of_rows(10**12 + 1, 5, KEY)
    np.testing.assert_array_equal(far, random_of_rows(10**12, 6, KEY)[1:])


def test_rows_are_drawn_as_often_as_their_distance_says() -> None:
    squares = np.random.default_rng(0).exponential(size=400).astype(np.float32)
    squares[:5], squares[5:9] = 0, 1e6
    rate, runs = 0.1, 3000
    nearest = Nearest(np.zeros(400, np.int32), squares, 1)
    seen = np.zeros(400)
    for run in range(runs):
        seen[draw(nearest, 10**10 + 3, rate, np.array([run, 0], np.uint64))] += 1
    expected = np.minimum(rate * squares.astype(np.float64), 1)
    deviations = (seen - runs * expected) / np.sqrt(np.maximum(runs * expected * (1 - expected), 1e-9))
    assert seen[:5].max() == 0
    assert seen[5:9].min() == runs
    assert np.abs(deviations).max() < 4.5
    assert deviations.std() == pytest.approx(1, abs=0.15)
    assert seen.sum() / runs == pytest.approx(expected.sum(), rel=0.02)
