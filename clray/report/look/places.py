"""The map of the embedding: where each image lies in a plane in which near images stay near."""

import importlib.util
import warnings
from typing import Literal

import numpy as np
from sklearn.decomposition import PCA

from clray.errors import UserError

Method = Literal["auto", "pca", "umap", "tsne"]
METHODS: tuple[Method, ...] = ("auto", "pca", "umap", "tsne")
PACKAGES = {"umap": "umap", "tsne": "openTSNE"}
TITLES = {"pca": "the two directions of largest variance (PCA)", "umap": "UMAP", "tsne": "t-SNE (openTSNE)"}
NUM_NEIGHBORS, PERPLEXITY = 15, 30
MOST_DIRECTIONS = 50
"""To which PCA reduces before the others, as their authors advise."""


def as_method(method: str) -> Method:
    """The way of mapping of this name; raises UserError for one that is unknown or not installed."""
    chosen = next((each for each in METHODS if each == method), None)
    if chosen is None:
        raise UserError(f"method: expected one of {', '.join(METHODS)}; got {method!r}")
    if chosen in PACKAGES and not _is_installed(PACKAGES[chosen]):
        raise UserError(f"method: {method} is not installed; install it with `pip install 'clray[map]'`, or use pca")
    return chosen


def map_vectors(vectors: np.ndarray, method: Method, seed: int) -> tuple[np.ndarray, str]:
    """Places in 0..1, float32 [m, 2], and the name of the way they were found.

    `auto` is UMAP where it is installed, then openTSNE, else PCA; of fewer than 50 vectors always PCA.
    """
    as_method(method)
    if len(vectors) < 2:
        return np.full((len(vectors), 2), 0.5, np.float32), TITLES["pca"]
    if method == "auto":
        installed = [name for name, package in PACKAGES.items() if _is_installed(package)]
        method = installed[0] if installed and len(vectors) >= MOST_DIRECTIONS else "pca"  # type: ignore[assignment]
    directions = min(2 if method == "pca" else MOST_DIRECTIONS, *vectors.shape)
    reduced = principal_directions(vectors.astype(np.float64), directions)
    if reduced.shape[1] < 2:
        reduced = np.pad(reduced, ((0, 0), (0, 2 - reduced.shape[1])))
    if method != "pca":
        reduced = _neighbour_map(reduced.astype(np.float32), method, seed)
    low, high = reduced.min(axis=0), reduced.max(axis=0)
    places: np.ndarray = ((reduced - low) / np.maximum(high - low, 1e-12)).astype(np.float32)
    return places, TITLES[method]


def principal_directions(vectors: np.ndarray, count: int) -> np.ndarray:
    """The vectors along so many directions of largest variance, [n, count]; zeros where all vectors are equal."""
    with np.errstate(invalid="ignore"):  # PCA also divides by the variance, which may be 0
        projected: np.ndarray = PCA(count, random_state=0).fit_transform(vectors)
    return projected


def _is_installed(package: str) -> bool:
    """A mere folder of this name, such as one below the current, is no package."""
    found = importlib.util.find_spec(package)
    return found is not None and found.origin is not None


def _neighbour_map(vectors: np.ndarray, method: str, seed: int) -> np.ndarray:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about seeds and threads, which are as wanted
        if method == "umap":
            from umap import UMAP

            neighbors = min(NUM_NEIGHBORS, len(vectors) - 1)
            found: np.ndarray = UMAP(n_neighbors=neighbors, random_state=seed % 2**31).fit_transform(vectors)
        else:
            from openTSNE import TSNE

            perplexity = min(PERPLEXITY, (len(vectors) - 1) / 3)
            found = np.asarray(TSNE(perplexity=perplexity, random_state=seed % 2**31).fit(vectors))
    return found
