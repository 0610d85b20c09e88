import numpy as np
import pytest

from clray.clusters.assignment import ClusterAssignment


def test_sizes_count_empty_clusters_too() -> None:
    assert ClusterAssignment(np.array([0, 2, 2]), 4, "kmeans").sizes.tolist() == [1, 0, 2, 0]


def test_moved_fraction_is_the_share_of_changed_ids() -> None:
    old, new = (ClusterAssignment(np.array(ids), 3, "kmeans") for ids in ([0, 1, 2, 2], [0, 1, 1, 0]))
    assert new.moved_fraction(old) == 0.5


@pytest.mark.parametrize("ids", [np.array([0, 3]), np.array([-1, 0])])
def test_ids_out_of_range_are_refused(ids: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"must be in 0\.\.2"):
        ClusterAssignment(ids, 3, "kmeans")


def test_fractional_ids_are_refused() -> None:
    with pytest.raises(ValueError, match="must be integers"):
        ClusterAssignment(np.array([0.0, 1.0]), 2, "kmeans")


@pytest.mark.parametrize("dtype", [np.int8, np.int32, np.int64, np.uint64])
def test_ids_are_held_in_four_bytes_whatever_they_come_in(dtype: type) -> None:
    assignment = ClusterAssignment(np.array([0, 2, 2], dtype), 3, "kmeans")
    assert assignment.ids.dtype == np.int32
    assert assignment.ids.tolist() == [0, 2, 2]
