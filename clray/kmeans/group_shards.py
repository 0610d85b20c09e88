"""The shards of a run whose workers cluster their own vectors where they train: worker 0 iterates, the others answer.

One worker decides, so that no rounding of another can part them. Each iteration broadcasts K x d centroids and adds up
K x (d + 1) sums on worker 0, whatever the number of vectors. Results are exchanged once all workers have theirs: what
fails on one is raised by all, as HeardByAllError.
"""

from collections.abc import Sequence
from enum import IntEnum

import numpy as np
import torch

from clray.kmeans.closest import closest_members
from clray.kmeans.failures import computed_by_all
from clray.kmeans.messages import counts_of_all, receive, rows_on_leader, send, sum_on_leader
from clray.kmeans.origin import Survey
from clray.kmeans.shards.nearest import Nearest, approach, draw
from clray.kmeans.shards.port import Measured, PartialSums, Placed, Shard, placed
from clray.kmeans.shards.together import LocalShards, join_rows, rows_by_slice


class Ask(IntEnum):
    """What the leader asks of all."""

    SURVEY = 0
    TAKE = 1
    APPROACH = 2
    DRAW = 3
    ACCUMULATE = 4
    ASSIGN = 5
    MEASURE = 6
    END = 7
    FAIL = 8


class GroupShards:
    """The `Shards` of Lloyd's algorithm on worker 0, over the shards of all workers."""

    def __init__(
        self, shard: Shard, counts: Sequence[int], device: torch.device, origin: np.ndarray | None = None
    ) -> None:
        """Args: `shard` is this worker's; `counts` the vectors of each, by rank."""
        self.shard, self.counts, self.device, self.origin = shard, counts, device, origin
        self.starts = np.cumsum([0, *counts])
        self.sent_bytes = self.received_bytes = 0

    @property
    def num_vectors(self) -> int:
        return int(self.starts[-1])

    def about(self, origin: np.ndarray | None) -> "GroupShards":
        return GroupShards(self.shard, self.counts, self.device, origin)

    def holding(self, vectors: np.ndarray, *, once: bool = False) -> LocalShards:  # noqa: ARG002 - none is made
        """On worker 0 alone."""
        return LocalShards([self.shard.holding(vectors)])

    def survey(self, num_clusters: Sequence[int]) -> Survey:  # noqa: ARG002 - only a bound on memory asks
        self._send(Ask.SURVEY, [])
        found = survey_together(self.shard, self.counts, self.device)
        assert found is not None, "worker 0 leads"
        return found

    def take(self, rows: np.ndarray) -> np.ndarray:
        self._send(Ask.TAKE, [rows])
        found = take_together(self._own, rows, self.starts, self.device)
        assert found is not None, "worker 0 leads"
        return found

    def approach(self, candidates: np.ndarray, before: Nearest | None) -> tuple[Nearest, float, np.ndarray]:
        self._send(Ask.APPROACH, [candidates, np.array([before is None], np.uint8)])
        return approach_together(self._own, candidates, before, self.device)

    def draw(self, nearest: Nearest, rate: float, key: np.ndarray) -> np.ndarray:
        self._send(Ask.DRAW, [np.array([rate]), key.view(np.int64)])
        found = draw_together(nearest, rate, key, self.starts, self.device)
        assert found is not None, "worker 0 leads"
        return found

    def accumulate(self, centroids: Sequence[np.ndarray]) -> list[PartialSums]:
        self._send(Ask.ACCUMULATE, centroids)
        sums = accumulate_together(self._own, centroids, self.device)
        self.received_bytes = sum(each.nbytes for each in centroids)
        self.sent_bytes = sum(each.num_bytes for each in sums)
        return sums

    def assign(self, centroids: Sequence[np.ndarray]) -> list[tuple[np.ndarray, float]]:
        self._send(Ask.ASSIGN, centroids)
        return assign_together(self._own, centroids, self.counts, self.device)

    def place(self, centroids: Sequence[np.ndarray]) -> list[Placed]:
        return placed(self.assign(centroids), centroids)

    def measure(self, centroids: Sequence[np.ndarray]) -> Measured:
        self._send(Ask.MEASURE, centroids)
        return measure_together(self._own, centroids, self.counts, self.device)

    def closest(self, centroids: np.ndarray, most: int) -> np.ndarray:
        ((ids, squares),) = self.measure([centroids])
        return closest_members(ids, squares, len(centroids), most).rows

    @property
    def _own(self) -> Shard:
        return self.shard.about(self.origin)

    def _send(self, ask: Ask, arrays: Sequence[np.ndarray]) -> None:
        origin = np.empty(0, np.float32) if self.origin is None else self.origin
        send(ask, [origin, *arrays], self.device)


def answer(shard: Shard, counts: Sequence[int], device: torch.device) -> tuple[Ask, list[np.ndarray]]:
    """On the other workers: do what worker 0 asks until it ends; how, and what it then sent."""
    starts = np.cumsum([0, *counts])
    nearest: Nearest | None = None
    while True:
        code, (origin, *arrays) = receive(device)
        if code in (Ask.END, Ask.FAIL):
            return Ask(code), arrays
        own = shard.about(origin if len(origin) else None)
        if code == Ask.SURVEY:
            survey_together(shard, counts, device)
        elif code == Ask.TAKE:
            take_together(own, arrays[0], starts, device)
        elif code == Ask.APPROACH:
            nearest, *_ = approach_together(own, arrays[0], None if arrays[1][0] else nearest, device)
        elif code == Ask.DRAW:
            assert nearest is not None, "worker 0 draws from what it has asked for"
            draw_together(nearest, float(arrays[0][0]), arrays[1].view(np.uint64), starts, device)
        elif code == Ask.ACCUMULATE:
            accumulate_together(own, arrays, device)
        elif code == Ask.ASSIGN:
            assign_together(own, arrays, counts, device)
        else:
            measure_together(own, arrays, counts, device)


def survey_together(shard: Shard, counts: Sequence[int], device: torch.device) -> Survey | None:
    """The survey of all workers' vectors on worker 0."""
    own = computed_by_all(shard.survey, device)
    starts = np.cumsum([0, *counts])
    bad_counts = counts_of_all(len(own.bad_rows), device)
    totals = torch.from_numpy(np.array([*own.total, own.squares, own.num_vectors], np.float64)).to(device)
    *total, squares, num_vectors = sum_on_leader(totals).tolist()
    bad = rows_on_leader(torch.from_numpy(own.bad_rows.astype(np.int64)).to(device), bad_counts)
    if not bad:
        return None
    rows = [part.cpu().numpy() + start for part, start in zip(bad, starts, strict=False)]
    return Survey(np.concatenate(rows), int(num_vectors), np.array(total), squares)


def take_together(shard: Shard, rows: np.ndarray, starts: np.ndarray, device: torch.device) -> np.ndarray | None:
    """Vectors by their ascending row over all workers, on worker 0."""
    parts = rows_by_slice(rows, starts)
    own = computed_by_all(lambda: shard.take(parts[torch.distributed.get_rank()]), device)
    taken = rows_on_leader(torch.from_numpy(own).to(device), [len(part) for part in parts])
    return torch.cat(taken).cpu().numpy() if taken else None


def approach_together(
    shard: Shard, candidates: np.ndarray, before: Nearest | None, device: torch.device
) -> tuple[Nearest, float, np.ndarray]:
    """The nearest candidates of this worker's vectors; on worker 0 also the potential and the weights of all."""
    nearest = computed_by_all(lambda: approach(shard, candidates, before), device)
    own = torch.from_numpy(np.append(nearest.weights, nearest.potential)).to(device)
    found = sum_on_leader(own).cpu().numpy()
    return nearest, float(found[-1]), found[:-1]


def draw_together(
    nearest: Nearest, rate: float, key: np.ndarray, starts: np.ndarray, device: torch.device
) -> np.ndarray | None:
    """Rows over all workers that are drawn, ascending, on worker 0."""
    first_row = int(starts[torch.distributed.get_rank()])
    own = computed_by_all(lambda: draw(nearest, first_row, rate, key), device)
    parts = rows_on_leader(torch.from_numpy(own).to(device), counts_of_all(len(own), device))
    return join_rows([part.cpu().numpy() for part in parts], starts[:-1].tolist()) if parts else None


def accumulate_together(shard: Shard, centroids: Sequence[np.ndarray], device: torch.device) -> list[PartialSums]:
    """Sums over all workers on worker 0; on the others of no meaning."""
    added = []
    for each in computed_by_all(lambda: shard.accumulate(centroids), device):
        flat = np.concatenate([each.sums.ravel(), each.counts, [each.inertia]])
        flat = sum_on_leader(torch.from_numpy(flat).to(device)).cpu().numpy()
        num_clusters, end = len(each.counts), each.sums.size
        added.append(
            PartialSums(flat[:end].reshape(each.sums.shape), flat[end : end + num_clusters], float(flat[-1]))
        )  # fmt: skip
    return added


def assign_together(
    shard: Shard, centroids: Sequence[np.ndarray], counts: Sequence[int], device: torch.device
) -> list[tuple[np.ndarray, float]]:
    """Ids of all vectors in row order, and the inertia, on worker 0."""
    found = []
    for ids, inertia in computed_by_all(lambda: shard.assign(centroids), device):
        total = sum_on_leader(torch.tensor([inertia], dtype=torch.float64, device=device))
        parts = rows_on_leader(torch.from_numpy(ids).to(device), counts)
        if parts:
            found.append((torch.cat(parts).cpu().numpy(), float(total)))
    return found


def measure_together(
    shard: Shard, centroids: Sequence[np.ndarray], counts: Sequence[int], device: torch.device
) -> Measured:
    """Ids and squared distances of all vectors in row order, on worker 0."""
    found = []
    for columns in computed_by_all(lambda: shard.measure(centroids), device):
        ids, squares = (rows_on_leader(torch.from_numpy(each).to(device), counts) for each in columns)
        if ids:
            found.append((torch.cat(ids).cpu().numpy(), torch.cat(squares).cpu().numpy()))
    return found
