"""Balanced samples of clusterings, against a brute force and on planted clusters."""

import itertools
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

import clray
from clray.cli.app import app
from clray.clusters.curate import curate, share_evenly
from clray.clusters.saved import open_clustering
from clray.errors import UserError


@given(st.lists(st.integers(0, 6), min_size=1, max_size=5), st.data())
def test_shares_are_the_division_nearest_to_an_even_one(sizes: list[int], data: st.DataObject) -> None:
    total = data.draw(st.integers(0, sum(sizes)))
    shares = share_evenly(np.array(sizes), total, np.random.default_rng(0))
    assert shares.sum() == total
    assert (shares >= 0).all()
    assert (shares <= sizes).all()
    every = itertools.product(*(range(size + 1) for size in sizes))
    best = min(sum(share**2 for share in each) for each in every if sum(each) == total)
    assert (shares**2).sum() == best


@pytest.fixture(scope="module")
def nested(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two far groups of 4 and 2 blobs, of very different sizes: 6 fine clusters, 2 coarse ones."""
    rng = np.random.default_rng(0)
    sizes, centers = (900, 300, 60, 20, 200, 8), [(0, 0), (0, 9), (9, 0), (9, 9), (900, 900), (900, 909)]
    blobs = [rng.normal(center, 0.3, (size, 2)) for size, center in zip(sizes, centers, strict=True)]
    folder = tmp_path_factory.mktemp("nested") / "out"
    vectors = np.concatenate(blobs).astype(np.float32)
    np.save(folder.parent / "vectors.npy", vectors)
    clray.cluster(
        folder.parent / "vectors.npy", [6, 2], nested=True, use_ray=False, output=folder, num_redos=5, init="kmeans++"
    )  # fmt: skip
    return folder


def counts_of(rows: np.ndarray) -> list[int]:
    bounds = np.cumsum([0, 900, 300, 60, 20, 200, 8])
    return np.histogram(rows, bounds)[0].tolist()


def test_each_level_of_the_tree_gives_as_much_as_its_siblings(nested: Path) -> None:
    rows = curate(open_clustering(nested), 120)
    # 60 of each group: 15 of each of its 4 blobs; of the other 8, which is all, and the rest.
    assert counts_of(rows) == [15, 15, 15, 15, 52, 8]
    assert (np.diff(rows) > 0).all()
    flat = curate(open_clustering(nested), 120, num_clusters=6)
    assert counts_of(flat)[:5] == pytest.approx([22.4] * 3 + [20, 22.4], abs=1)
    assert counts_of(flat)[5] == 8


def test_a_sample_follows_the_seed_and_may_be_everything(nested: Path) -> None:
    clustering = open_clustering(nested)
    np.testing.assert_array_equal(curate(clustering, 50, seed=1), curate(clustering, 50, seed=1))
    assert not np.array_equal(curate(clustering, 50, seed=1), curate(clustering, 50, seed=2))
    np.testing.assert_array_equal(curate(clustering, 1488), np.arange(1488))


def test_what_cannot_be_sampled_is_refused(nested: Path, tmp_path: Path) -> None:
    clustering = open_clustering(nested)
    for number in (0, 1489):
        with pytest.raises(UserError, match=rf"num_samples must be between 1 and 1488 .*; got {number}"):
            curate(clustering, number)
    with pytest.raises(UserError, match="holds clusters for K = 6, 2; got 7"):
        curate(clustering, 5, num_clusters=7)
    clray.cluster(np.eye(8, dtype=np.float32), [2, 3], use_ray=False, output=tmp_path / "flat")
    with pytest.raises(UserError, match="K = 2, 3, which are not nested; name one of them"):
        curate(open_clustering(tmp_path / "flat"), 4)
    parents = nested / "k6" / "parents.npy"
    whole = parents.read_bytes()
    parents.write_bytes(whole[:-4])
    with pytest.raises(UserError, match=r"parents\.npy: damaged"):
        curate(clustering, 5)
    parents.write_bytes(whole)


def test_the_command_writes_rows_with_their_files(nested: Path, tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["curate", str(nested), "-n", "60", "-o", str(tmp_path / "sample.csv"), "--json"])
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert (told["rows"], told["clusters"]) == (60, 6)
    table = pd.read_csv(tmp_path / "sample.csv")
    assert list(table.columns) == ["row", "cluster", "file", "row_in_file"]
    np.testing.assert_array_equal(table["row"], curate(open_clustering(nested), 60))
    np.testing.assert_array_equal(table["cluster"], np.load(nested / "k6" / "assignments.npy")[table["row"]])
    assert set(table["file"]) == {str(nested.parent / "vectors.npy")}
    again = CliRunner().invoke(app, ["curate", str(nested), "-n", "60", "-o", str(tmp_path / "sample.csv")])
    assert "sample.csv exists; choose another file" in str(again.exception)
