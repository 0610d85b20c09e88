"""What a run reports of its clusters, counted once for each assignment."""

import numpy as np

from clray.clusters.assignment import ClusterAssignment
from clray.clusters.statistics import cluster_metrics, label_metrics, pair_precision
from clray.config.sections.data import metric_suffix
from clray.data.samples import Samples
from clray.training.metrics import Metrics
from clray.training.workers.port import Session, gather_objects


def measure_clusters(ids: np.ndarray, samples: Samples, num_clusters: int) -> Metrics:
    """What clusters are, and what they tell about each column of labels; names end in that of a further one."""
    found = cluster_metrics(ids, samples.labels, num_clusters)
    for column, codes in samples.targets.items():
        of_column = label_metrics(ids, codes, num_clusters)
        found |= {f"{name}{metric_suffix(column)}": value for name, value in of_column.items()}
    return found


class ClusterMetrics:
    """The `clusters/...` metrics of the assignment in use, which rank 0 counts where it is new, for all workers."""

    def __init__(self, samples: Samples, session: Session) -> None:
        self.samples = samples
        self.session = session
        self.assignment: ClusterAssignment | None = None
        self.confident: np.ndarray | None = None
        self.counted: Metrics = {}
        self.metrics: Metrics = {}

    def of(self, assignment: ClusterAssignment, confident: np.ndarray | None = None) -> Metrics:
        """Equal on all workers; every rank must call it.

        Args:
            confident: the members that count, bool [granularities, N]; None where all do.
        """
        if assignment is not self.assignment or confident is not self.confident:
            own = self._of_both(assignment, confident) if self.session.rank == 0 else {}
            # Every rank takes over a new assignment and new members at the same step, so that all meet here.
            self.metrics = gather_objects(own, self.session.world_size)[0]
            self.assignment, self.confident = assignment, confident
        return self.metrics

    def _of_both(self, assignment: ClusterAssignment, confident: np.ndarray | None) -> Metrics:
        if assignment is not self.assignment:
            self.counted = self._count(assignment)
        if confident is None:
            return self.counted
        return {**self.counted, **self._of_members(assignment, confident[0])}

    def _of_members(self, assignment: ClusterAssignment, confident: np.ndarray) -> Metrics:
        found = {"clusters/confident_fraction": float(confident.mean())}
        precision = pair_precision(assignment.ids[confident], self.samples.labels[confident])
        return found if precision is None else {**found, "clusters/confident_pair_precision": precision}

    def _count(self, assignment: ClusterAssignment) -> Metrics:
        if assignment.source == "values":  # there are no clusters
            return {}
        return {
            **measure_clusters(assignment.ids, self.samples, assignment.num_clusters),
            "clusters/largest_fraction": float(assignment.sizes.max() / len(assignment)),
        }
