import numpy as np
import pytest

from clray.clusters.known import attribute_clusters, instance_clusters, known_clusters, rank_attributes
from clray.config import ClustersConfig, UserError

RNG = np.random.default_rng(0)
ATTRIBUTES = {
    "constant": np.zeros(40, np.int64),
    "coin": RNG.permutation(np.repeat([0, 1], 20)),
    "die": RNG.permutation(np.repeat([0, 1, 2, 3], 10)),
}
LABELS = np.arange(40) % 5


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


def test_every_image_is_its_own_instance_cluster() -> None:
    assert instance_clusters(7).sizes.tolist() == [1] * 7


@pytest.mark.parametrize(("source", "num_clusters"), [("labels", 5), ("instance", 40), ("kmeans", 40)])
def test_a_run_starts_with(source: str, num_clusters: int) -> None:
    assignment = known_clusters(ClustersConfig(source=source), labels=LABELS, columns={})
    assert assignment.num_clusters == num_clusters


def test_a_named_column_gives_its_values() -> None:
    config = ClustersConfig(source="column", column="die")
    assert known_clusters(config, labels=LABELS, columns=ATTRIBUTES).sizes.tolist() == [10] * 4


def test_a_missing_column_is_named_with_those_there_are() -> None:
    config = ClustersConfig(source="column", column="dice")
    with pytest.raises(UserError, match=r"clusters\.column: no column dice; the data have: constant, coin, die"):
        known_clusters(config, labels=LABELS, columns=ATTRIBUTES)


def test_more_attributes_than_there_are_is_refused() -> None:
    config = ClustersConfig(source="attributes", num_attributes=4)
    with pytest.raises(UserError, match=r"clusters\.num_attributes must be at most 3 .* got 4"):
        known_clusters(config, labels=LABELS, columns=ATTRIBUTES)
