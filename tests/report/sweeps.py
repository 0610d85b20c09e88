"""Sweeps whose figures are known, for tests."""

from clray.report.results import Sweep, TrialResult


def trial(
    point: str, accuracy: float, *, seed: int = 0, information: float = 1.0, rest: float = 1.0, clusters: int = 10,
    source: str = "kmeans", objective: str = "cl-infonce", temperature: float = 0.1, state: str = "finished",
    reason: str | None = None, **params: object,
) -> TrialResult:  # fmt: skip
    """A trial with the figures given; further parameters by dotted key."""
    metrics = {
        "eval/linear_accuracy": accuracy,
        "eval/knn_accuracy": accuracy,
        "clusters/mutual_information_bits": information,
        "clusters/conditional_entropy_bits": rest,
        "clusters/label_entropy_bits": 3.0,
        "clusters/label_conditional_entropy_bits": 3.0 - information,
        "clusters/num_clusters": float(clusters),
    }
    named = {"clusters.source": source, "objective.name": objective, "objective.temperature": str(temperature)}
    counted = {"clusters.num_clusters": str(clusters if source == "kmeans" else 10), "seed": str(seed)}
    return TrialResult(
        point, seed, metrics, named | counted | {key: str(value) for key, value in params.items()}, state, reason
    )


def digits() -> Sweep:
    """k-means at three granularities and two temperatures beside both references, as the quickstart has them."""
    trials = []
    for t in (0.1, 0.5):
        for clusters, accuracy in ((5, 0.74), (10, 0.811), (50, 0.83)):
            trials.append(trial(f"k={clusters} t={t}", accuracy, clusters=clusters, temperature=t, rest=clusters / 10))
        trials.append(trial(f"instance t={t}", 0.80, clusters=1347, source="instance", temperature=t, rest=7.0))
        trials.append(
            trial(f"labels t={t}", 0.929, clusters=10, source="labels", temperature=t, information=3.0, rest=0.0)
        )
    return Sweep("digits", trials, num_images=1347, num_test_images=450)
