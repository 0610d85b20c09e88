import numpy as np
import pytest

from clray.clusters.chance import information_deviation_bits
from clray.clusters.statistics import cluster_statistics
from clray.clusters.worth import Look, judge


def labelled(name: str, told: float, held: float, ami: float = 0.5, deviation: float = 0.01) -> Look:
    figures = {
        "clusters/adjusted_mutual_information_bits": told,
        "clusters/conditional_entropy_bits": held,
        "clusters/ami": ami,
        "clusters/chance_deviation_bits": deviation,
    }
    return Look(name, figures)


def unlabelled(name: str, stability: float, silhouette: float) -> Look:
    return Look(name, {"clusters/first_stability": stability, "clusters/first_silhouette": silhouette})


def reasons(looks: list[Look], keep: float = 1.0) -> dict[str, str | None]:
    return {each.name: each.reason for each in judge(looks, keep=keep)}


def test_a_point_that_tells_less_and_holds_more_than_another_is_dominated_with_both_figures() -> None:
    found = reasons([labelled("k=10", 1.5, 1.0), labelled("k=50", 2.5, 2.7), labelled("k=500", 1.2, 5.5)])
    assert found["k=10"] is None
    assert found["k=50"] is None
    assert found["k=500"] == "dominated by k=50: I(Z;T) above chance 1.20 against 2.50, H(Z|T) 5.50 against 2.70"


def test_equal_points_do_not_dominate_each_other() -> None:
    assert set(reasons([labelled("a", 1.5, 1.0), labelled("b", 1.5, 1.0)]).values()) == {None}
    assert reasons([labelled("a", 1.5, 1.0), labelled("b", 1.5, 1.1)])["b"] is not None, "one of the two is enough"


def test_without_labels_stability_and_silhouette_decide() -> None:
    found = reasons([unlabelled("a", 0.8, 0.2), unlabelled("b", 0.6, 0.3), unlabelled("c", 0.5, 0.1)])
    assert (found["a"], found["b"]) == (None, None)
    assert found["c"] == "dominated by a: stability 0.50 against 0.80, silhouette 0.10 against 0.20"
    (empty,) = reasons([unlabelled("a", 0.02, 0.9)]).values()
    assert empty == "empty of information: stability 0.020, below 0.100"


@pytest.mark.parametrize(("keep", "kept"), [(1.0, {"a", "b", "c"}), (0.5, {"b", "c"}), (0.01, {"c"})])
def test_of_points_that_are_not_dominated_the_best_are_kept(keep: float, kept: set[str]) -> None:
    looks = [
        labelled("a", 1.0, 0.5, ami=0.4),
        labelled("b", 1.5, 1.0, ami=0.5),
        labelled("c", 2.0, 1.5, ami=0.6),
        labelled("d", 0.9, 2.0, ami=0.9),
    ]
    found = reasons(looks, keep)
    assert {name for name, reason in found.items() if reason is None} == kept
    if keep == 0.5:
        assert found["a"] == "not among the 2 best by AMI: 0.40, b 0.50"


def test_a_point_without_figures_is_kept() -> None:
    assert reasons([Look("a", {}), labelled("b", 2.0, 1.0)], 0.5)["a"] is None


@pytest.mark.parametrize("num_clusters", [2, 10, 100, 400])
def test_the_deviation_of_chance_is_that_of_many_random_clusters(num_clusters: int) -> None:
    generator = np.random.default_rng(0)
    t = generator.integers(0, 10, 1000)
    z = generator.integers(0, num_clusters, 1000)
    told = [cluster_statistics(generator.permutation(z), t).mutual_information_bits for _ in range(200)]
    assert information_deviation_bits(z, t) == pytest.approx(np.std(told), rel=0.5)


def test_clusters_that_tell_no_more_than_chance_are_empty() -> None:
    found = reasons([labelled("a", 0.02, 1.0), labelled("b", 0.3, 1.1)])
    assert found == {"a": "empty of information: I(Z;T) above chance 0.020, below 0.040", "b": None}
