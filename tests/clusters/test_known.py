from pathlib import Path

import numpy as np
import pytest

from clray.clusters.assignment import ClusterAssignment
from clray.clusters.known import (
    attribute_clusters,
    id_like,
    instance_clusters,
    known_clusters,
    note_on_ids,
    order_attributes,
    rank_attributes,
)
from clray.config.sections import ClustersConfig
from clray.errors import UserError
from clray.kmeans.lloyd import Clustering
from clray.kmeans.output import write_clusterings

RNG = np.random.default_rng(0)
ATTRIBUTES = {
    "constant": np.zeros(40, np.int64),
    "coin": RNG.permutation(np.repeat([0, 1], 20)),
    "die": RNG.permutation(np.repeat([0, 1, 2, 3], 10)),
}
LABELS = np.arange(40) % 5


def known(config: ClustersConfig) -> tuple[ClusterAssignment, ...]:
    names = {None: tuple("abcde"), "die": ("one", "two", "three", "four")}
    return known_clusters(config, labels=LABELS, columns=ATTRIBUTES, names=names, seed=0)


def test_attributes_are_ranked_by_entropy() -> None:
    assert [name for name, _ in rank_attributes(ATTRIBUTES)] == ["die", "coin", "constant"]
    assert [bits for _, bits in rank_attributes(ATTRIBUTES)] == pytest.approx([2.0, 1.0, 0.0])


def test_attribute_clusters_are_the_distinct_tuples_of_the_chosen_ones() -> None:
    assignment = attribute_clusters(ATTRIBUTES, 2)
    tuples = list(zip(ATTRIBUTES["die"], ATTRIBUTES["coin"], strict=True))
    assert assignment.num_clusters == len(set(tuples))
    for i in range(40):
        same = assignment.ids == assignment.ids[i]
        assert [tuples[j] == tuples[i] for j in range(40)] == same.tolist()


def test_a_given_order_of_attributes_is_taken_as_it_stands() -> None:
    for order, num_clusters in ((("coin", "die"), 2), (("constant", "die"), 1), (("die", "constant", "coin"), 4)):
        (found,) = known(ClustersConfig(source="attributes", attribute_order=order, num_attributes=1))
        assert found.num_clusters == num_clusters
        np.testing.assert_array_equal(found.ids, ATTRIBUTES[order[0]])
    with pytest.raises(UserError, match=r"clusters\.attribute_order: no column dice, weather; the data have: "):
        known(ClustersConfig(source="attributes", attribute_order=("dice", "coin", "weather"), num_attributes=1))


def test_columns_with_a_value_for_every_image_are_taken_where_they_are_named_alone() -> None:
    columns = {**ATTRIBUTES, "id": RNG.permutation(40)}
    assert order_attributes(columns) == rank_attributes(ATTRIBUTES)
    assert order_attributes(columns, candidates=["coin", "id"])[0][0] == "id"
    config = ClustersConfig(source="attributes", num_attributes=3)
    note = note_on_ids(config, columns)
    assert note is not None
    assert "as every image has a value of its own there: id; a column" in note
    for other in (
        config.model_copy(update={"attribute_order": ("id", "coin", "die")}),
        config.model_copy(update={"attribute_columns": ("id", "coin", "die")}),
        config.model_copy(update={"source": "labels"}),
    ):
        assert note_on_ids(other, columns) is None
    assert note_on_ids(config, ATTRIBUTES) is None
    assert id_like({"one row": np.zeros(1, np.int64)}) == ()


def test_every_image_is_its_own_instance_cluster() -> None:
    assert instance_clusters(7).sizes.tolist() == [1] * 7


@pytest.mark.parametrize(("source", "num_clusters"), [("labels", 5), ("instance", 40), ("kmeans", 40)])
def test_a_run_starts_with(source: str, num_clusters: int) -> None:
    (assignment,) = known(ClustersConfig(source=source))
    assert assignment.num_clusters == num_clusters


def test_a_named_column_gives_its_values() -> None:
    config = ClustersConfig(source="column", column="die")
    assert known(config)[0].sizes.tolist() == [10] * 4


def test_a_missing_column_is_named_with_those_there_are() -> None:
    config = ClustersConfig(source="column", column="dice")
    with pytest.raises(UserError, match=r"clusters\.column: no column dice; the data have: constant, coin, die"):
        known(config)


def test_more_attributes_than_there_are_is_refused() -> None:
    config = ClustersConfig(source="attributes", num_attributes=4)
    with pytest.raises(UserError, match=r"clusters\.num_attributes must be at most 3 .* got 4"):
        known(config)


def test_levels_of_a_tree_over_the_labels_or_a_column(tmp_path: Path) -> None:
    (tmp_path / "tree.yaml").write_text("{vowel: [a, e], other: {early: [b, c], late: [d]}}")
    config = ClustersConfig(source="hierarchy", tree=str(tmp_path / "tree.yaml"), granularities=(0, 1, 2))
    roots, early, leaves = known(config)
    assert [each.num_clusters for each in (roots, early, leaves)] == [2, 4, 5]
    (tmp_path / "die.txt").write_text("odd one\nodd three\neven two\neven four\n")
    (by_column,) = known(ClustersConfig(source="hierarchy", tree=str(tmp_path / "die.txt"), column="die", level=0))
    np.testing.assert_array_equal(by_column.ids == by_column.ids[0], ATTRIBUTES["die"] % 2 == ATTRIBUTES["die"][0] % 2)


def test_a_saved_clustering_must_be_of_the_training_images(tmp_path: Path) -> None:
    write_clusterings(tmp_path, [Clustering(np.eye(2), np.array([0, 1, 1], np.int32), 0.0, [1.0])], {})
    with pytest.raises(UserError, match="holds the clusters of 3 vectors, there are 40 training images"):
        known(ClustersConfig(source="clustering", path=str(tmp_path), num_clusters=2))


def by_colour(*, columns: dict[str, np.ndarray], **_: object) -> np.ndarray:
    return 10 * columns["colour"]


def too_few(**_: object) -> list[int]:
    return [1, 2]


def test_clusters_by_a_function_of_the_users() -> None:
    colour = np.array([0, 1, 1, 2])
    (found,) = known_clusters(
        ClustersConfig(source=f"{__name__}:by_colour"),
        labels=np.zeros(4, np.int64), columns={"colour": colour}, names={None: ("a",)}, seed=0,
    )  # fmt: skip
    assert found.num_clusters == 3
    np.testing.assert_array_equal(found.ids, colour)
    with pytest.raises(UserError, match=r"too_few: expected 4 integers, one for each training image; got int64 \[2\]"):
        known_clusters(
            ClustersConfig(source=f"{__name__}:too_few"),
            labels=np.zeros(4, np.int64), columns={}, names={None: ("a",)}, seed=0,
        )  # fmt: skip


@pytest.mark.parametrize("settings", [{"source": "labels"}, {"source": "synthetic"},
                                      {"source": "hierarchy", "tree": "nowhere.yaml"}])  # fmt: skip
@pytest.mark.parametrize(("labels", "which"), [
    (np.full(40, -1), "none of them has one"), (np.where(LABELS == 3, -1, LABELS), "8 of 40 have none"),
])  # fmt: skip
def test_clusters_from_labels_need_a_label_of_every_image(
    settings: dict[str, str], labels: np.ndarray, which: str
) -> None:
    config = ClustersConfig(**settings)
    with pytest.raises(UserError, match=rf"clusters\.source={config.source} needs a label .*{which}"):
        known_clusters(config, labels=labels, columns=ATTRIBUTES, names={None: ()}, seed=0)
