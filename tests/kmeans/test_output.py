import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow.parquet as pq
import pytest

from clray.clusters.saved import read_assignment
from clray.errors import UserError
from clray.kmeans.lloyd import Clustering, Descent
from clray.kmeans.output import State, check_disk, check_output, read_state, write_clusterings, write_state
from clray.kmeans.vectors.source import open_vectors

IDS = np.array([0, 2, 1, -1, 2], np.int32)
FINE, COARSE = (
    Clustering(np.eye(3, dtype=np.float32), IDS, 1.5, [2.0, 1.5]),
    Clustering(np.eye(2, 3, dtype=np.float32), np.minimum(IDS, 1), 3.0, [3.0]),
)


def test_each_granularity_is_found_again(tmp_path: Path) -> None:
    summary = write_clusterings(tmp_path, [FINE, COARSE], {}, parents=[np.array([0, 1, 1], np.int32)])
    np.testing.assert_array_equal(read_assignment(tmp_path, 3), FINE.ids)
    np.testing.assert_array_equal(read_assignment(tmp_path, 2), COARSE.ids)
    assert np.load(tmp_path / "k3" / "parents.npy").tolist() == [0, 1, 1]
    assert summary["nested"]
    with pytest.raises(UserError, match="holds clusters for K = 3, 2; got 4"):
        read_assignment(tmp_path, 4)


def test_the_table_names_file_and_row_of_each_vector(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    np.save(tmp_path / "in" / "a.npy", np.zeros((3, 2), np.float32))
    np.save(tmp_path / "in" / "b.npy", np.zeros((2, 2), np.float32))
    write_clusterings(tmp_path / "out", [FINE], {}, table_of=open_vectors(tmp_path / "in"))
    rows = pq.read_table(tmp_path / "out" / "assignments.parquet").to_pylist()
    assert [(Path(row["file"]).name, row["row"], row["cluster"]) for row in rows] == [
        ("a.npy", 0, 0),
        ("a.npy", 1, 2),
        ("a.npy", 2, 1),
        ("b.npy", 0, -1),
        ("b.npy", 1, 2),
    ]


def test_a_state_is_read_back_as_it_was(tmp_path: Path) -> None:
    descents = [Descent(0, FINE.centroids, [2.0]), Descent(1, COARSE.centroids, [3.0, 2.5], True)]
    write_state(tmp_path, State(descents, np.ones(3)), {"seed": 1})
    state, about = read_state(tmp_path)
    assert about == {"seed": 1}
    np.testing.assert_array_equal(state.origin, np.ones(3))
    for one, other in zip(state.descents, descents, strict=True):
        np.testing.assert_array_equal(one.centroids, other.centroids)
        assert (one.redo, one.history, one.is_done) == (other.redo, other.history, other.is_done)
    assert [path.name for path in tmp_path.iterdir()] == ["state.npz"]
    check_output(tmp_path, resume=True, fingerprint={"seed": 1})


def test_nothing_is_resumed_where_nothing_is(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no interrupted clustering"):
        check_output(tmp_path, resume=True, fingerprint={})
    (tmp_path / "state.npz").write_bytes(b"half a file")
    with pytest.raises(UserError, match=r"state\.npz is damaged"):
        check_output(tmp_path, resume=True, fingerprint={})
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="is a file; choose a folder"):
        check_output(tmp_path / "file", resume=False, fingerprint={})


def test_too_little_disk_is_refused_with_the_figure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=10**6))
    with pytest.raises(UserError, match=r"401 MB are needed for .*new, 1 MB are free"):
        check_disk(tmp_path / "new", 10**8, [100], 1, 8)
