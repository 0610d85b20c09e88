"""What a run reports of its clusters, counted once for each assignment."""

import numpy as np

from clray.clusters.assignment import ClusterAssignment
from clray.clusters.statistics import cluster_metrics
from clray.training.metrics import Metrics
from clray.training.workers.port import Session, gather_objects


class ClusterMetrics:
    """The `clusters/...` metrics of the assignment in use, which rank 0 counts where it is new, for all workers."""

    def __init__(self, labels: np.ndarray, session: Session) -> None:
        self.labels = labels
        self.session = session
        self.assignment: ClusterAssignment | None = None
        self.metrics: Metrics = {}

    def of(self, assignment: ClusterAssignment) -> Metrics:
        """Equal on all workers; every rank must call it."""
        if assignment is not self.assignment:
            own = self._count(assignment) if self.session.rank == 0 else {}
            # Every rank takes over a new assignment at the same step, so that all meet here.
            self.metrics = gather_objects(own, self.session.world_size)[0]
            self.assignment = assignment
        return self.metrics

    def _count(self, assignment: ClusterAssignment) -> Metrics:
        return {
            **cluster_metrics(assignment.ids, self.labels, assignment.num_clusters),
            "clusters/largest_fraction": float(assignment.sizes.max() / len(assignment)),
        }
