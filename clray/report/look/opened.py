"""A finished run with the data it was trained on: checked to be those data, and embedded by its encoder.

Draws and writes nothing.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from clray.clusters.statistics import cluster_statistics
from clray.config import Config, stored_config
from clray.data.load import check_files
from clray.data.loaders import ordered_batches
from clray.data.parts import load_parts
from clray.data.samples import Dataset
from clray.errors import UserError
from clray.model.features import EMBEDDING_BATCH_SIZE, compute_features
from clray.seeding import derive_seed
from clray.training.checkpoint import read_checkpoint
from clray.training.checkpoint_form import Checkpoint
from clray.training.export import load_model
from clray.training.metrics import Metrics, read_metrics
from clray.training.workers.gpus import device_beside

SWEEP_RESULTS = "results.json"
INFORMATION = "clusters/mutual_information_bits"
MOVED = "point to them where they are now with data.train_path=..., or look at the run where its data are"


@dataclass(frozen=True)
class Finished:
    """A run and its training images.

    Attributes:
        ids: the cluster of each training image, int32 [N].
        num_clusters: K, counting empty clusters.
        source: where the clusters come from.
        history: metrics by epoch.
    """

    name: str
    folder: Path
    config: Config
    checkpoint: Checkpoint
    data: Dataset
    ids: np.ndarray
    num_clusters: int
    source: str
    history: list[Metrics]


@dataclass(frozen=True)
class Embedded:
    """Some of the training images, as the encoder sees them.

    Attributes:
        rows: which training images, ascending, int64 [m].
        h, z: representations and unit-length embeddings, float32 [m, dim].
    """

    rows: np.ndarray
    h: np.ndarray
    z: np.ndarray


def open_run(place: Path, overrides: Mapping[str, Any] | None = None) -> Finished:
    """A run from its folder, or the best trial of a sweep's folder, with its data.

    Raises:
        UserError: no finished run, or data that are not those it was trained on.
    """
    folder = run_folder(place)
    checkpoint = read_checkpoint(folder)
    config = stored_config(checkpoint.get("config"), overrides or {}, folder)
    try:
        check_files(config.data)
    except UserError as error:
        raise UserError(f"{folder}: the data of the run have moved: {error}; {MOVED}") from None
    data = load_parts(config.data, config.evaluate.targets)
    return finished_run(folder, config, checkpoint, data)


def finished_run(folder: Path, config: Config, checkpoint: Checkpoint, data: Dataset) -> Finished:
    """The run with data that are at hand.

    Raises:
        UserError: they are not those it was trained on.
    """
    ids, history = checkpoint["cluster_ids"][0].numpy().astype(np.int32), read_metrics(folder)
    if len(ids) != len(data.train):
        raise UserError(
            f"{folder}: the run was trained on {len(ids):,} images, its data now hold {len(data.train):,} training "
            f"images; {MOVED}"
        )
    _require_same_labels(folder, checkpoint, ids, data, history)
    name = f"{folder.parents[1].name} {folder.name}" if folder.parent.name == "trials" else folder.name
    return Finished(
        name, folder, config, checkpoint, data, ids, checkpoint["num_clusters"][0], checkpoint["cluster_source"],
        history,
    )  # fmt: skip


def embed_run(run: Finished, most: int) -> Embedded:
    """h and z of all training images, or of `most` of them: half drawn from all, half evenly from the clusters."""
    rows = choose_rows(run.ids, most, derive_seed(run.config.seed, "look"))
    model, device = load_model(run.checkpoint, run.config), device_beside(run.config.train)
    batches = ordered_batches(run.data.train, rows, batch_size=EMBEDDING_BATCH_SIZE, config=run.config.data)
    h, z = compute_features(model.to(device), batches, device)
    return Embedded(rows, h, as_unit(z))


def as_unit(vectors: np.ndarray) -> np.ndarray:
    """The vectors at length 1, float32; one of no length stays as it is."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    units: np.ndarray = (vectors / np.maximum(lengths, 1e-12)).astype(np.float32)
    return units


def choose_rows(ids: np.ndarray, most: int, seed: int) -> np.ndarray:
    """Ascending rows: all, or half of them at random and half by turns from each cluster, so that none is missed."""
    if len(ids) <= most:
        return np.arange(len(ids))
    order = np.random.default_rng(seed).permutation(len(ids))
    chosen, rest = order[: most // 2], order[most // 2 :]
    by_cluster = np.argsort(ids[rest], kind="stable")
    sorted_ids = ids[rest][by_cluster]
    turn = np.arange(len(rest)) - np.searchsorted(sorted_ids, sorted_ids)  # its number within its cluster
    by_turn = rest[by_cluster[np.argsort(turn, kind="stable")]]
    return np.sort(np.concatenate([chosen, by_turn[: most - len(chosen)]]))


def run_folder(place: Path) -> Path:
    """The folder itself, or of a sweep that of the trial that its answer names.

    Raises:
        UserError: no such folder, or a sweep without an answer.
    """
    if not place.exists():
        raise UserError(f"{place}: no such run; give the folder of a run, trial or sweep")
    if not (place / "trials").is_dir():
        return place
    try:
        best = json.loads((place / SWEEP_RESULTS).read_text(encoding="utf-8"))["best"]
        folder = place / "trials" / Path(best).name
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{place}: a sweep with no best trial yet; give the folder of one of {place}/trials") from error
    return folder


def _require_same_labels(
    folder: Path, checkpoint: Checkpoint, ids: np.ndarray, data: Dataset, history: list[Metrics]
) -> None:
    """What the run measured of its clusters must come out again: else these are other images, or in another order."""
    measured = [metrics for metrics in history if metrics["epoch"] == checkpoint["epoch"] and INFORMATION in metrics]
    labelled = data.train.labels >= 0
    if not measured or checkpoint["step_in_epoch"] != 0 or not labelled.any():
        return
    found = cluster_statistics(ids[labelled], data.train.labels[labelled]).mutual_information_bits
    if abs(found - measured[-1][INFORMATION]) > 1e-6:
        raise UserError(
            f"{folder}: the data of the run have changed: its clusters told {measured[-1][INFORMATION]:.4f} bits about "
            f"the labels, and tell {found:.4f} bits about those that are there now; {MOVED}"
        )
