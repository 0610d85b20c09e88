"""What became of clusters between two states."""

from pathlib import Path

import numpy as np

from clray.report.look.changes import changes_between, stored_changes
from clray.report.look.versus import compare
from clray.training.checkpoint import read_checkpoint


def test_tells_what_became_of_each_cluster() -> None:
    before = np.repeat([0, 1, 2, 3, 4, 5], 100)
    wholes = (np.full(100, number) for number in (8, 9, 9))
    after = np.r_[np.full(100, 0), np.repeat([1, 7], 50), *wholes, np.arange(100) % 10 + 20]
    found = changes_between(before, after, "epoch 1", "epoch 2")
    assert [change.kind for change in found.clusters] == ["kept", "split", "renamed", "renamed", "renamed", "dissolved"]
    merged = changes_between(np.repeat([0, 1], [100, 900]), np.full(1000, 1), "a", "b")
    assert [change.kind for change in merged.clusters] == ["merged", "kept"]
    assert found.clusters[1].parts == ((1, 0.5), (7, 0.5))
    assert found.moved_fraction == (50 + 100 + 100 + 100 + 100) / 600


def test_the_states_that_a_run_has_kept_are_compared(run_folder: Path) -> None:
    newest = read_checkpoint(run_folder)
    found = stored_changes(run_folder, newest)
    assert found is not None
    assert (found.earlier, found.later) == ("epoch 3", "epoch 4")
    assert sum(change.size for change in found.clusters) == newest["cluster_ids"].shape[1]


def test_a_run_that_kept_one_state_tells_of_no_changes(run_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "checkpoint.1.pt").write_bytes(b"damaged")
    assert stored_changes(tmp_path, read_checkpoint(run_folder)) is None


def test_two_clusterings_are_compared_cluster_by_cluster() -> None:
    first, second = np.repeat([0, 2], 10), np.r_[np.repeat([5, 6], [7, 3]), np.full(10, 5)]
    found = compare(first, second)
    assert found.parts == {0: ((5, 0.7), (6, 0.3)), 2: ((5, 1.0),)}
    assert compare(first, first + 3).ari == 1
