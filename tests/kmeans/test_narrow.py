"""Vectors of one or two bytes a coordinate: clustered as their float32 copies are, without making one."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from clray.errors import UserError
from clray.kmeans.assign import assign
from clray.kmeans.engine import cluster
from clray.kmeans.memory import plan_blocks
from clray.kmeans.shards.faiss_shard import FaissShard
from clray.kmeans.vectors.source import ArraySlice, open_vectors

MB = 10**6
NARROW = [np.uint8, np.int8, np.float16]


def vectors(dtype: type) -> np.ndarray:
    rng = np.random.default_rng(0)
    centers = rng.uniform(-60, 60, size=(12, 10)) + (128 if dtype == np.uint8 else 0)
    return (
        np.round(centers[rng.integers(12, size=1500)] + rng.normal(size=(1500, 10)) * 8).clip(-128, 255).astype(dtype)
    )


def written(values: np.ndarray, folder: Path, kind: str) -> Path | np.ndarray:
    if kind == "array":
        return values
    path = folder / f"v.{kind}"
    if kind == "npy":
        np.save(path, values)
    else:
        flat = pa.array(values.ravel())
        pq.write_table(pa.table({"v": pa.FixedSizeListArray.from_arrays(flat, values.shape[1])}), path)
    return path


@pytest.mark.parametrize("backend", ["faiss", "torch"])
@pytest.mark.parametrize("kind", ["array", "npy", "parquet"])
@pytest.mark.parametrize("dtype", NARROW)
def test_narrow_vectors_are_clustered_as_their_float32_copies(
    dtype: type, kind: str, backend: str, tmp_path: Path
) -> None:
    narrow = vectors(dtype)
    options = {"use_ray": False, "backend": backend, "num_iterations": 6, "init": "kmeans++"}
    expected = cluster(narrow.astype(np.float32), [5, 20], **options)
    given = written(narrow, tmp_path, kind)
    found = cluster(given, [5, 20], **options)
    for one, other in zip(found.clusterings, expected.clusterings, strict=True):
        np.testing.assert_array_equal(one.ids, other.ids)
        np.testing.assert_allclose(one.centroids, other.centroids, rtol=1e-5, atol=1e-4)
        assert one.inertia == pytest.approx(other.inertia, rel=1e-6)
    (again,) = assign(found.centroids, given, use_ray=False, backend=backend)
    np.testing.assert_array_equal(again.ids, found.ids)


@pytest.mark.parametrize("dtype", NARROW)
def test_a_slice_of_files_is_kept_in_its_own_type(dtype: type, tmp_path: Path) -> None:
    shard = FaissShard(open_vectors(written(vectors(dtype), tmp_path, "npy")).slice(0, 1500))
    shard.about(np.ones(10, np.float32)).accumulate([np.ones((2, 10), np.float32)])
    assert sum(block.nbytes for block in shard._resident) == vectors(dtype).nbytes


def test_an_array_is_widened_a_block_at_a_time() -> None:
    assert [len(each) for each in ArraySlice(vectors(np.uint8)).blocks(700)] == [700, 700, 100]
    assert {each.dtype for each in ArraySlice(vectors(np.uint8)).blocks(700)} == {np.dtype(np.float32)}


def test_more_narrow_vectors_fit_a_shard() -> None:
    plans = [
        plan_blocks(10**6, 128, [100], memory_bytes=400 * MB, process_bytes=100 * MB, itemsize=size) for size in (1, 4)
    ]
    assert [each.is_resident for each in plans] == [True, False]


def test_a_list_of_bytes_beside_one_of_floats_is_no_candidate_unless_it_is_named(tmp_path: Path) -> None:
    columns = {
        name: pa.FixedSizeListArray.from_arrays(pa.array(vectors(dtype).ravel()), 10)
        for name, dtype in (("pixels", np.uint8), ("v", np.float16))
    }
    pq.write_table(pa.table(columns), tmp_path / "v.parquet")
    assert open_vectors(tmp_path / "v.parquet").files[0].itemsize == 2
    assert open_vectors(tmp_path / "v.parquet", "pixels").files[0].itemsize == 1


def test_centroids_are_floats_and_other_integers_are_refused() -> None:
    with pytest.raises(UserError, match=r"initial: expected float16, bfloat16, float32 or float64; got uint8"):
        cluster(vectors(np.uint8), 3, initial=vectors(np.uint8)[:3], use_ray=False)
    with pytest.raises(UserError, match=r"or int8 or uint8; got int16\. Convert with"):
        cluster(vectors(np.uint8).astype(np.int16), 3, use_ray=False)
