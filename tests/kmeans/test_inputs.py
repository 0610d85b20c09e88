"""Vectors and numbers of every wrong kind: refused by name, quickly, with the way out; those that will do are taken."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from scipy import sparse

from clray.errors import UserError
from clray.kmeans.engine import cluster
from clray.kmeans.vectors.source import open_vectors

VECTORS = np.random.default_rng(0).normal(size=(50, 4)).astype(np.float32)
MASKED = np.ma.masked_array(VECTORS, mask=np.arange(200).reshape(50, 4) == 9)


@pytest.mark.parametrize(
    ("vectors", "message"),
    [
        (MASKED, "a masked array, of which 1 values are masked"),
        (VECTORS.astype(int), r'got int64. Convert with vectors.astype\("float32"\)'),
        (VECTORS > 0, "got bool. Convert"),
        (VECTORS.astype(complex), "expected float16.* got complex128"),
        (VECTORS.astype(np.longdouble), "expected float16.* got float128"),
        (VECTORS.astype(object), "got object"),
        (VECTORS.astype(str), "expected float16.* got <U"),
        (np.float32(3), r"shape \[N, dim\].* got \[\]"),
        (VECTORS[0], r"got \[4\]"),
        (VECTORS[None], r"got \[1, 50, 4\]"),
        (VECTORS[:0], r"got \[0, 4\]"),
        (VECTORS[:, :0], r"got \[50, 0\]"),
        ([], r"got \[0\]"),
        ([[1.0, 2.0], [3.0]], "a list that is no array of numbers"),
        ({"a": 1}, "expected an array of floats or the path of a file; got a dict"),
        (object(), "got a object"),
        (None, "got a NoneType"),
        (sparse.csr_array(VECTORS), "got a csr_array"),
        (pd.DataFrame({"a": [1.0], "b": ["x"]}), "got object"),
        (torch.ones(5, 3, dtype=torch.int64), "got int64"),
        (torch.empty(5, 3, device="meta"), "a Tensor that is no array of numbers"),
    ],
)  # fmt: skip
def test_what_is_no_array_of_floats_is_refused_by_name(vectors: Any, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        cluster(vectors, 3, use_ray=False)
    assert " at 0x" not in str(caught.value)


@pytest.mark.parametrize(
    "vectors",
    [
        VECTORS.astype(">f4"),
        np.asfortranarray(VECTORS),
        np.ma.masked_array(VECTORS, mask=False),
        pd.DataFrame(VECTORS),
        torch.from_numpy(VECTORS).requires_grad_(),
        VECTORS.repeat(2, axis=0)[::2],
        VECTORS.astype(np.float64).tolist(),
    ],
)
def test_whatever_holds_the_same_floats_gives_the_same_clusters(vectors: Any) -> None:
    np.testing.assert_array_equal(
        cluster(vectors, 5, use_ray=False).ids, cluster(VECTORS, 5, use_ray=False).ids
    )  # fmt: skip


@pytest.mark.parametrize(
    "count", [np.int64(3), np.uint8(3), [np.int32(3)], np.array([3]), np.array(3), (3,), range(3, 4)]
)
def test_whole_numbers_of_any_kind_will_do(count: Any) -> None:
    assert len(cluster(VECTORS, count, use_ray=False, seed=np.int64(2**40)).centroids) == 3


@pytest.mark.parametrize("count", [True, np.True_, 3.0, np.float64(3), "3", None, object(), [3, 2.5], [True], {"k": 3}])
def test_other_numbers_of_clusters_are_refused(count: Any) -> None:
    with pytest.raises(UserError, match="num_clusters: expected a whole number, or several; got") as caught:
        cluster(VECTORS, count, use_ray=False)
    assert " at 0x" not in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_clusters": -1}, "between 1 and 50"),
        ({"seed": -1}, "seed must be greater than or equal to 0; got -1"),
        ({"seed": 1.5}, "seed must be a whole number; got 1.5"),
        ({"seed": True}, "seed must be a whole number; got True"),
        ({"seed": None}, "seed must be a whole number; got None"),
        ({"num_iterations": "5"}, "num_iterations must be a whole number; got '5'"),
        ({"num_redos": 0}, "num_redos must be greater than or equal to 1"),
        ({"tolerance": np.nan}, "tolerance must be .*; got nan"),
        ({"tolerance": np.inf}, "tolerance must be a finite number; got inf"),
        ({"tolerance": "small"}, "tolerance must be a number; got 'small'"),
        ({"init": "kmeans"}, "init must be 'random', 'kmeans\\+\\+', 'afk-mc2' or 'kmeans-parallel'; got 'kmeans'"),
        ({"assign_method": object()}, "assign_method must be .*; got a object"),
        ({"num_iteration": 5}, "unknown option 'num_iteration'. Did you mean 'num_iterations'"),
        ({"memory_per_shard": object()}, "memory_per_shard"),
        ({"initial": "zeros"}, "initial: expected float16.* got <U5"),
        ({"initial": 3}, "initial: .* got int64"),
        ({"initial": object()}, "initial: .*got a object"),
        ({"initial": np.ma.masked_array(VECTORS[:5], mask=True)}, "initial: a masked array, of which 20 values"),
        ({"initial": [VECTORS[:5], VECTORS[:5]]}, r"expected centroids of shapes \[\(5, 4\)\]; got"),
        ({"initial": np.full((5, 4), 1e30)}, "initial: .* above the bound of 1e\\+35"),
        ({"output": "v\0.out"}, "v"),
    ],
)  # fmt: skip
def test_settings_of_the_wrong_kind_are_refused_by_name(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        cluster(VECTORS, **{"num_clusters": 5, "use_ray": False, **settings})
    assert " at 0x" not in str(caught.value)


def header(shape: str, descr: str = "'<f4'") -> bytes:
    text = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}".encode()
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (header("(-5, 4)"), r"expected vectors of shape \[N, dim\]; got \[-5, 4\]"),
        (header("(5, -4)"), r"got \[5, -4\]"),
        (header("(10**9, 4)"), "not a .npy file, or one with a damaged header"),
        (header("(1000000000000000000000, 4)"), "truncated; its header promises 1000000000000000000000 x 4"),
        (header("()"), r"got \[\]"),
        (header("(5,"), "damaged header"),
        (header("[[["), "damaged header"),
        (header("(5, 4)", "'|O'"), "got object"),
        (header("(5, 4)", "[('a', '<f4')]"), "expected float16"),
        (header("(5, 4)", "'<c8'"), "got complex64"),
        (header("(5, 4)", "'nonsense'"), "damaged header"),
        (b"\x93NUMPY\x07\x07" + b"\0" * 100, "damaged header: format version 7.7"),
        (b"\x93NUMPY\x01\x00\xff\xff" + b"(" * 65535, "damaged header"),
        (b"\x93NUMPY", "damaged header"),
        (b"PK\x03\x04", "damaged header"),
    ],
)  # fmt: skip
def test_npy_files_with_damaged_headers_are_refused(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "v.npy").write_bytes(content)
    with pytest.raises(UserError, match=message):
        open_vectors(tmp_path / "v.npy")


@pytest.mark.parametrize("suffix", ["npy", "parquet"])
def test_pipes_devices_and_folders_in_place_of_files_are_refused_at_once(tmp_path: Path, suffix: str) -> None:
    os.mkfifo(tmp_path / f"pipe.{suffix}")
    (tmp_path / f"device.{suffix}").symlink_to("/dev/zero")
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / f"folder.{suffix}").mkdir()
    (tmp_path / f"broken.{suffix}").symlink_to(tmp_path / "nowhere")
    for name in (f"pipe.{suffix}", f"device.{suffix}"):
        with pytest.raises(UserError, match=f"^{tmp_path}/{name}: expected a file; got a pipe, socket or device"):
            open_vectors(tmp_path / name)
    with pytest.raises(UserError, match=f"folder.{suffix}: expected a file; got a folder"):
        open_vectors(tmp_path / "in")
    with pytest.raises(UserError, match="no such file"):
        open_vectors(tmp_path / f"broken.{suffix}")
    for name in ("x" * 300 + ".npy", "a\0b.npy"):
        with pytest.raises(UserError):
            open_vectors(tmp_path / name)


def test_files_cut_while_they_are_read_are_named(tmp_path: Path) -> None:
    np.save(tmp_path / "v.npy", VECTORS)
    opened = open_vectors(tmp_path / "v.npy")
    os.truncate(tmp_path / "v.npy", 300)
    for read in (lambda: list(opened.slice(0, 50).blocks(50)), lambda: opened.slice(0, 50).take(np.array([49]))):
        with pytest.raises(UserError, match=r"v\.npy: "):
            read()
    (tmp_path / "v.npy").unlink()
    with pytest.raises(UserError, match=r"v\.npy: cannot be read"):
        list(opened.slice(0, 50).blocks(50))


def test_damaged_pages_of_parquet_are_named(tmp_path: Path) -> None:
    path = tmp_path / "v.parquet"
    pq.write_table(pa.table({"v": VECTORS.tolist()}), path, compression="zstd")
    data = bytearray(path.read_bytes())
    data[30:200] = b"\xff" * 170
    path.write_bytes(data)
    with pytest.raises(UserError, match=r"v\.parquet: "):
        list(open_vectors(path).slice(0, 50).blocks(50))


def test_parquet_shards_of_other_columns_or_types_are_named(tmp_path: Path) -> None:
    pq.write_table(pa.table({"v": VECTORS.tolist()}), tmp_path / "a.parquet")
    pq.write_table(pa.table({"w": VECTORS.tolist()}), tmp_path / "b.parquet")
    with pytest.raises(UserError, match=r"b\.parquet: no column 'v'; columns that hold vectors: w"):
        open_vectors(tmp_path)
    pq.write_table(pa.table({"v": np.arange(50)}), tmp_path / "b.parquet")
    with pytest.raises(UserError, match=r"b\.parquet: column 'v' is int64; expected a list"):
        open_vectors(tmp_path)
    pq.write_table(pa.table({"v": VECTORS[:, :3].tolist()}), tmp_path / "b.parquet")
    with pytest.raises(UserError, match=r"b\.parquet: its vectors have 3 dimensions"):
        open_vectors(tmp_path)


def test_a_null_within_a_vector_is_missing(tmp_path: Path) -> None:
    rows = VECTORS.tolist()
    rows[7][2] = None
    pq.write_table(pa.table({"v": rows}), tmp_path / "v.parquet")
    with pytest.raises(UserError, match=r"1 of 50 vectors cannot be clustered: .*row 7 holds NaN"):
        cluster(tmp_path / "v.parquet", 3, use_ray=False)
