from pathlib import Path

import numpy as np
import pytest

from clray.config import UserError
from clray.kmeans.vectors import open_npy, split_rows


def test_rows_are_covered_once_and_evenly() -> None:
    bounds = split_rows(10, 3)
    assert [row for start, stop in bounds for row in range(start, stop)] == list(range(10))
    assert max(b - a for a, b in bounds) - min(b - a for a, b in bounds) <= 1
    assert len(split_rows(2, 5)) == 2


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros(5, np.float32), r"expected vectors of shape \[N, dim\].*got \[5\]"),
        (np.zeros((0, 4), np.float32), r"got \[0, 4\]"),
        (np.zeros((3, 4), np.int64), "got int64"),
        (np.array([[0.0, 1.0], [np.nan, 0.0]]), "row 1 holds NaN"),
    ],
)
def test_unusable_vectors_are_refused(tmp_path: Path, array: np.ndarray, message: str) -> None:
    np.save(tmp_path / "v.npy", array)
    with pytest.raises(UserError, match=message):
        open_npy(tmp_path / "v.npy")


def test_a_truncated_file_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "v.npy", np.zeros((100, 4), np.float32))
    data = (tmp_path / "v.npy").read_bytes()
    (tmp_path / "v.npy").write_bytes(data[: len(data) // 2])
    with pytest.raises(UserError, match=r"not a complete \.npy file"):
        open_npy(tmp_path / "v.npy")


def test_pickles_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "v.npy", np.array([{"a": 1}], object), allow_pickle=True)
    with pytest.raises(UserError, match=r"not a complete \.npy file of numbers"):
        open_npy(tmp_path / "v.npy")
