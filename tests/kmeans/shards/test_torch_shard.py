"""Vectors on a device, here the CPU, against FAISS and a brute force."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from clray.kmeans.kmeans import kmeans
from clray.kmeans.options import KMeansOptions
from clray.kmeans.origin import choose_origin
from clray.kmeans.shards import torch_kernels
from clray.kmeans.shards.faiss_shard import FaissShard
from clray.kmeans.shards.together import LocalShards
from clray.kmeans.shards.torch_shard import TorchShard
from clray.kmeans.vectors.source import open_vectors, split_rows
from clray.kmeans.vectors.tensors import TensorRows, tensor_of

CPU = torch.device("cpu")


def blobs(num_vectors: int = 3000, dim: int = 16, num_blobs: int = 20, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    centers = rng.normal(size=(num_blobs, dim)) * 2
    return (centers[rng.integers(num_blobs, size=num_vectors)] + rng.normal(size=(num_vectors, dim))).astype(np.float32)


def on_device(vectors: np.ndarray) -> TorchShard:
    return TorchShard(TensorRows(torch.from_numpy(vectors)))


def exact_distances(vectors: np.ndarray, centroids: np.ndarray) -> np.ndarray:
    return ((vectors[:, None].astype(np.float64) - centroids[None].astype(np.float64)) ** 2).sum(-1)


@pytest.fixture(params=["whole", "tiles"])
def tiled(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once with tiles that hold everything, once with blocks and tiles whose ends divide vectors and centroids."""
    if request.param == "tiles":
        monkeypatch.setitem(torch_kernels.BLOCK_ROWS, "cpu", 700)
        monkeypatch.setitem(torch_kernels.TILE_ENTRIES, "cpu", 700 * 13)
        monkeypatch.setattr(torch_kernels, "EXACT_ENTRIES", 50)


@pytest.mark.usefixtures("tiled")
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_answers_are_those_of_faiss(dtype: type) -> None:
    vectors = blobs().astype(dtype)
    sets = [vectors[:k].astype(np.float32) + np.float32(0.01) for k in (7, 64)]
    faiss, torch_ = FaissShard(vectors), on_device(vectors)
    for ours, theirs in zip(torch_.accumulate(sets), faiss.accumulate(sets), strict=True):
        np.testing.assert_array_equal(ours.counts, theirs.counts)
        np.testing.assert_allclose(ours.sums, theirs.sums, rtol=1e-12, atol=1e-12)
        assert ours.inertia == pytest.approx(theirs.inertia, rel=1e-6)
    for (ids, inertia), (their_ids, their_inertia) in zip(torch_.assign(sets), faiss.assign(sets), strict=True):
        np.testing.assert_array_equal(ids, their_ids)
        assert ids.dtype == np.int32
        assert inertia == pytest.approx(their_inertia, rel=1e-6)
    for (ids, squares), (their_ids, theirs) in zip(torch_.measure(sets), faiss.measure(sets), strict=True):
        np.testing.assert_array_equal(ids, their_ids)
        np.testing.assert_allclose(squares, theirs, rtol=2e-5, atol=1e-5)
    rows = np.array([0, 5, 2999])
    np.testing.assert_array_equal(torch_.take(rows), faiss.take(rows))


@pytest.mark.usefixtures("tiled")
@pytest.mark.parametrize(("offset", "spherical"), [(0.0, False), (0.0, True), (1e4, False)])
def test_the_iterations_are_those_of_faiss(offset: float, spherical: bool) -> None:
    vectors = blobs() + np.float32(offset)
    options = KMeansOptions(num_iterations=8, num_redos=2, seed=3, spherical=spherical, tolerance=0.0)
    found = []
    for make in (on_device, FaissShard):
        shards = LocalShards([make(vectors[a:b]) for a, b in split_rows(len(vectors), 2)])
        origin = None if spherical else choose_origin(shards.survey([12]), vectors.dtype)
        found.append(kmeans(shards.about(origin), [12, 30], options)[0])
    for ours, theirs in zip(*found, strict=True):
        assert np.mean(ours.ids == theirs.ids) > 0.999
        assert ours.inertia == pytest.approx(theirs.inertia, rel=1e-6)
        np.testing.assert_allclose(ours.centroids, theirs.centroids, rtol=1e-5, atol=1e-5 * max(1, offset / 100))


@settings(max_examples=25, deadline=None)
@given(
    st.sampled_from([0.0, 1.0, 1e3, 1e5]), st.sampled_from([1e-22, 1e-6, 1.0, 1e6]), st.booleans(), st.integers(0, 999)
)
def test_any_scale_and_place_agrees_with_a_brute_force(
    offset: float, scale: float, has_groups: bool, seed: int
) -> None:
    """Also where no one origin serves all vectors: then those that are lost are searched again in float64."""
    vectors = (blobs(300, 4, 6, seed) + offset) * scale
    if has_groups:
        vectors[1::2] += 3e3 * scale
    vectors = vectors.astype(np.float32)
    centroids = vectors[:: len(vectors) // 8] * np.float32(1 + 1e-6)
    ((ids, squares),) = on_device(vectors).measure([centroids])
    distances = exact_distances(vectors, centroids)
    own = distances[np.arange(len(vectors)), ids]
    assert (own <= distances.min(1) * 1.01 + 1e-9 * distances.max()).all()
    np.testing.assert_allclose(squares.astype(np.float64), own, rtol=1e-3, atol=1e-9 * distances.max() + 1e-44)


def test_rows_that_cannot_be_searched_are_found_as_by_faiss() -> None:
    vectors = blobs(20_000, 3)
    vectors[[5, 9_000, 19_999], [0, 1, 2]] = [np.nan, np.inf, 1e30]
    ours, theirs = on_device(vectors).survey(), FaissShard(vectors).survey()
    assert ours.bad_rows.tolist() == theirs.bad_rows.tolist() == [5, 9_000, 19_999]
    assert ours.num_vectors == theirs.num_vectors
    np.testing.assert_allclose(ours.total, theirs.total)
    assert ours.squares == pytest.approx(theirs.squares)


def test_unit_vectors_are_scaled_as_they_are_read() -> None:
    half = torch.from_numpy(blobs()).half()
    rows = TensorRows(half, is_unit=True)
    expected = torch.nn.functional.normalize(half.float(), dim=1).numpy()
    np.testing.assert_array_equal(rows.numpy(), expected)
    (ours,), (theirs,) = (s.accumulate([expected[:9]]) for s in (TorchShard(rows), FaissShard(expected)))
    np.testing.assert_array_equal(ours.counts, theirs.counts)
    np.testing.assert_allclose(ours.sums, theirs.sums)


def test_no_float32_copy_of_the_whole_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(torch_kernels.BLOCK_ROWS, "cpu", 100)
    shard = TorchShard(TensorRows(torch.zeros(1000, 8, dtype=torch.float16), is_unit=True))
    largest = 0
    before = torch.Tensor.float

    def widened(self: torch.Tensor) -> torch.Tensor:
        nonlocal largest
        largest = max(largest, len(self))
        return before(self)

    monkeypatch.setattr(torch.Tensor, "float", widened)
    shard.survey()
    shard.accumulate([np.ones((3, 8), np.float32)])
    assert largest == 100


def test_sums_by_segments_are_those_in_order() -> None:
    rng = torch.Generator().manual_seed(0)
    rows = torch.randn(500, 6, dtype=torch.float64, generator=rng)
    ids = torch.randint(0, 40, (500,), generator=rng)
    ids[ids == 7] = 8  # an empty cluster
    one, other = torch.ones(40, 6, dtype=torch.float64), torch.ones(40, 6, dtype=torch.float64)
    torch_kernels.add_in_order(one, rows, ids)
    torch_kernels.add_by_segments(other, rows, ids)
    torch.testing.assert_close(one, other)
    assert (other[7] == 1).all()


def test_products_are_in_full_float32_and_the_choice_of_training_comes_back() -> None:
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("high")
        seen = []

        def kernel(vectors: torch.Tensor, centroids: torch_kernels.Centroids) -> torch.Tensor:
            seen.append(torch.get_float32_matmul_precision())
            return torch_kernels.nearest_by_tiles(vectors, centroids)

        TorchShard(TensorRows(torch.ones(9, 2)), lambda *_: kernel).assign([np.ones((2, 2), np.float32)])
        assert seen == ["highest"]
        assert torch.get_float32_matmul_precision() == "high"
    finally:
        torch.set_float32_matmul_precision(before)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, ">f4"])
def test_files_lie_on_the_device_in_their_own_type(tmp_path, dtype: str) -> None:
    vectors = blobs(500).astype(dtype)
    for i in range(2):
        np.save(tmp_path / f"v{i}.npy", vectors[250 * i : 250 * (i + 1)])
    part = open_vectors(tmp_path).slice(100, 450).without(np.array([3, 300]))
    rows = tensor_of(part, CPU)
    assert rows.tensor.element_size() == vectors.itemsize
    np.testing.assert_array_equal(rows.numpy(), np.delete(vectors[100:450], [3, 300], 0).astype(np.float32))
