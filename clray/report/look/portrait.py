"""What each cluster is made of: its classes and attributes, how sure it is of its images, and which of them show it.

Works on arrays alone.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from clray.data.attributes import ABSENT, PRESENT

NUM_MAIN, NUM_ENRICHED, NUM_NEAREST = 3, 5, 3
LEAST_SUPPORT, LEAST_LIFT, LEAST_DEVIATIONS = 3, 1.3, 3.0
"""Of an enriched value: images of the cluster, times as frequent as in all images, and how sure that is no chance."""
BLOCK = 4096


@dataclass(frozen=True)
class Share:
    """A class and the share of a cluster's images that are of it."""

    name: str
    share: float


@dataclass(frozen=True)
class Enriched:
    """A value of an attribute that is more frequent in a cluster than in all images.

    Attributes:
        support: images of the cluster that have it.
        share: of the cluster's images.
        lift: the share over that among all images.
    """

    name: str
    support: int
    share: float
    lift: float


@dataclass(frozen=True)
class ClusterPortrait:
    """One cluster.

    Attributes:
        purity: share of its main class; None without labels.
        doubt: mean over its images of `doubts`; None where none of them was embedded.
        nearest: the clusters whose centroids are nearest, nearest first, with the cosine of the angle to them.
        central, random, far: images to show it by, as places among the embedded ones.
    """

    number: int
    size: int
    main: tuple[Share, ...]
    purity: float | None
    enriched: tuple[Enriched, ...]
    doubt: float | None
    nearest: tuple[tuple[int, float], ...]
    central: np.ndarray
    random: np.ndarray
    far: np.ndarray


@dataclass(frozen=True)
class Attributes:
    """What is known of the images besides their labels: codes, each int32 [N], and what the codes stand for."""

    codes: Mapping[str, np.ndarray]
    names: Mapping[str, Sequence[str]]


def largest(ids: np.ndarray, most: int) -> np.ndarray:
    """The numbers of the largest clusters that have images, at most so many, largest first."""
    sizes = np.bincount(ids)
    order = np.argsort(-sizes, kind="stable")
    return order[: min(most, int((sizes > 0).sum()))]


def portray(
    ids: np.ndarray,
    shown: np.ndarray,
    labels: np.ndarray,
    label_names: Sequence[str],
    attributes: Attributes,
    rows: np.ndarray,
    z: np.ndarray,
    *,
    strip: int,
    seed: int,
) -> tuple[list[ClusterPortrait], np.ndarray]:
    """The clusters shown, in the order given, and the doubt of each embedded image, float32 [m].

    Args:
        ids: the cluster of each of N images.
        shown: numbers of the clusters to portray.
        labels: codes into `label_names`, [N]; negative for an image that has none.
        rows: the embedded images, [m], and z: their unit-length embeddings, [m, dim].
        strip: images of each strip.
    """
    places = np.full(int(ids.max()) + 1, -1)
    places[shown] = np.arange(len(shown))
    members = places[ids]
    sizes = np.bincount(members[members >= 0], minlength=len(shown))
    own = members[rows]
    centroids = centroids_of(z, own, len(shown))
    distances, doubt = doubts(z, own, centroids)
    is_there = own >= 0
    counts = np.bincount(own[is_there], minlength=len(shown))
    means = np.bincount(own[is_there], doubt[is_there], len(shown)) / np.maximum(counts, 1)
    main = main_classes(members, labels, label_names, len(shown))
    rich = enriched(members, attributes, sizes)
    near = nearest_clusters(centroids, shown, counts > 0)
    strips = _strips(own, distances, len(shown), strip, np.random.default_rng(seed))
    portraits = [
        ClusterPortrait(
            int(number), int(sizes[place]), main[place], main[place][0].share if main[place] else None, rich[place],
            float(means[place]) if counts[place] else None, near[place], *strips[place],
        )
        for place, number in enumerate(shown)
    ]  # fmt: skip
    return portraits, doubt


def centroids_of(z: np.ndarray, own: np.ndarray, count: int) -> np.ndarray:
    """The mean embedding of each cluster at unit length, float32 [count, dim]; zeros where it has no image.

    Args:
        own: place of each image's cluster, -1 for an image of none of them.
    """
    order = np.argsort(own, kind="stable")
    order = order[own[order] >= 0]
    sums = np.zeros((count, z.shape[1]), np.float32)
    if len(order):
        starts = np.flatnonzero(np.diff(own[order], prepend=-1))
        sums[own[order][starts]] = np.add.reduceat(z[order], starts)
    lengths = np.linalg.norm(sums, axis=1, keepdims=True)
    unit: np.ndarray = sums / np.maximum(lengths, 1e-12)
    return unit


def doubts(z: np.ndarray, own: np.ndarray, centroids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Each image's distance to its own centroid, and its doubt: own / (own + nearest other), both float32 [m].

    Distances are 1 - cosine. A doubt of one half is on the border of two clusters; above it, another centroid is
    nearer. An image of no cluster shown has distance 0 and doubt 0.
    """
    distances, doubt = np.zeros(len(z), np.float32), np.zeros(len(z), np.float32)
    used = np.flatnonzero(np.abs(centroids).sum(1) > 0)
    for start in range(0, len(z), BLOCK):
        block = slice(start, start + BLOCK)
        away = np.maximum(1 - z[block] @ centroids.T, 0)
        here = own[block]
        rows = np.flatnonzero(here >= 0)
        mine = away[rows, here[rows]]
        away[rows, here[rows]] = np.inf
        distances[start + rows] = mine
        if len(used) > 1:
            other = away[rows][:, used].min(axis=1)
            doubt[start + rows] = mine / np.maximum(mine + other, 1e-12)
    return distances, doubt


def main_classes(members: np.ndarray, labels: np.ndarray, names: Sequence[str], count: int) -> list[tuple[Share, ...]]:
    """The most frequent classes of each of `count` clusters, with their shares of its images that have a label."""
    found: list[list[Share]] = [[] for _ in range(count)]
    is_counted = (members >= 0) & (labels >= 0)
    if not is_counted.any():
        return [()] * count
    sizes = np.bincount(members[is_counted], minlength=count)
    cells, counts = np.unique(members[is_counted] * np.int64(len(names)) + labels[is_counted], return_counts=True)
    of, code = cells // len(names), cells % len(names)
    for each in np.lexsort((code, -counts, of)):
        if len(found[of[each]]) < NUM_MAIN:
            found[of[each]].append(Share(names[code[each]], float(counts[each] / sizes[of[each]])))
    return [tuple(shares) for shares in found]


def enriched(members: np.ndarray, attributes: Attributes, sizes: np.ndarray) -> list[tuple[Enriched, ...]]:
    """The values most typical of each cluster: by how many standard deviations they are above their expected count.

    Of a column of several values a row, only presence counts.
    """
    found: list[list[tuple[float, Enriched]]] = [[] for _ in sizes]
    is_shown = members >= 0
    for column, codes in attributes.codes.items():
        names = attributes.names[column]
        base = np.bincount(codes, minlength=len(names)) / len(codes)
        cells, counts = np.unique(members[is_shown] * np.int64(len(names)) + codes[is_shown], return_counts=True)
        of, code = cells // len(names), cells % len(names)
        expected = sizes[of] * base[code]
        deviations = (counts - expected) / np.sqrt(np.maximum(expected * (1 - base[code]), 1e-12))
        lifts = counts / expected
        is_typical = (counts >= LEAST_SUPPORT) & (lifts >= LEAST_LIFT) & (deviations >= LEAST_DEVIATIONS)
        is_presence = tuple(names[:2]) == (ABSENT, PRESENT)
        for each in np.flatnonzero(is_typical):
            if is_presence and names[code[each]] != PRESENT:
                continue
            name = column if is_presence else f"{column}: {names[code[each]]}"
            share = float(counts[each] / sizes[of[each]])
            value = Enriched(name, int(counts[each]), share, float(lifts[each]))
            found[of[each]].append((float(deviations[each]), value))
    return [
        tuple(value for _, value in sorted(values, key=lambda pair: -pair[0])[:NUM_ENRICHED]) for values in found
    ]  # fmt: skip


def nearest_clusters(
    centroids: np.ndarray, shown: np.ndarray, has_images: np.ndarray
) -> list[tuple[tuple[int, float], ...]]:
    """For each cluster the others whose centroids are nearest, by the cosine."""
    similar = centroids @ centroids.T
    np.fill_diagonal(similar, -np.inf)
    similar[:, ~has_images] = -np.inf
    similar[~has_images] = -np.inf
    order = np.argsort(-similar, axis=1, kind="stable")[:, :NUM_NEAREST]
    return [
        tuple(
            (int(shown[other]), float(similar[place, other])) for other in others if np.isfinite(similar[place, other])
        )
        for place, others in enumerate(order)
    ]


def _strips(
    own: np.ndarray, distances: np.ndarray, count: int, strip: int, generator: np.random.Generator
) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Of each cluster the images nearest to its centroid, at random, and farthest first."""
    order = np.lexsort((distances, own))
    starts = np.searchsorted(own[order], np.arange(count + 1))
    strips = []
    for place in range(count):
        members = order[starts[place] : starts[place + 1]]
        drawn = np.sort(generator.permutation(len(members))[:strip])
        strips.append((members[:strip], members[drawn], members[::-1][:strip]))
    return strips
