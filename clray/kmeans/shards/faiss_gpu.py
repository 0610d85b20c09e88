"""FAISS on the GPU of this process: one set of resources, and the centroids uploaded once for all blocks."""

from collections.abc import Callable

import faiss
import numpy as np

TEMP_BYTES = 2**29
"""FAISS takes 1.5 GiB by default, which trials that share a GPU cannot spare."""


class GpuSearch:
    """FAISS's resources on a GPU; make one a process, for each takes memory of its own and pins some of the host's."""

    def __init__(self) -> None:
        self.resources = faiss.StandardGpuResources()
        self.resources.setTempMemory(TEMP_BYTES)

    def search_among(self, centroids: np.ndarray) -> Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]:
        """From vectors, float32 [m, dim], to squared distances, float32 [m, 1], and ids, int64 [m, 1]."""
        index = faiss.GpuIndexFlatL2(self.resources, centroids.shape[1])
        index.add(centroids)
        return lambda chunk: index.search(chunk, 1)


def num_gpus() -> int:
    """GPUs that FAISS sees; none where its build has no GPU."""
    return int(getattr(faiss, "get_num_gpus", int)())
