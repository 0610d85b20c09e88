import pytest

from clray.report.roles import Role, role_of

LABELS = {"clusters/conditional_entropy_bits": 2e-16, "clusters/label_conditional_entropy_bits": 0.0}


@pytest.mark.parametrize(
    ("objective", "source", "metrics", "expected"),
    [
        ("cl-infonce", "kmeans", {}, Role.CANDIDATE),
        ("cl-infonce", "instance", {}, Role.INFONCE),
        ("infonce", "instance", {}, Role.INFONCE),
        ("swav", "instance", {}, Role.CANDIDATE),
        ("supcon", "labels", {}, Role.SUPCON),
        ("cl-infonce", "labels", {}, Role.SUPCON),
        ("cluster-prediction", "labels", {}, Role.SUPERVISED),
        ("supervised", "labels", {}, Role.SUPERVISED),
        ("cl-infonce", "synthetic", {}, Role.SYNTHETIC),
        ("cl-infonce", "column", LABELS, Role.SUPCON),
        ("cl-infonce", "column", {**LABELS, "clusters/label_conditional_entropy_bits": 0.1}, Role.CANDIDATE),
        ("cl-infonce", "kmeans", LABELS, Role.CANDIDATE),
    ],
)
def test_a_trial_is_a_candidate_unless_its_clusters_are_the_images_or_the_labels(
    objective: str, source: str, metrics: dict[str, float], expected: Role
) -> None:
    assert role_of({"objective.name": objective, "clusters.source": source}, metrics) == expected


def test_clusters_that_k_means_found_are_a_candidate_even_where_they_are_the_labels() -> None:
    assert not role_of({}, LABELS).is_reference
