from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from clray.errors import UserError
from clray.kmeans.vectors.source import open_vectors, split_rows

VECTORS = np.random.default_rng(0).normal(size=(100, 4)).astype(np.float32)


def write_parquet(path: Path, vectors: np.ndarray, kind: str, rows_per_group: int = 30) -> None:
    value = pa.from_numpy_dtype(vectors.dtype)
    flat = pa.array(vectors.reshape(-1), value)
    if kind == "fixed":
        column = pa.FixedSizeListArray.from_arrays(flat, vectors.shape[1])
    else:
        offsets = np.arange(len(vectors) + 1) * vectors.shape[1]
        array = pa.LargeListArray if kind == "large" else pa.ListArray
        column = array.from_arrays(pa.array(offsets, pa.int64() if kind == "large" else pa.int32()), flat)
    table = pa.table({"id": np.arange(len(vectors)), "embedding": column})
    pq.write_table(table, path, row_group_size=rows_per_group)


def test_rows_are_covered_once_and_evenly() -> None:
    bounds = split_rows(10, 3)
    assert [row for start, stop in bounds for row in range(start, stop)] == list(range(10))
    assert max(b - a for a, b in bounds) - min(b - a for a, b in bounds) <= 1
    assert len(split_rows(2, 5)) == 2


def check_slices(path: Path, expected: np.ndarray) -> None:
    """Slices, blocks and single rows of the source hold what the array holds."""
    opened = open_vectors(path)
    assert (len(opened), opened.dim) == expected.shape
    for num_slices in (1, 3, 7):
        for num_rows in (1, 16, 1000):
            blocks = [block for part in opened.split(num_slices) for block in part.blocks(num_rows)]
            assert all(block.dtype == np.float32 and len(block) <= num_rows for block in blocks)
            np.testing.assert_array_equal(np.concatenate(blocks), expected)
    part, rows = opened.slice(11, 93), np.array([0, 1, 18, 19, 50, 81])
    np.testing.assert_array_equal(part.take(rows), expected[11:93][rows])
    dropped = np.array([0, 3, 4, 60, 81])
    left, kept = part.without(dropped), np.delete(expected[11:93], dropped, axis=0)
    assert len(left) == len(kept)
    np.testing.assert_array_equal(np.concatenate(list(left.blocks(9))), kept)
    np.testing.assert_array_equal(left.take(np.array([0, 1, 2, 55, 76])), kept[[0, 1, 2, 55, 76]])


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_npy_files_are_read_in_blocks(tmp_path: Path, dtype: type) -> None:
    np.save(tmp_path / "v.npy", VECTORS.astype(dtype))
    check_slices(tmp_path / "v.npy", VECTORS.astype(dtype).astype(np.float32))


def test_bfloat16_is_read_from_two_byte_voids(tmp_path: Path) -> None:
    values = torch.from_numpy(VECTORS).bfloat16()
    np.save(tmp_path / "v.npy", values.view(torch.int16).numpy().view("V2"))
    check_slices(tmp_path / "v.npy", values.float().numpy())


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("kind", ["list", "large", "fixed"])
def test_parquet_lists_are_read_in_blocks(tmp_path: Path, kind: str, dtype: type) -> None:
    write_parquet(tmp_path / "v.parquet", VECTORS.astype(dtype), kind)
    check_slices(tmp_path / "v.parquet", VECTORS.astype(dtype).astype(np.float32))


@pytest.mark.parametrize("suffix", ["npy", "parquet"])
def test_a_folder_is_one_source_in_the_order_of_names(tmp_path: Path, suffix: str) -> None:
    for i, (start, stop) in enumerate([(0, 40), (40, 41), (41, 100)]):
        if suffix == "npy":
            np.save(tmp_path / f"part-{i}.npy", VECTORS[start:stop])
        else:
            write_parquet(tmp_path / f"part-{i}.parquet", VECTORS[start:stop], "list", rows_per_group=7)
    check_slices(tmp_path, VECTORS)
    assert open_vectors(tmp_path).locate(42).endswith(f"part-2.{suffix}: row 1")


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros(5, np.float32), r"expected vectors of shape \[N, dim\].*got \[5\]"),
        (np.zeros((0, 4), np.float32), r"holds no vectors \(0 rows\)"),
        (np.zeros((4, 0), np.float32), r"got \[4, 0\]"),
        (np.zeros((3, 4), np.int64), "got int64"),
        (np.zeros((3, 4), np.float32, order="F"), "Fortran order.*ascontiguousarray"),
    ],
)
def test_unusable_arrays_are_refused(tmp_path: Path, array: np.ndarray, message: str) -> None:
    np.save(tmp_path / "v.npy", array)
    with pytest.raises(UserError, match=message):
        open_vectors(tmp_path / "v.npy")


def test_a_truncated_npy_is_refused_with_both_sizes(tmp_path: Path) -> None:
    np.save(tmp_path / "v.npy", np.zeros((100, 4), np.float32))
    data = (tmp_path / "v.npy").read_bytes()
    (tmp_path / "v.npy").write_bytes(data[:-10])
    with pytest.raises(UserError, match=rf"truncated.*100 x 4 float32 \({len(data)} bytes\).*{len(data) - 10} bytes"):
        open_vectors(tmp_path / "v.npy")


@pytest.mark.parametrize("name", ["v.npy", "v.parquet"])
@pytest.mark.parametrize("content", [b"", b"no such format at all"])
def test_other_files_are_refused(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=rf"{name}: not a"):
        open_vectors(tmp_path / name)


def test_missing_and_mixed_sources_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file or folder"):
        open_vectors(tmp_path / "none.npy")
    with pytest.raises(UserError, match=r"holds no \.npy or \.parquet files"):
        open_vectors(tmp_path)
    np.save(tmp_path / "a.npy", VECTORS)
    np.save(tmp_path / "b.npy", VECTORS[:, :3])
    with pytest.raises(UserError, match=r"b\.npy: its vectors have 3 dimensions, those of .*a\.npy have 4"):
        open_vectors(tmp_path)
    write_parquet(tmp_path / "c.parquet", VECTORS, "list")
    with pytest.raises(UserError, match="keep one kind"):
        open_vectors(tmp_path)


def test_parquet_columns_of_another_kind_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "v.parquet"
    write_parquet(path, VECTORS, "list")
    with pytest.raises(UserError, match="no column 'x'; columns that hold vectors: embedding"):
        open_vectors(path, "x")
    with pytest.raises(UserError, match="column 'id' is int64; expected a list"):
        open_vectors(path, "id")
    pq.write_table(pa.table({"a": [[1.0]], "b": [[2.0]]}), path)
    with pytest.raises(UserError, match="the `column` of vectors; candidates: a, b"):
        open_vectors(path)


def test_parquet_rows_of_other_lengths_and_nulls_are_named(tmp_path: Path) -> None:
    path = tmp_path / "v.parquet"
    pq.write_table(pa.table({"a": [[1.0, 2.0]] * 8 + [[1.0]]}), path, row_group_size=5)
    with pytest.raises(UserError, match="row 8 of column 'a' has 1 dimensions, the rows before it have 2"):
        list(open_vectors(path).slice(0, 9).blocks(3))
    pq.write_table(pa.table({"a": [[1.0, 2.0]] * 8 + [None]}), path, row_group_size=5)
    with pytest.raises(UserError, match="column 'a' is empty in row 8"):
        list(open_vectors(path).slice(0, 9).blocks(3))
