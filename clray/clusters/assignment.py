"""Which cluster each training sample belongs to.

Holds and checks an assignment; where it comes from is decided elsewhere.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np


@dataclass(frozen=True)
class ClusterAssignment:
    """The cluster id of each of N samples.

    Attributes:
        ids: int32 [N], each in 0..num_clusters-1; any integers may be given.
        num_clusters: K, counting empty clusters.
        source: as `clusters.source`.
        values: of each sample, float32 [N, dim], where these stand in place of clusters, and each sample is its own.

    Raises:
        ValueError: ids that are no integer vector, or out of range.
    """

    ids: np.ndarray
    num_clusters: int
    source: str
    values: np.ndarray | None = None

    def __post_init__(self) -> None:
        if self.ids.ndim != 1 or not np.issubdtype(self.ids.dtype, np.integer):
            raise ValueError(f"cluster ids must be integers of shape [N]; got {self.ids.dtype} {self.ids.shape}")
        if len(self.ids) and not (self.ids.min() >= 0 and self.ids.max() < self.num_clusters):
            raise ValueError(
                f"cluster ids must be in 0..{self.num_clusters - 1}; got {self.ids.min()}..{self.ids.max()}"
            )
        # Held, sent to every worker and written to every checkpoint: half the bytes of NumPy's and torch's int64.
        object.__setattr__(self, "ids", self.ids.astype(np.int32, copy=False))

    def __len__(self) -> int:
        return len(self.ids)

    @cached_property
    def sizes(self) -> np.ndarray:
        """Samples per cluster, int64 [num_clusters]."""
        return np.bincount(self.ids, minlength=self.num_clusters)

    def moved_fraction(self, previous: "ClusterAssignment") -> float:
        """Share of the samples whose id differs from the previous assignment's."""
        return float(np.mean(self.ids != previous.ids))
