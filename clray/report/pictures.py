"""What a run's clusters look like: their way over the information plane, against the labels, by size, and on a map."""

import logging
from collections.abc import Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from clray.config import Config
from clray.data.loaders import ordered_batches
from clray.data.samples import Dataset
from clray.model.features import EMBEDDING_BATCH_SIZE, compute_features
from clray.report.look.places import principal_directions
from clray.report.measures import measure_of
from clray.report.png import plain, save_figure
from clray.report.summary import INFORMATION, metric_name
from clray.seeding import derive_seed
from clray.training.checkpoint import read_checkpoint
from clray.training.export import load_model
from clray.training.metrics import Metrics, read_metrics
from clray.training.workers.gpus import device_beside

PATH_FILE, BALANCE_FILE, CLUSTERS_FILE = "information_plane.png", "clusters_by_epoch.png", "clusters.png"
BALANCE = {
    "clusters/entropy_bits": "H(Z), bits",
    "clusters/imbalance_factor": "imbalance",
    "recluster/moved_fraction": "moved",
}
PROBED = ("eval/linear_accuracy", "eval/linear_mean_average_precision")
MAX_MAPPED = 2000
MAX_COLUMNS = 100
"""Clusters shown against the labels; of more, the largest."""
log = logging.getLogger(__name__)


def try_to_draw(folder: Path, config: Config, data: Dataset) -> list[Path]:
    """The pictures of a finished run, or none and a warning; the run is not lost over them."""
    try:
        return draw_run(folder, config, data)
    except Exception as error:
        log.warning("could not draw pictures of %s: %s", folder, error)
        return []


def draw_run(folder: Path, config: Config, data: Dataset) -> list[Path]:
    """Both pictures of a finished run, from its metrics and its newest checkpoint; without labels what is known."""
    checkpoint, history = read_checkpoint(folder), read_metrics(folder)
    ids, num_clusters = checkpoint["cluster_ids"][0].numpy(), checkpoint["num_clusters"][0]
    generator = np.random.default_rng(derive_seed(config.seed, "map"))
    rows = np.sort(generator.permutation(len(data.train))[:MAX_MAPPED])
    device = device_beside(config.train)
    batches = ordered_batches(data.train, rows, batch_size=EMBEDDING_BATCH_SIZE, config=config.data)
    (h,) = compute_features(load_model(checkpoint, config).to(device), batches, device, "h")
    places = principal_directions(h, 2)
    has_information = all(name in epoch for epoch in history for name in INFORMATION)
    return [
        draw_path(history, folder / PATH_FILE) if has_information else draw_balance(history, folder / BALANCE_FILE),
        draw_clusters(ids, num_clusters, data.train.labels, places, rows, data.names[None], folder / CLUSTERS_FILE),
    ]


def draw_path(history: Sequence[Metrics], path: Path) -> Path:
    """I(Z;T) and H(Z|T) by epoch as one line, the evaluated epochs marked and coloured by the linear probe."""
    figure, axes = plt.subplots(figsize=(6.4, 4.4))
    figure.subplots_adjust(left=0.12, right=0.98, bottom=0.12, top=0.96)  # a computed layout takes as long as the rest
    x, y = ([epoch[name] for epoch in history] for name in INFORMATION)
    axes.plot(x, y, color="0.6", linewidth=1)
    measure = next((name for name in PROBED if any(name in epoch for epoch in history)), PROBED[0])
    marked = [i for i, epoch in enumerate(history) if measure in epoch]
    drawn = axes.scatter(
        [x[i] for i in marked], [y[i] for i in marked], c=[100 * history[i][measure] for i in marked],
        cmap="viridis", edgecolors="black", linewidths=0.6, zorder=3,
    )  # fmt: skip
    if marked:
        figure.colorbar(drawn, ax=axes, label=measure_of(measure).axis(metric_name(measure)))
    for i in marked:
        axes.annotate(f"epoch {int(history[i]['epoch'])}", (x[i], y[i]), xytext=(5, 5), textcoords="offset points",
                      fontsize=7)  # fmt: skip
    axes.set_xlabel("I(Z;T), bits: what the clusters tell about the labels")
    axes.set_ylabel("H(Z|T), bits: what they hold besides")
    axes.margins(0.15)
    return save_figure(figure, path, dpi=90)


def draw_balance(history: Sequence[Metrics], path: Path) -> Path:
    """What is known of clusters without labels, by epoch: H(Z), imbalance, and the share of images that moved."""
    shown = {name: text for name, text in BALANCE.items() if any(name in epoch for epoch in history)}
    figure, axes = plt.subplots(len(shown), 1, figsize=(6.4, 1.9 * len(shown)), sharex=True, squeeze=False)
    figure.subplots_adjust(left=0.12, right=0.98, bottom=0.12, top=0.96)
    for axis, (name, text) in zip(axes[:, 0], shown.items(), strict=True):
        known = [epoch for epoch in history if name in epoch]
        axis.plot([epoch["epoch"] for epoch in known], [epoch[name] for epoch in known], marker="o", markersize=3)
        axis.set_ylabel(text)
        axis.xaxis.get_major_locator().set_params(integer=True)
    axes[-1, 0].set_xlabel("epoch")
    return save_figure(figure, path, dpi=90)


def draw_clusters(
    ids: np.ndarray,
    num_clusters: int,
    labels: np.ndarray,
    places: np.ndarray,
    mapped: np.ndarray,
    label_names: tuple[str, ...],
    path: Path,
) -> Path:
    """Clusters against labels, cluster sizes, and a map of embeddings coloured by label and by cluster.

    Without labels sizes and the map by cluster; images without a label are grey beside others.

    Args:
        ids, labels: integers [N]; -1 is the label of an image that has none.
        places: of the samples `mapped`, [m, 2].
    """
    labelled = np.flatnonzero(labels >= 0)
    num_columns = 2 if len(labelled) else 1
    figure, axes = plt.subplots(2, num_columns, figsize=(5.5 * num_columns, 8), squeeze=False)
    right, left = (0.98, 0.06) if len(labelled) else (0.95, 0.12)
    figure.subplots_adjust(left=left, right=right, bottom=0.05, top=0.95, wspace=0.16, hspace=0.25)
    sizes = np.bincount(ids, minlength=num_clusters)
    maps = [(ids, "by cluster")]
    if len(labelled):
        _draw_shares(figure, axes[0, 0], ids[labelled], labels[labelled], sizes, label_names)
        maps.insert(0, (labels, "by label"))
    axes[0, -1].plot(np.sort(sizes)[::-1], color="tab:blue")
    axes[0, -1].set(title="cluster sizes", xlabel="clusters, largest first", ylabel="images")
    axes[0, -1].set_ylim(0, 1.1 * sizes.max())
    for axis, (values, title) in zip(axes[1], maps, strict=True):
        codes, known = values[mapped], values[mapped] >= 0
        axis.scatter(places[~known, 0], places[~known, 1], c="0.8", s=6, linewidths=0)
        axis.scatter(places[known, 0], places[known, 1], c=codes[known] % 20, cmap="tab20", s=6, linewidths=0)
        axis.set(title=f"{len(mapped)} embeddings, {title}", xticks=[], yticks=[])
        axis.set_xlabel("the two directions of largest variance")
    return save_figure(figure, path, dpi=90)


def _draw_shares(
    figure: Figure, axis: Axes, ids: np.ndarray, labels: np.ndarray, all_sizes: np.ndarray, names: tuple[str, ...]
) -> None:
    """The labels in each of the largest clusters; `ids` and `labels` are those of the labelled images."""
    shown = np.argsort(-all_sizes, kind="stable")[:MAX_COLUMNS]
    shares = label_shares(ids, labels, shown, np.bincount(ids, minlength=len(all_sizes)))
    # Clusters of one label stand together, so that a clean clustering shows as steps.
    order = np.lexsort((-shares.max(axis=0), shares.argmax(axis=0)))
    image = axis.imshow(shares[:, order], aspect="auto", vmin=0, vmax=1, cmap="viridis", interpolation="nearest")
    figure.colorbar(image, ax=axis, label="share of the cluster")
    which = "" if len(shown) == len(all_sizes) else f", the {len(shown)} largest of {len(all_sizes)}"
    axis.set(title="labels in each cluster", xlabel=f"cluster{which}", ylabel="label")
    if len(names) <= 20:
        # Of labels that only test images have there is no row.
        axis.set_yticks(range(len(shares)), [plain(name) for name in names[: len(shares)]], fontsize=7)


def label_shares(ids: np.ndarray, labels: np.ndarray, shown: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Share of each label in the clusters shown, [labels, shown]; no table of all clusters is made.

    Args:
        ids, labels: integers [N].
        shown: the numbers of these clusters.
        sizes: of all clusters.
    """
    column = np.full(len(sizes), -1)
    column[shown] = np.arange(len(shown))
    places = column[ids]
    counts = np.zeros((labels.max() + 1, len(shown)), np.int64)
    np.add.at(counts, (labels[places >= 0], places[places >= 0]), 1)
    shares: np.ndarray = counts / np.maximum(sizes[shown], 1)
    return shares
