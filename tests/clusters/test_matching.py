import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.optimize import linear_sum_assignment
from scipy.sparse import csr_array

from clray.clusters import matching
from clray.clusters.statistics import cluster_metrics


@settings(deadline=None, max_examples=100)
@given(
    st.tuples(st.integers(1, 60), st.integers(1, 5)).flatmap(
        lambda shape: arrays(np.int64, shape, elements=st.integers(0, 9))
    )
)
def test_few_clusters_of_each_label_match_as_well_as_all(table: np.ndarray) -> None:
    table = table[:, table.sum(axis=0) > 0]
    if table.size == 0:
        return
    rows, columns = linear_sum_assignment(table, maximize=True)
    expected = table[rows, columns].sum() / table.sum()
    assert matching.matched_fraction(csr_array(table)) == pytest.approx(expected)


def test_renamed_labels_match_whole_and_instances_one_a_label() -> None:
    labels = np.arange(40) % 4
    assert cluster_metrics(3 - labels, labels)["clusters/hungarian_accuracy"] == 1
    assert cluster_metrics(np.arange(40), labels)["clusters/hungarian_accuracy"] == 4 / 40


def test_a_huge_table_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matching, "LARGEST_TABLE", 15)
    labels = np.arange(40) % 4
    assert "clusters/hungarian_accuracy" not in cluster_metrics(labels, labels)
