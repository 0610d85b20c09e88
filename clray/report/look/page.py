"""The page of a run's clusters: what `assets/look.js` shows, gathered from a run and its embedded images."""

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from clray.clusters.statistics import cluster_statistics
from clray.config import Config
from clray.data.samples import Dataset
from clray.report.html import binary_block, document, json_block, write_whole
from clray.report.look.changes import KINDS, Changes, stored_changes
from clray.report.look.history import history_charts
from clray.report.look.opened import Embedded, Finished, embed_run, finished_run
from clray.report.look.places import Method, map_vectors
from clray.report.look.portrait import Attributes, ClusterPortrait, largest, portray
from clray.report.look.sprites import TILES_A_SIDE, Sprites, draw_sprites
from clray.report.look.versus import compare, require_same_images
from clray.report.text import as_html, shortened
from clray.seeding import derive_seed
from clray.training.checkpoint import read_checkpoint

STRIP = 8
MOST_IMAGES, MOST_CLUSTERS, MOST_POINTS = 100_000, 1000, 3000
"""Of a page: images that are embedded, clusters shown, and points of the map."""
MOST_ATTRIBUTES = 40
"""By which the map can be coloured and that an image tells of."""
MOST_VALUES = 200
TILE_BYTES, SPRITE_BYTES = 2048, 19_000_000
"""Of a tile and of all; with base64 and the rest a page stays below 30 MB."""
LONGEST_NAME = 120
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Limits:
    """How much a page looks at, which decides how long it takes."""

    images: int = MOST_IMAGES
    clusters: int = MOST_CLUSTERS
    points: int = MOST_POINTS


FEW = Limits(images=2000, clusters=200, points=1000)
"""Of the page that a sweep draws of its own."""


def write_clusters_page(
    run: Finished,
    path: Path,
    *,
    other: Finished | None = None,
    limits: Limits = Limits(),
    method: Method = "auto",
) -> Path:
    """Look at a run's clusters, beside those of another run where one is given, and write the page.

    Raises:
        UserError: runs of different images, or a way of mapping that is not installed.
    """
    if other is not None:
        require_same_images(run, other)
    seed = derive_seed(run.config.seed, "look")
    embedded = embed_run(run, limits.images)
    shown = largest(run.ids, limits.clusters)
    known = _known(run)
    portraits, doubt = portray(
        run.ids, shown, run.data.train.labels, run.data.names[None], known, embedded.rows, embedded.z,
        strip=STRIP, seed=seed,
    )  # fmt: skip
    points = _map_points(run, embedded, min(limits.points, max(1, limits.images // 2)))
    tiles, others = _tiles(embedded, portraits, points, other)
    sprites = draw_sprites(
        run.data.train, tiles, run.config.data, most_bytes=min(SPRITE_BYTES, TILE_BYTES * len(tiles))
    )
    places = {int(row): place for place, row in enumerate(tiles)}
    tree = {
        "about": _about(run, shown, embedded),
        "labels": _names(run.data.names[None]),
        "tiles": _described_tiles(run, tiles, embedded.rows, doubt, known, other),
        "clusters": [_as_tree(each, embedded.rows, places) for each in portraits],
        "map": _map(embedded, points, places, method, seed),
        "history": history_charts(run.history),
        "changes": _changes(stored_changes(run.folder, run.checkpoint)),
        "versus": None if other is None else _versus(run, other, others, places),
        "sprites": {"side": sprites.side, "across": TILES_A_SIDE},
    }  # fmt: skip
    return write_whole(_as_page(f"Clusters of {run.name}", tree, sprites), path)


def draw_best(folder: Path, config: Config, data: Dataset, path: Path) -> Path | None:
    """The page of a sweep's best trial, which looks at few images so that it takes seconds; none where it fails.

    `clray look` looks at all of them.
    """
    try:
        run = finished_run(folder, config, read_checkpoint(folder), data)
        return write_clusters_page(run, path, limits=FEW, method="pca")
    except Exception as error:
        log.warning("could not draw the clusters of %s: %s", folder, error)
        return None


def _as_page(title: str, tree: dict[str, Any], sprites: Sprites) -> str:
    sheets = "".join(binary_block(f"sheet-{number}", sheet) for number, sheet in enumerate(sprites.sheets))
    heading = as_html(shortened(title, 100))
    body = f'<div id="page"><main><h1>{heading}</h1></main></div>{json_block("look", tree)}{sheets}'
    return document(title, body, styles=("page.css", "look.css"), scripts=("chart.js", "look.js"))


def _known(run: Finished) -> Attributes:
    """What is known of the images besides the labels; columns that hold one value tell nothing."""
    names = {name: run.data.names[name] for name in run.data.train.columns}
    useful = [name for name, values in names.items() if len(values) > 1]
    return Attributes({name: run.data.train.columns[name] for name in useful}, {name: names[name] for name in useful})


def _map_points(run: Finished, embedded: Embedded, most: int) -> np.ndarray:
    """Places of the points of the map among the embedded images: drawn from all images, whatever their cluster."""
    order = np.random.default_rng(derive_seed(run.config.seed, "look")).permutation(len(run.ids))
    return np.searchsorted(embedded.rows, np.sort(order[:most]))


def _tiles(
    embedded: Embedded, portraits: Sequence[ClusterPortrait], points: np.ndarray, other: Finished | None
) -> tuple[np.ndarray, dict[int, np.ndarray]]:
    """The rows that the page shows, cluster by cluster, and of the other run's clusters the rows that show them."""
    by_cluster = [np.concatenate([each.central, each.random, each.far]) for each in portraits]
    rows = [embedded.rows[places] for places in by_cluster]
    others: dict[int, np.ndarray] = {}
    if other is not None:
        generator = np.random.default_rng(derive_seed(other.config.seed, "look"))
        order = generator.permutation(len(other.ids))
        order = order[np.argsort(other.ids[order], kind="stable")]
        starts = np.searchsorted(other.ids[order], np.arange(int(other.ids.max()) + 2))
        shown = largest(other.ids, MOST_CLUSTERS)
        others = {int(number): order[starts[number] : starts[number + 1]][:STRIP] for number in shown}
        rows += list(others.values())
    every = np.concatenate([*rows, embedded.rows[points]])
    _, first = np.unique(every, return_index=True)
    return every[np.sort(first)], others


def _about(run: Finished, shown: np.ndarray, embedded: Embedded) -> dict[str, Any]:
    labels = run.data.train.labels
    labelled = labels >= 0
    statistics = cluster_statistics(run.ids[labelled], labels[labelled], run.num_clusters) if labelled.any() else None
    return {
        "name": shortened(run.name, LONGEST_NAME),
        "source": shortened(run.source),
        "epoch": run.checkpoint["epoch"],
        "images": len(run.ids),
        "embedded": len(embedded.rows),
        "clusters": int((np.bincount(run.ids) > 0).sum()),
        "shown": len(shown),
        "largest": int(np.bincount(run.ids).max()),
        "statistics": None if statistics is None else asdict(statistics),
    }


def _described_tiles(
    run: Finished, tiles: np.ndarray, embedded: np.ndarray, doubt: np.ndarray, known: Attributes, other: Finished | None
) -> dict[str, Any]:
    """What the page tells of each image, by tile."""
    at = np.minimum(np.searchsorted(embedded, tiles), len(embedded) - 1)
    is_embedded = embedded[at] == tiles
    few = [name for name in known.codes if len(known.names[name]) <= MOST_VALUES][:MOST_ATTRIBUTES]
    return {
        "names": [shortened(run.data.train.images.name(int(row)), LONGEST_NAME) for row in tiles],
        "labels": run.data.train.labels[tiles].tolist(),
        "clusters": run.ids[tiles].tolist(),
        "doubt": [round(float(value), 3) if is_there else None
                  for value, is_there in zip(doubt[at], is_embedded, strict=True)],
        "others": None if other is None else other.ids[tiles].tolist(),
        "attributes": [
            {"name": shortened(name), "values": _names(known.names[name]), "codes": known.codes[name][tiles].tolist()}
            for name in few
        ],
    }  # fmt: skip


def _names(names: Sequence[str]) -> list[str]:
    return [shortened(name, LONGEST_NAME) for name in names]


def _as_tree(each: ClusterPortrait, rows: np.ndarray, places: dict[int, int]) -> dict[str, Any]:
    def tiles(chosen: np.ndarray) -> list[int]:
        return [places[int(row)] for row in rows[chosen]]

    return {
        "number": each.number,
        "size": each.size,
        "main": [[shortened(share.name, LONGEST_NAME), round(share.share, 4)] for share in each.main],
        "purity": each.purity,
        "enriched": [
            [shortened(value.name, LONGEST_NAME), value.support, round(value.share, 4), round(value.lift, 2)]
            for value in each.enriched
        ],
        "doubt": each.doubt,
        "nearest": [[number, round(cosine, 3)] for number, cosine in each.nearest],
        "central": tiles(each.central),
        "random": tiles(each.random),
        "far": tiles(each.far),
    }


def _map(
    embedded: Embedded, points: np.ndarray, places: dict[int, int], method: Method, seed: int
) -> dict[str, Any]:  # fmt: skip
    found, title = map_vectors(embedded.h[points], method, seed)
    return {
        "tiles": [places[int(row)] for row in embedded.rows[points]],
        "x": [round(float(value), 4) for value in found[:, 0]],
        "y": [round(float(value), 4) for value in found[:, 1]],
        "method": title,
    }


def _changes(changes: Changes | None) -> dict[str, Any] | None:
    if changes is None:
        return None
    return {
        "earlier": changes.earlier,
        "later": changes.later,
        "moved": changes.moved_fraction,
        "counts": {kind: changes.count(kind) for kind in KINDS},
        "clusters": [
            {"number": each.number, "size": each.size, "kind": each.kind, "parts": each.parts}
            for each in sorted(changes.clusters, key=lambda change: -change.size)[:MOST_CLUSTERS]
        ],
    }


def _versus(run: Finished, other: Finished, others: dict[int, np.ndarray], places: dict[int, int]) -> dict[str, Any]:
    found = compare(run.ids, other.ids)
    sizes = np.bincount(other.ids)
    return {
        "name": shortened(other.name, LONGEST_NAME),
        "source": shortened(other.source),
        "ari": found.ari,
        "ami": found.ami,
        "clusters": int((sizes > 0).sum()),
        "parts": {str(number): [[to, round(share, 4)] for to, share in into] for number, into in found.parts.items()},
        "tiles": {str(number): [places[int(row)] for row in rows] for number, rows in others.items()},
        "sizes": {str(number): int(sizes[number]) for number in others},
        "history": history_charts(other.history),
    }
