"""When to ask for new clusters, from which embeddings, and when to take them over."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch

from clray.clusters.assignment import ClusterAssignment
from clray.clusters.statistics import agreement
from clray.config import Config
from clray.data.loaders import ordered_batches, shard_indices
from clray.data.samples import Dataset, Samples
from clray.data.transfer import HostCopy, to_device, view
from clray.kmeans.in_training import TrainingKMeans
from clray.kmeans.lloyd import Clustering
from clray.kmeans.messages import rows_on_leader
from clray.kmeans.refresh import Done
from clray.kmeans.vectors.tensors import TensorRows
from clray.model.features import EMBEDDING_BATCH_SIZE, compute_features
from clray.objective.prototypes import concentrations
from clray.seeding import derive_seed
from clray.training.first_clusterings import FirstClustering, FirstClusterings, Wanted
from clray.training.members import Vectors, choose_members, needs_margins, own_margins
from clray.training.metrics import Metrics
from clray.training.optim import forget
from clray.training.representations import view_pairs
from clray.training.state import TrainState, share_buffers
from clray.training.workers.port import PendingClustering, Session, agree, gather


@dataclass
class _Request:
    """A clustering that is due: its embeddings are on their way to the host, and then it is asked for."""

    step: int
    """Steps trained when its embeddings were taken."""
    vectors: HostCopy | TensorRows
    """On their way to the host, or where they lie for k-means in training."""
    initial: list[np.ndarray] | None
    seed: int
    due_at: float
    pending: PendingClustering | None = None
    judged: Vectors = ()
    """By which members are chosen that count, where it is not the vectors."""


class Reclusterer:
    """Keeps a run's k-means clusters fresh; does nothing where clusters come from elsewhere.

    With `recluster.mode: async` training continues while the clusters are computed. All workers take them over at the
    same step, the first at which all have them. One request is under way at a time.
    """

    def __init__(
        self, config: Config, data: Dataset, state: TrainState, session: Session, first: FirstClustering | None = None
    ) -> None:
        """Args: `first` is the run's first clustering, where that has been computed already."""
        self.config, self.data, self.state, self.session, self.first = config, data, state, session, first
        self.request: _Request | None = None
        self.metrics: Metrics = {}
        self.stall_seconds = 0.0

    def at_step(self) -> bool:
        """To be called on every worker before each step; tells whether the assignments changed."""
        if self.config.clusters.source != "kmeans":
            return False
        start, changed = time.perf_counter(), False
        if self.request is not None and agree(self._advance(self.request), self.session):
            self._take_over(self.request)
            changed = True
        if self.request is None and self._is_due():
            self.request = self._new_request()
            self._advance(self.request)
            if self.config.recluster.mode == "sync" or self.state.clustered_step is None:
                self._take_over(self.request)
                changed = True
        self.stall_seconds += time.perf_counter() - start
        return changed

    def drain_metrics(self) -> Metrics:
        """What happened since the last call."""
        metrics, self.metrics = self.metrics, {}
        if metrics or self.stall_seconds > 0:
            metrics["recluster/stall_seconds"] = self.stall_seconds
        self.stall_seconds = 0.0
        return metrics

    def _is_due(self) -> bool:
        settings = self.config.recluster
        every = settings.every_steps or settings.every_epochs * self.state.steps_per_epoch
        since = self.state.step - settings.warmup_epochs * self.state.steps_per_epoch
        if since < 0:
            return False
        last_due = self.state.step - since % every
        return self.state.clustered_step is None or self.state.clustered_step < last_due

    def _new_request(self) -> _Request:
        """Take this worker's embeddings as they are now, or what is known of them where they were clustered already."""
        config, state, due_at, seed = self.config, self.state, time.perf_counter(), self._seed
        is_first = state.clustered_step is None and state.step == config.recluster.warmup_epochs * state.steps_per_epoch
        if self.first is not None and is_first:
            own = shard_indices(self.data.train, self.session.world_size)[self.session.rank]
            vectors, clusterings = self.first.of_worker(own)
            begun = due_at - self.first.seconds
            return _Request(
                state.step, HostCopy(vectors), None, seed, begun, Done(clusterings), judged=self._two_views()
            )  # fmt: skip
        initial = state.centroids if config.kmeans.warm_start else None
        return _Request(state.step, self._vectors(), initial, seed, due_at, judged=self._two_views())

    def _advance(self, request: _Request) -> bool:
        """Ask for the clusters once the embeddings are there; whether both are."""
        if request.pending is None and (isinstance(request.vectors, TensorRows) or request.vectors.ready()):
            request.pending = self._ask(request)
        return request.pending is not None and request.pending.ready()

    def _ask(self, request: _Request) -> PendingClustering:
        """Hand this worker's embeddings over; waits for them."""
        config = self.config
        return self._cluster(
            _at_hand(request.vectors),
            config.clusters.counts,
            Wanted.of(config).is_nested,
            request.seed,
            request.initial,
        )

    def first_for(self, wanted: Sequence[Wanted]) -> FirstClusterings:
        """The first clustering of each of several runs that are this one until now; every rank must call it.

        All that are not nested go through one pass. Each comes out as it would alone, to the bit, as starts are drawn
        for each K apart and sums are kept apart; `network_bytes` alone is that of the whole pass.
        """
        start, own = time.perf_counter(), _at_hand(self._vectors())
        vectors = _of_all_workers(np.asarray(own), self.data.train, self.session)
        flat = sorted({each.counts[0] for each in wanted if not each.is_nested})
        groups = [(tuple(flat), False)] if flat else []
        groups += sorted({(each.counts, True) for each in wanted if each.is_nested})
        needs_stability = self.config.sweep.prescreen and not bool((self.data.train.labels >= 0).any())
        found: dict[tuple[tuple[int, ...], bool], tuple[list[Clustering], float | None]] = {}
        for counts, is_nested in groups:
            clusterings = self._clusterings(own, counts, is_nested, self._seed)
            again = self._clusterings(own, counts, is_nested, (self._seed + 1) % 2**32) if needs_stability else None
            stable = [
                None if again is None else agreement(each.ids, again[i].ids) for i, each in enumerate(clusterings)
            ]
            if is_nested:
                found[counts, True] = clusterings, stable[0]
            else:
                found |= {((k,), False): ([clusterings[i]], stable[i]) for i, k in enumerate(counts)}
        seconds = (time.perf_counter() - start) / max(1, len(wanted))
        return {
            each: FirstClustering(vectors, tuple(clusterings), seconds, stability)
            for each in wanted
            for clusterings, stability in (found[each.counts, each.is_nested],)
        }

    def _clusterings(
        self, vectors: np.ndarray | TensorRows, counts: tuple[int, ...], is_nested: bool, seed: int
    ) -> list[Clustering]:
        """From a cold start, with ids in dataset order."""
        found = self._cluster(vectors, counts, is_nested, seed, None).result()
        return [replace(each, ids=_of_all_workers(each.ids, self.data.train, self.session)) for each in found]

    def _cluster(
        self,
        vectors: np.ndarray | TensorRows,
        counts: tuple[int, ...],
        is_nested: bool,
        seed: int,
        initial: list[np.ndarray] | None,
    ) -> PendingClustering:
        assert self.session.cluster is not None, "a run with k-means clusters is launched with a way to compute them"
        cluster = self.session.cluster
        if isinstance(cluster, TrainingKMeans):
            return cluster(vectors, counts, nested=is_nested, seed=seed, initial=initial)
        return cluster(np.asarray(vectors), counts, nested=is_nested, seed=seed, initial=initial)

    @property
    def _seed(self) -> int:
        return derive_seed(self.config.seed, "kmeans", epoch=self.state.step) % 2**32

    def _vectors(self) -> HostCopy | TensorRows:
        """What is clustered of this worker's images, float32 [n, dim], on its way to where it is clustered.

        The embeddings of the bank, or with `recluster.embeddings: pass` those of the images without augmentation, as in
        the authors' protocol; of the momentum encoder where there is one. At the start of a run from weights they are
        the representations, as the head that makes embeddings of them is still random.
        """
        state = self.state
        own = shard_indices(self.data.train, self.session.world_size)[self.session.rank]
        # All embed alike, and as a run that is resumed here would, whose buffers are those of rank 0.
        share_buffers(state.objective.embedding_model(state.model), self.session.world_size)
        if self._head_is_random:
            return HostCopy(_unit(self._features(own, "h")))
        if state.bank is None:
            return HostCopy(self._embed(own))
        unseen = state.bank.unseen()
        if len(unseen):
            state.bank.update(torch.from_numpy(unseen), to_device(self._embed(unseen), self.session.device))
        if isinstance(self.session.cluster, TrainingKMeans):
            return state.bank.unit_rows()
        return HostCopy(state.bank.unit_vectors())

    def _take_over(self, request: _Request) -> None:
        """Wait for the clusters and put them into the state."""
        state = self.state
        pending = request.pending or self._ask(request)
        clusterings = pending.result()
        assignments = tuple(
            ClusterAssignment(_of_all_workers(each.ids, self.data.train, self.session), each.num_clusters, "kmeans")
            for each in clusterings
        )
        self.metrics |= {
            "recluster/num_iterations": float(clusterings[0].num_iterations),
            "recluster/inertia": clusterings[0].inertia,
            "recluster/network_bytes": float(clusterings[0].network_bytes),
        }
        if state.clustered_step is not None:
            before = state.assignments[0]
            self.metrics["recluster/moved_fraction"] = assignments[0].moved_fraction(before)
            self.metrics["recluster/stability"] = agreement(assignments[0].ids, before.ids)
        centroids = [each.centroids for each in clusterings]
        # Those of representations are no start for embeddings.
        state.assignments, state.centroids = assignments, None if self._head_is_random else centroids
        state.clustered_step = request.step
        choose_members(self.config, state, self._scores(request, clusterings), self.session)
        phis = None
        if state.objective.uses_concentrations:
            phis = self._concentrations(np.asarray(_at_hand(request.vectors)), clusterings)
        redrawn = state.objective.take_clusters(centroids, phis, renamed=request.initial is None, seed=request.seed)
        forget(state.optimizer, redrawn)
        self.metrics["recluster/seconds"] = time.perf_counter() - request.due_at
        self.request = None

    @property
    def _head_is_random(self) -> bool:
        """Whether the encoder knows something and the head nothing; other objectives need clusters of embeddings."""
        config, state = self.config, self.state
        return state.step == 0 and config.encoder.weights is not None and config.objective.name == "cl-infonce"

    def _two_views(self) -> Vectors:
        """What is clustered, of two random views of this worker's images; none where nothing is judged by them."""
        config, state, session = self.config, self.state, self.session
        if config.clusters.confidence_by != "views" or not needs_margins(config):
            return ()
        model = state.objective.embedding_model(state.model)
        share_buffers(model, session.world_size)
        own = shard_indices(self.data.train, session.world_size)[session.rank]
        seed = derive_seed(config.seed, "members", epoch=state.step, rank=session.rank)
        pairs = view_pairs(config, model, self.data, own, session.device, seed=seed)
        return tuple(_unit(each.h) if self._head_is_random else each.z for each in pairs)

    def _scores(self, request: _Request, clusterings: list[Clustering]) -> list[np.ndarray] | None:
        """By which members are chosen that count, of all images under each granularity; None for a draw."""
        if not needs_margins(self.config):
            return None
        judged = request.judged or (np.asarray(_at_hand(request.vectors)),)
        return [
            _of_all_workers(each, self.data.train, self.session)
            for each in own_margins(judged, clusterings, self.session.device)
        ]

    def _embed(self, indices: np.ndarray) -> np.ndarray:
        """z of these images without augmentation, float32 [n, dim]."""
        return self._features(indices, "z")

    def _features(self, indices: np.ndarray, wanted: Literal["h", "z"]) -> np.ndarray:
        """h or z of these images without augmentation, float32 [n, dim]."""
        config, model = self.config, self.state.objective.embedding_model(self.state.model)
        batches = ordered_batches(self.data.train, indices, batch_size=EMBEDDING_BATCH_SIZE, config=config.data)
        return compute_features(model, batches, self.session.device, wanted)[0]

    def _concentrations(self, z: np.ndarray, clusterings: list[Clustering]) -> list[np.ndarray]:
        """PCL's concentration of each cluster of each granularity, over the images of all workers."""
        phis = []
        for each in clusterings:
            distances = np.linalg.norm(z - each.centroids[each.ids], axis=1)
            all_distances, all_ids = (
                np.concatenate(gather(values, self.session.world_size)) for values in (distances, each.ids)
            )
            temperature = self.config.objective.temperature
            phis.append(concentrations(all_distances, all_ids, each.num_clusters, temperature=temperature))
        return phis


def _at_hand(vectors: HostCopy | TensorRows) -> np.ndarray | TensorRows:
    """As k-means takes them; waits for those on their way."""
    return vectors if isinstance(vectors, TensorRows) else vectors.result()


def _unit(vectors: np.ndarray) -> np.ndarray:
    """Scaled to unit length, as embeddings are."""
    scaled: np.ndarray = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    return scaled


def _of_all_workers(values: np.ndarray, data: Samples, session: Session) -> np.ndarray:
    """What each worker knows of its own images, for all images in dataset order, [N, ...]; as `Session.share`.

    It meets on the host: beside the model the GPU of rank 0 need not have room for it.
    """
    shards, parts = shard_indices(data, session.world_size), [view(values)]
    if session.world_size > 1:
        parts = rows_on_leader(parts[0], [len(each) for each in shards])

    def joined() -> np.ndarray:
        result = np.empty((len(data), *values.shape[1:]), values.dtype)
        for shard, part in zip(shards, parts, strict=True):
            result[shard] = part.numpy()
        return result

    return session.share(joined)
