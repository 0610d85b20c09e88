import numpy as np
import pytest

from clray.clusters.statistics import ClusterStatistics, cluster_statistics
from clray.clusters.synthetic import synthetic_clusters
from clray.errors import UserError

LABELS = np.random.default_rng(0).permutation(np.repeat(np.arange(8), 500))


def statistics(**options: object) -> ClusterStatistics:
    chosen = {"num_merged": None, "num_splits": 1, "permuted_fraction": 0.0, "seed": 1, **options}
    return cluster_statistics(synthetic_clusters(LABELS, **chosen).ids, LABELS)


def test_nothing_asked_for_gives_the_labels() -> None:
    found = statistics()
    assert (found.mutual_information_bits, found.conditional_entropy_bits) == pytest.approx((3.0, 0.0))


@pytest.mark.parametrize(("num_merged", "bits"), [(4, 2.0), (2, 1.0), (1, 0.0)])
def test_merging_moves_along_the_lower_edge(num_merged: int, bits: float) -> None:
    found = statistics(num_merged=num_merged)
    assert (found.mutual_information_bits, found.conditional_entropy_bits) == pytest.approx((bits, 0.0), abs=1e-9)


def test_splitting_raises_what_the_labels_do_not_explain() -> None:
    found = statistics(num_splits=4)
    assert found.mutual_information_bits == pytest.approx(3.0)
    assert found.conditional_entropy_bits == pytest.approx(2.0, abs=0.01)


def test_permuting_keeps_the_entropy_and_loses_information() -> None:
    plain, half, all_of_them = (statistics(permuted_fraction=share) for share in (0.0, 0.5, 1.0))
    assert half.entropy_bits == pytest.approx(plain.entropy_bits)
    assert plain.mutual_information_bits > half.mutual_information_bits > all_of_them.mutual_information_bits
    assert all_of_them.mutual_information_bits < 0.05


def test_more_merged_clusters_than_classes_are_refused() -> None:
    with pytest.raises(UserError, match=r"clusters\.num_merged must be at most 8 .* got 9"):
        statistics(num_merged=9)
