"""What a page says of clusters, against counts by hand and slow references."""

import numpy as np
import pytest

from clray.report.look.opened import as_unit, choose_rows
from clray.report.look.portrait import Attributes, centroids_of, doubts, enriched, largest, main_classes, portray

DRAW = np.random.default_rng(0)


def test_the_main_classes_are_the_most_frequent_of_those_with_a_label() -> None:
    members = np.array([0, 0, 0, 0, 1, 1, -1])
    labels = np.array([2, 2, 0, -1, 1, -1, 0])
    first, second = main_classes(members, labels, ("a", "b", "c"), 2)
    assert [(share.name, share.share) for share in first] == [("c", pytest.approx(2 / 3)), ("a", pytest.approx(1 / 3))]
    assert [(share.name, share.share) for share in second] == [("b", 1.0)]
    assert main_classes(members, np.full(7, -1), (), 2) == [(), ()]


def test_a_value_is_enriched_where_it_is_more_frequent_than_chance_makes_it() -> None:
    members = np.repeat([0, 1], 500)
    typical = np.r_[np.zeros(400), np.ones(100), np.zeros(100), np.ones(400)].astype(np.int32)
    even = np.tile([0, 1], 500).astype(np.int32)
    found = enriched(
        members, Attributes({"c": typical, "e": even}, {"c": ("x", "y"), "e": ("u", "v")}), np.array([500, 500])
    )
    assert [[(value.name, value.support, value.share, value.lift) for value in each] for each in found] == [
        [("c: x", 400, 0.8, 1.6)],
        [("c: y", 400, 0.8, 1.6)],
    ]


def test_of_a_column_of_lists_only_presence_is_told() -> None:
    members = np.repeat([0, 1], 100)
    codes = Attributes({"has=wing": members.astype(np.int32)}, {"has=wing": ("no", "yes")})
    assert [[value.name for value in each] for each in enriched(members, codes, np.array([100, 100]))] == [
        [],
        ["has=wing"],
    ]


def test_random_attributes_are_enriched_in_almost_no_cluster() -> None:
    members = DRAW.integers(0, 50, 5000)
    codes = {str(number): DRAW.integers(0, 4, 5000).astype(np.int32) for number in range(20)}
    known = Attributes(codes, dict.fromkeys(codes, ("a", "b", "c", "d")))
    assert sum(map(len, enriched(members, known, np.bincount(members)))) < 0.005 * 50 * 80 + 5


def test_centroids_and_doubts_equal_those_of_a_loop() -> None:
    z, own = as_unit(DRAW.normal(size=(300, 5))), DRAW.integers(-1, 4, 300)
    centroids = centroids_of(z, own, 5)
    for number in range(4):
        mean = z[own == number].mean(0)
        np.testing.assert_allclose(centroids[number], mean / np.linalg.norm(mean), atol=1e-5)
    assert not centroids[4].any()
    distances, doubt = doubts(z, own, centroids)
    for i in np.flatnonzero(own >= 0)[:50]:
        away = [1 - z[i] @ centroids[number] for number in range(4)]
        other = min(away[: own[i]] + away[own[i] + 1 :])
        assert distances[i] == pytest.approx(away[own[i]], abs=1e-5)
        assert doubt[i] == pytest.approx(away[own[i]] / (away[own[i]] + other), abs=1e-4)
    assert not doubt[own < 0].any()


def test_strips_run_from_the_nearest_to_the_farthest_and_clusters_keep_their_numbers() -> None:
    z, ids = as_unit(DRAW.normal(size=(200, 8))), DRAW.choice([1, 4, 9], 200, p=[0.5, 0.3, 0.2])
    shown = largest(ids, 1000)
    assert shown.tolist() == [1, 4, 9]
    portraits, _ = portray(
        ids, shown, np.full(200, -1), (), Attributes({}, {}), np.arange(200), z, strip=8, seed=0
    )  # fmt: skip
    for each in portraits:
        own = np.flatnonzero(ids == each.number)
        mean = z[own].mean(0)
        order = own[np.argsort(-(z[own] @ mean), kind="stable")]
        assert each.size == len(own)
        assert each.central.tolist() == order[:8].tolist()
        assert each.far.tolist() == order[::-1][:8].tolist()
        assert set(each.random) <= set(own)
        assert {number for number, _ in each.nearest} == {1, 4, 9} - {each.number}
        assert each.purity is None


def test_a_cluster_of_which_no_image_was_embedded_is_still_told_of() -> None:
    z, ids = as_unit(DRAW.normal(size=(10, 3))), np.repeat([0, 1], 10)
    portraits, _ = portray(
        ids, largest(ids, 9), np.zeros(20, np.int64), ("a",), Attributes({}, {}), np.arange(10), z, strip=4, seed=0
    )  # fmt: skip
    assert [(each.size, each.doubt is None, len(each.central)) for each in portraits] == [(10, False, 4), (10, True, 0)]
    assert portraits[0].nearest == ()


def test_few_rows_are_half_drawn_from_all_and_half_from_every_cluster() -> None:
    ids = np.r_[np.zeros(9000, int), np.arange(1, 101)]
    rows = choose_rows(ids, 1000, 0)
    assert len(rows) == len(np.unique(rows)) == 1000
    assert (np.diff(rows) > 0).all()
    assert len(np.unique(ids[rows])) == 101
    np.testing.assert_array_equal(choose_rows(ids, 10**6, 0), np.arange(len(ids)))
