"""What a run's clusters look like: their way over the information plane, against the labels, by size, and on a map."""

import logging
from collections.abc import Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from sklearn.decomposition import PCA

from clray.config import Config
from clray.data.loaders import ordered_batches
from clray.data.samples import Dataset
from clray.model.features import EMBEDDING_BATCH_SIZE, compute_features
from clray.report.png import plain, save_figure
from clray.seeding import derive_seed
from clray.training.checkpoint import read_checkpoint
from clray.training.export import load_model
from clray.training.metrics import Metrics, read_metrics
from clray.training.workers.process import default_device

PATH_FILE, CLUSTERS_FILE = "information_plane.png", "clusters.png"
MAX_MAPPED = 2000
MAX_COLUMNS = 100
"""Clusters shown against the labels; of more, the largest."""
log = logging.getLogger(__name__)


def draw_wanted(folder: Path, config: Config, data: Dataset) -> list[Path]:
    """The pictures of a finished run that `tracking.pictures` asks for; the run is not lost over them."""
    if config.tracking.pictures == "none":
        return []
    try:
        return draw_run(folder, config, data)
    except Exception as error:
        log.warning("could not draw pictures of %s: %s", folder, error)
        return []


def draw_run(folder: Path, config: Config, data: Dataset) -> list[Path]:
    """Both pictures of a finished run, from its metrics and its newest checkpoint."""
    checkpoint = read_checkpoint(folder)
    ids, num_clusters = checkpoint["cluster_ids"][0].numpy(), checkpoint["num_clusters"][0]
    generator = np.random.default_rng(derive_seed(config.seed, "map"))
    rows = np.sort(generator.permutation(len(data.train))[:MAX_MAPPED])
    device = default_device()
    batches = ordered_batches(data.train, rows, batch_size=EMBEDDING_BATCH_SIZE, config=config.data)
    h, _ = compute_features(load_model(checkpoint, config).to(device), batches, device)
    places = PCA(2, random_state=0).fit_transform(h)
    return [
        draw_path(read_metrics(folder), folder / PATH_FILE),
        draw_clusters(ids, num_clusters, data.train.labels, places, rows, data.names[None], folder / CLUSTERS_FILE),
    ]


def draw_path(history: Sequence[Metrics], path: Path) -> Path:
    """I(Z;T) and H(Z|T) by epoch as one line, the evaluated epochs marked and coloured by linear accuracy."""
    figure, axes = plt.subplots(figsize=(6.4, 4.4))
    figure.subplots_adjust(left=0.12, right=0.98, bottom=0.12, top=0.96)  # a computed layout takes as long as the rest
    x = [epoch["clusters/mutual_information_bits"] for epoch in history]
    y = [epoch["clusters/conditional_entropy_bits"] for epoch in history]
    axes.plot(x, y, color="0.6", linewidth=1)
    marked = [i for i, epoch in enumerate(history) if "eval/linear_accuracy" in epoch]
    drawn = axes.scatter(
        [x[i] for i in marked], [y[i] for i in marked], c=[100 * history[i]["eval/linear_accuracy"] for i in marked],
        cmap="viridis", edgecolors="black", linewidths=0.6, zorder=3,
    )  # fmt: skip
    figure.colorbar(drawn, ax=axes, label="linear accuracy (%)")
    for i in marked:
        axes.annotate(f"epoch {int(history[i]['epoch'])}", (x[i], y[i]), xytext=(5, 5), textcoords="offset points",
                      fontsize=7)  # fmt: skip
    axes.set_xlabel("I(Z;T), bits: what the clusters tell about the labels")
    axes.set_ylabel("H(Z|T), bits: what they hold besides")
    axes.margins(0.15)
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

    Args:
        ids, labels: integers [N].
        places: of the samples `mapped`, [m, 2].
    """
    figure, axes = plt.subplots(2, 2, figsize=(11, 8))
    figure.subplots_adjust(left=0.06, right=0.98, bottom=0.05, top=0.95, wspace=0.16, hspace=0.25)
    sizes = np.bincount(ids, minlength=num_clusters)
    shown = np.argsort(-sizes, kind="stable")[:MAX_COLUMNS]
    shares = label_shares(ids, labels, shown, sizes)
    # Clusters of one label stand together, so that a clean clustering shows as steps.
    order = np.lexsort((-shares.max(axis=0), shares.argmax(axis=0)))
    image = axes[0, 0].imshow(shares[:, order], aspect="auto", vmin=0, vmax=1, cmap="viridis", interpolation="nearest")
    figure.colorbar(image, ax=axes[0, 0], label="share of the cluster")
    which = "" if len(shown) == num_clusters else f", the {len(shown)} largest of {num_clusters}"
    axes[0, 0].set(title="labels in each cluster", xlabel=f"cluster{which}", ylabel="label")
    if len(label_names) <= 20:
        axes[0, 0].set_yticks(range(len(label_names)), [plain(name) for name in label_names], fontsize=7)
    axes[0, 1].plot(np.sort(sizes)[::-1], color="tab:blue")
    axes[0, 1].set(title="cluster sizes", xlabel="clusters, largest first", ylabel="images")
    axes[0, 1].set_ylim(0, 1.1 * sizes.max())
    for column, (values, title) in enumerate(((labels, "by label"), (ids, "by cluster"))):
        axes[1, column].scatter(places[:, 0], places[:, 1], c=values[mapped] % 20, cmap="tab20", s=6, linewidths=0)
        axes[1, column].set(title=f"{len(mapped)} embeddings, {title}", xticks=[], yticks=[])
        axes[1, column].set_xlabel("the two directions of largest variance")
    return save_figure(figure, path, dpi=90)


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
