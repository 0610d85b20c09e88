"""Near-duplicates that were planted are found, whatever the memory, and an interrupted search goes on."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import clray
from clray.clusters.saved import open_clustering
from clray.errors import UserError
from clray.kmeans import duplicates as module
from clray.kmeans.duplicates import duplicates

NUM, COPIES, DIM = 400, 60, 16


@pytest.fixture(scope="module")
def clustered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """400 vectors in two files, then copies of the first 60 with a little noise; clustered into 8."""
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(NUM, DIM)).astype(np.float32)
    copies = vectors[:COPIES] * 3 + rng.normal(scale=1e-3, size=(COPIES, DIM)).astype(np.float32)
    folder = tmp_path_factory.mktemp("clustered")
    (folder / "vectors").mkdir()
    np.save(folder / "vectors" / "a.npy", vectors)
    np.save(folder / "vectors" / "b.npy", copies)
    clray.cluster(folder / "vectors", 8, use_ray=False, spherical=True, output=folder / "out")
    return folder


def test_planted_copies_are_found_and_the_first_row_is_kept(clustered: Path, tmp_path: Path) -> None:
    groups: list[tuple[int, int]] = []
    found = duplicates(
        clustered / "out", cosine=0.99, use_ray=False, output=tmp_path / "out", memory="64MiB",
        on_group=lambda done, total: groups.append((done, total)),
    )  # fmt: skip
    assert groups[-1][0] == groups[-1][1] == 1
    np.testing.assert_array_equal(found.rows, np.arange(NUM, NUM + COPIES))
    np.testing.assert_array_equal(found.kept_rows, np.arange(COPIES))
    assert found.num_vectors == NUM + COPIES
    table, kept = (pd.read_csv(tmp_path / "out" / name) for name in ("duplicates.csv", "kept.csv"))
    assert list(table.columns) == ["row", "kept_row", "cosine", "cluster", "file", "row_in_file"]
    np.testing.assert_array_equal(table["row_in_file"], np.arange(COPIES))
    assert {Path(name).name for name in table["file"]} == {"b.npy"}
    np.testing.assert_array_equal(kept["row"], np.arange(NUM))
    assert sorted(path.name for path in (tmp_path / "out").iterdir() if path.name[0] != ".") == [
        "duplicates.csv", "duplicates.json", "kept.csv",
    ]  # fmt: skip


@pytest.fixture
def small_memory(monkeypatch: pytest.MonkeyPatch) -> int:
    """Of which a task has no more than the largest cluster needs, so that there are several."""
    monkeypatch.setattr(module, "BLOCK", 1)
    return 36 + 120 * DIM * 16


def test_small_memory_gives_the_same_and_an_interrupted_search_goes_on(
    clustered: Path, tmp_path: Path, small_memory: int
) -> None:
    whole = duplicates(clustered / "out", cosine=0.4, use_ray=False)
    done: list[int] = []

    def stop(number: int, total: int) -> None:
        assert total > 2
        done.append(number)
        if len(done) == 2:
            raise KeyboardInterrupt

    settings = {"cosine": 0.4, "use_ray": False, "memory": small_memory, "output": tmp_path / "out"}
    with pytest.raises(KeyboardInterrupt):
        duplicates(clustered / "out", on_group=stop, **settings)
    with pytest.raises(UserError, match="is not empty; resume it, or choose another folder"):
        duplicates(clustered / "out", **settings)
    with pytest.raises(UserError, match="was started with other vectors or settings"):
        duplicates(clustered / "out", resume=True, **{**settings, "cosine": 0.5})
    rest: list[int] = []
    found = duplicates(clustered / "out", resume=True, on_group=lambda number, _: rest.append(number), **settings)
    assert rest[0] == 3
    for name in ("rows", "kept_rows", "cosine"):
        np.testing.assert_array_equal(getattr(found, name), getattr(whole, name))
    with pytest.raises(UserError, match="is finished"):
        duplicates(clustered / "out", resume=True, **settings)


def test_an_interrupted_search_does_not_go_on_with_as_many_groups_of_other_clusters(
    clustered: Path, tmp_path: Path, small_memory: int
) -> None:
    ids = open_clustering(clustered / "out").ids(8)
    starts: dict[int, dict[tuple[int, ...], int]] = {}
    for memory in range(small_memory, 2 * small_memory, 256):
        groups = module._groups(ids, 8, DIM, memory)
        starts.setdefault(len(groups), {}).setdefault(tuple(int(each[0]) for each in groups), memory)
    one, other, *_ = next(each.values() for each in starts.values() if len(each) > 1)

    def stop(*_: int) -> None:
        raise KeyboardInterrupt

    settings = {"cosine": 0.4, "use_ray": False, "output": tmp_path / "out"}
    with pytest.raises(KeyboardInterrupt):
        duplicates(clustered / "out", on_group=stop, memory=one, **settings)
    with pytest.raises(UserError, match="was started with other vectors or settings"):
        duplicates(clustered / "out", resume=True, memory=other, **settings)


def test_what_cannot_be_searched_is_refused_before_anything_is_written(clustered: Path, tmp_path: Path) -> None:
    for settings, reason in (
        ({"cosine": 1.5}, "cosine: expected a similarity above 0 and at most 1; got 1.5"),
        ({"memory": "1MB"}, r"memory=.*: cluster \d needs .*; raise it, or cluster into more clusters"),
        ({"vectors": np.ones((3, DIM), np.float32)}, "holds 3, and 460 were clustered"),
        ({"num_clusters": 9}, "holds clusters for K = 8; got 9"),
        ({"resume": True, "output": None}, "name the output folder"),
    ):
        with pytest.raises(UserError, match=reason):
            duplicates(clustered / "out", **{"use_ray": False, "output": tmp_path / "out", **settings})
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_tasks_of_ray_find_the_same(clustered: Path, small_memory: int) -> None:
    here = duplicates(clustered / "out", cosine=0.4, use_ray=False)
    found = duplicates(clustered / "out", cosine=0.4, memory=small_memory)
    for name in ("rows", "kept_rows", "cosine"):
        np.testing.assert_array_equal(getattr(found, name), getattr(here, name))
