import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn import metrics

from clray.clusters.statistics import agreement, cluster_metrics, cluster_statistics, entropy_bits


@settings(deadline=None, max_examples=50)
@given(st.integers(1, 60).flatmap(lambda n: st.tuples(*(arrays(np.int64, n, elements=st.integers(0, 7)),) * 2)))
def test_agrees_with_scikit_learn(pair: tuple[np.ndarray, np.ndarray]) -> None:
    z, t = pair
    found = cluster_statistics(z, t)
    assert found.mutual_information_bits == pytest.approx(metrics.mutual_info_score(t, z) / np.log(2), abs=1e-9)
    if len(np.unique(z)) > 1 or len(np.unique(t)) > 1:
        assert found.nmi == pytest.approx(metrics.normalized_mutual_info_score(t, z), abs=1e-9)
    table = metrics.cluster.contingency_matrix(t, z)
    assert found.purity == pytest.approx(table.max(axis=0).sum() / len(z))


@settings(deadline=None, max_examples=50)
@given(st.integers(1, 60).flatmap(lambda n: st.tuples(*(arrays(np.int64, n, elements=st.integers(0, 7)),) * 2)))
def test_identities_hold(pair: tuple[np.ndarray, np.ndarray]) -> None:
    z, t = pair
    s = cluster_statistics(z, t)
    assert s.entropy_bits == pytest.approx(s.mutual_information_bits + s.conditional_entropy_bits)
    assert s.label_entropy_bits == pytest.approx(s.mutual_information_bits + s.label_conditional_entropy_bits)
    assert 0 <= s.mutual_information_bits <= min(s.entropy_bits, s.label_entropy_bits) + 1e-12
    assert s.mutual_information_bits == pytest.approx(cluster_statistics(t, z).mutual_information_bits)
    assert 1 - 1e-12 <= s.imbalance_factor <= s.num_nonempty + 1e-12


def test_labels_as_clusters_sit_at_h_t_and_zero() -> None:
    labels = np.repeat(np.arange(8), 5)
    s = cluster_statistics(labels, labels)
    assert (s.mutual_information_bits, s.conditional_entropy_bits) == (pytest.approx(3.0), pytest.approx(0.0))
    assert (s.nmi, s.purity, s.imbalance_factor) == (pytest.approx(1.0),) * 3


def test_instance_clusters_sit_at_h_t_and_the_rest_of_log_n() -> None:
    labels = np.arange(64) % 4
    s = cluster_statistics(np.arange(64), labels)
    assert s.mutual_information_bits == pytest.approx(2.0)
    assert s.conditional_entropy_bits == pytest.approx(6.0 - 2.0)


def test_independent_clusters_tell_nothing() -> None:
    z, t = np.meshgrid(np.arange(4), np.arange(8))
    s = cluster_statistics(z.ravel(), t.ravel())
    assert s.mutual_information_bits == pytest.approx(0.0, abs=1e-12)
    assert s.conditional_entropy_bits == pytest.approx(2.0)


def test_empty_clusters_count_in_the_imbalance_only() -> None:
    ids = np.array([0, 0, 1, 1])
    s = cluster_statistics(ids, ids, num_clusters=4)
    assert (s.num_clusters, s.num_nonempty) == (4, 2)
    assert s.imbalance_factor == pytest.approx(2.0)


@settings(deadline=None, max_examples=50)
@given(st.integers(1, 60).flatmap(lambda n: st.tuples(*(arrays(np.int64, n, elements=st.integers(0, 7)),) * 2)))
def test_agreement_is_the_adjusted_rand_index_of_scikit_learn(pair: tuple[np.ndarray, np.ndarray]) -> None:
    assert agreement(*pair) == pytest.approx(metrics.adjusted_rand_score(*pair), abs=1e-9)


def test_entropy_of_a_fair_coin_is_one_bit() -> None:
    assert entropy_bits(np.array([0, 1])) == pytest.approx(1.0)


def test_refuses_no_samples() -> None:
    with pytest.raises(ValueError, match="one cluster id per label"):
        cluster_statistics(np.array([], np.int64), np.array([], np.int64))


def dense(z: np.ndarray, t: np.ndarray) -> tuple[float, float, float]:
    """I(Z;T), purity and ARI from the whole table, by scikit-learn's pairs."""
    table = np.zeros((z.max() + 1, t.max() + 1), np.int64)
    np.add.at(table, (z, t), 1)
    p = table / table.sum()
    outer = p.sum(axis=1, keepdims=True) * p.sum(axis=0, keepdims=True)
    seen = p > 0
    mutual = float((p[seen] * np.log2(p[seen] / outer[seen])).sum())
    return mutual, table.max(axis=1).sum() / len(z), metrics.adjusted_rand_score(t, z)


@settings(deadline=None, max_examples=50)
@given(
    st.integers(2, 200).flatmap(
        lambda n: st.tuples(*(arrays(np.int32, n, elements=st.integers(0, top)) for top in (3 * n, 9)))
    )
)
def test_sparse_counts_are_those_of_the_dense_table(pair: tuple[np.ndarray, np.ndarray]) -> None:
    z, t = pair
    found = cluster_statistics(z, t)
    mutual, purity, ari = dense(z, t)
    assert found.mutual_information_bits == pytest.approx(mutual, abs=1e-12)
    assert found.purity == pytest.approx(purity, abs=1e-12)
    assert found.ari == pytest.approx(ari, abs=1e-12)


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 60).flatmap(lambda n: st.tuples(*(arrays(np.int64, n, elements=st.integers(0, 7)),) * 2)))
def test_far_negative_and_narrow_ids_count_the_same(pair: tuple[np.ndarray, np.ndarray]) -> None:
    z, t = pair
    found = cluster_statistics(z, t)
    for moved in (z * 10**12 - 5, (z * 5).astype(np.int32), z.astype(np.int8)):
        for name, value in cluster_statistics(moved, t).as_metrics().items():
            assert value == pytest.approx(found.as_metrics()[name], abs=1e-12)


@given(st.integers(1, 60).flatmap(lambda n: st.tuples(*(arrays(np.int64, n, elements=st.integers(0, 7)),) * 2)))
def test_what_labels_do_not_tell_is_left_out(pair: tuple[np.ndarray, np.ndarray]) -> None:
    z, t = pair
    whole = cluster_statistics(z, t).as_metrics()
    assert cluster_metrics(z, t) == whole
    nothing = cluster_metrics(z, np.full(len(z), -1))
    assert nothing.keys() == {f"clusters/{name}" for name in BALANCE}
    assert nothing.items() <= whole.items()
    hidden = np.where(np.arange(len(t)) % 3 == 1, -1, t)
    found, known = cluster_metrics(z, hidden), hidden >= 0
    assert nothing.items() <= found.items()
    told = cluster_statistics(z[known], t[known]).as_metrics()
    assert all(found[name] == value for name, value in told.items() if name not in nothing)
    assert found.get("clusters/num_labelled", len(z)) == known.sum()


BALANCE = ("num_clusters", "num_nonempty", "entropy_bits", "imbalance_factor")
