"""Chance agreement against scikit-learn, and against ids that are really permuted."""

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn import metrics
from sklearn.metrics.cluster import contingency_matrix, expected_mutual_information

from clray.clusters.chance import expected_information_bits
from clray.clusters.known import rank_attributes
from clray.clusters.statistics import cluster_statistics, entropy_bits

PAIRS = st.integers(2, 80).flatmap(lambda n: st.tuples(*(arrays(np.int64, n, elements=st.integers(0, 9)),) * 2))


def expected(z: np.ndarray, t: np.ndarray) -> float:
    return expected_information_bits(np.unique(z, return_counts=True)[1], np.unique(t, return_counts=True)[1])


@settings(deadline=None, max_examples=80)
@given(PAIRS)
def test_agrees_with_scikit_learn(pair: tuple[np.ndarray, np.ndarray]) -> None:
    z, t = pair
    reference = expected_mutual_information(contingency_matrix(t, z), len(z)) / np.log(2)
    assert expected(z, t) == pytest.approx(reference, abs=1e-9)
    found = cluster_statistics(z, t)
    assert found.ari == pytest.approx(metrics.adjusted_rand_score(t, z), abs=1e-9)
    assert found.ami == pytest.approx(metrics.adjusted_mutual_info_score(t, z), abs=1e-7)
    assert found.adjusted_mutual_information_bits == pytest.approx(found.mutual_information_bits - reference, abs=1e-9)


@pytest.mark.parametrize(("num_clusters", "n"), [(1000, 2000), (1000, 10_000), (3, 10_000)])
def test_agrees_with_scikit_learn_for_many_and_for_large_clusters(num_clusters: int, n: int) -> None:
    generator = np.random.default_rng(0)
    z, t = generator.integers(0, num_clusters, n), generator.integers(0, 10, n)
    reference = expected_mutual_information(contingency_matrix(t, z), n) / np.log(2)
    assert expected(z, t) == pytest.approx(reference, abs=1e-9)


def test_is_the_mean_over_permuted_ids() -> None:
    generator = np.random.default_rng(0)
    z, t = generator.integers(0, 60, 400) ** 2 // 60, generator.integers(0, 5, 400)
    drawn = [cluster_statistics(generator.permutation(z), t).mutual_information_bits for _ in range(300)]
    deviation = np.std(drawn) / np.sqrt(len(drawn))
    assert expected(z, t) == pytest.approx(np.mean(drawn), abs=4 * deviation)


@pytest.mark.parametrize("n", [60, 50_000])
def test_instance_clusters_tell_nothing_above_chance(n: int) -> None:
    labels = np.arange(n) % 7
    found = cluster_statistics(np.arange(n), labels)
    assert found.mutual_information_bits == pytest.approx(entropy_bits(labels))
    assert found.adjusted_mutual_information_bits == pytest.approx(0, abs=1e-9)
    assert (found.ami, found.ari) == (pytest.approx(0, abs=1e-9), pytest.approx(0, abs=1e-12))


def test_random_clusters_tell_nothing_above_chance() -> None:
    generator = np.random.default_rng(1)
    z, t = generator.integers(0, 1000, 2000), generator.integers(0, 10, 2000)
    found = cluster_statistics(z, t)
    assert found.mutual_information_bits > 2
    assert abs(found.adjusted_mutual_information_bits) < 0.03


def test_a_clustering_of_fifty_thousand_images_takes_a_moment() -> None:
    generator = np.random.default_rng(2)
    z, t = generator.zipf(1.3, 50_000) % 1000, generator.integers(0, 10, 50_000)
    start = time.process_time()
    expected(z, t)
    assert time.process_time() - start < 1


def test_attributes_of_equal_entropy_are_ranked_by_name_whatever_the_rounding() -> None:
    generator = np.random.default_rng(3)
    counts = generator.integers(1, 50, 12)
    columns = {f"a{n:02}": np.repeat(np.arange(12), generator.permutation(counts)) for n in range(30)}
    assert [name for name, _ in rank_attributes(columns)] == sorted(columns)
