"""`clray.KMeans`: the engine as a scikit-learn estimator, in this process unless Ray is asked for."""

from typing import Any, Self

import numpy as np
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, ClusterMixin, TransformerMixin
from sklearn.metrics.pairwise import euclidean_distances
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

from clray.errors import UserError
from clray.kmeans.assign import Assigned, assign
from clray.kmeans.engine import cluster

FLOATS = (np.float64, np.float32)
INIT_NAMES = {"k-means++": "kmeans++", "k-means||": "kmeans-parallel"}
"""scikit-learn's and cuML's names of starts."""


class KMeans(ClassNamePrefixFeaturesOutMixin, TransformerMixin, ClusterMixin, BaseEstimator):
    """K-means by Lloyd's algorithm on every vector, with scikit-learn's names.

    Example:
        >>> km = clray.KMeans(n_clusters=100, random_state=0).fit(x)
        >>> km.predict(new), km.cluster_centers_, km.inertia_

    Args:
        n_clusters: K.
        init: `random` vectors, `k-means++`, `afk-mc2`, `k-means||`, or centroids [K, dim] to start from.
        n_init: starts, of which the best is kept.
        max_iter: updates at most.
        tol: relative fall of the inertia at which to stop.
        random_state: seed, NumPy's generator, or None for another result each time.
        spherical: keep the centroids at unit length.
        num_shards: Ray actors that search one slice each, with `use_ray`.
        use_ray: search on the Ray cluster of this process, or one that is started, instead of in this process.
        timeout_seconds: how long a shard that does not answer is waited for, with `use_ray`.

    Attributes:
        cluster_centers_: [K, dim], in the type of the vectors.
        labels_: cluster of each vector, int32 [N].
        inertia_: sum of squared distances to the nearest centroid.
        n_iter_: updates of the best start.
        n_features_in_: dim.
    """

    def __init__(
        self,
        n_clusters: int = 8,
        *,
        init: Any = "k-means++",
        n_init: int = 1,
        max_iter: int = 20,
        tol: float = 1e-6,
        random_state: Any = None,
        spherical: bool = False,
        num_shards: int = 2,
        use_ray: bool = False,
        timeout_seconds: float = 600.0,
    ) -> None:
        self.n_clusters = n_clusters
        self.init = init
        self.n_init = n_init
        self.max_iter = max_iter
        self.tol = tol
        self.random_state = random_state
        self.spherical = spherical
        self.num_shards = num_shards
        self.use_ray = use_ray
        self.timeout_seconds = timeout_seconds

    def fit(self, X: Any, y: Any = None) -> Self:  # noqa: ARG002 - scikit-learn's signature
        """Cluster the vectors X [N, dim]; y is ignored.

        Raises:
            ValueError: vectors that are no finite numbers, or fewer of them than clusters.
            UserError: a parameter out of range.
        """
        vectors = self._validated(X, reset=True)
        is_named = isinstance(self.init, str)
        result = cluster(
            vectors,
            self.n_clusters,
            init=INIT_NAMES.get(self.init, self.init) if is_named else "random",
            initial=None if is_named else np.asarray(self.init, vectors.dtype),
            num_redos=self.n_init,
            num_iterations=self.max_iter,
            tolerance=self.tol,
            seed=int(check_random_state(self.random_state).randint(2**31 - 1)),
            spherical=self.spherical,
            num_shards=self.num_shards,
            use_ray=self.use_ray,
            timeout_seconds=self.timeout_seconds,
        )
        self.cluster_centers_ = result.centroids.astype(vectors.dtype)
        self.labels_ = result.ids
        self.inertia_ = result.inertia
        self.n_iter_ = result.clusterings[0].num_iterations
        return self

    def predict(self, X: Any) -> np.ndarray:
        """The nearest centroid of each vector, int32 [N]."""
        check_is_fitted(self)
        return self._assigned(X).ids

    def transform(self, X: Any) -> np.ndarray:
        """The distance of each vector to each centroid, [N, K]."""
        check_is_fitted(self)
        vectors, origin = self._validated(X), self.cluster_centers_.mean(axis=0)
        distances: np.ndarray = euclidean_distances(vectors - origin, self.cluster_centers_ - origin)
        return distances

    def score(self, X: Any, y: Any = None) -> float:  # noqa: ARG002
        """Minus the inertia of these vectors, so that more is better."""
        check_is_fitted(self)
        return -self._assigned(X).inertia

    def _assigned(self, X: Any) -> Assigned:
        (found,) = assign(
            self.cluster_centers_,
            self._validated(X),
            use_ray=self.use_ray,
            num_shards=self.num_shards,
            timeout_seconds=self.timeout_seconds,
        )
        return found

    def _validated(self, X: Any, *, reset: bool = False) -> np.ndarray:
        vectors: np.ndarray = validate_data(self, X, dtype=FLOATS, reset=reset)
        if reset and isinstance(self.n_clusters, int) and len(vectors) < self.n_clusters:
            raise UserError(f"n_samples={len(vectors)} should be >= n_clusters={self.n_clusters}")
        return vectors

    @property
    def _n_features_out(self) -> int:
        return len(self.cluster_centers_)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags
