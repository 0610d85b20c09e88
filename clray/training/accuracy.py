"""How good a model's representation is: linear probe and nearest neighbours, over the images of all workers."""

import time
from pathlib import Path

import numpy as np
import torch

from clray.config import Config
from clray.config.sections.data import metric_suffix
from clray.data.samples import Dataset
from clray.evaluate.label_free import MAX_PAIRED, MAX_SAMPLES, label_free_measures
from clray.evaluate.labelled import Labelled
from clray.evaluate.linear_probe import LinearProbe
from clray.evaluate.nearest_neighbors import nearest_neighbor_measures
from clray.model.encoder import ContrastiveModel
from clray.seeding import derive_seed
from clray.training.checkpoint_form import Checkpoint
from clray.training.cluster_metrics import measure_clusters
from clray.training.encoder_start import fresh_model
from clray.training.export import load_model
from clray.training.metrics import Metrics
from clray.training.pixel_statistics import with_own_pixels
from clray.training.representations import Features, features_on_first, two_views
from clray.training.workers.gpus import device_beside
from clray.training.workers.port import Session, from_first
from clray.training.workers.process import LocalSession


def evaluate(
    config: Config, model: ContrastiveModel, data: Dataset, session: Session, *, with_test: bool
) -> Metrics:  # fmt: skip
    """Linear-probe and nearest-neighbour accuracy of the representation h; every rank must call it.

    For several labels an image it is the mean average precision. The measures of a further column of labels, or of a
    target, end in its name, as in `eval/linear_accuracy/colour`.

    `eval/...` is measured on the validation images, and chooses; `test/...` on the test images, which are embedded
    `with_test` alone, for a run that ends. Without validation images both are measured on the test images. What the
    labels do not tell is left out.

    `eval/rankme`, `eval/stability` and the like need no labels: they are measured on training images.

    Each worker embeds its own images; the rows go to rank 0, which measures while the others wait.
    """
    start = time.perf_counter()
    parts = {"teachers": data.teachers} | ({} if data.validation is None else {"eval": data.validation})
    if with_test or data.validation is None:
        parts["test"] = data.test
    features = {
        # Of the teachers, where they are all that is trained on, z is measured too.
        name: features_on_first(config, model, images, session, with_z=name == "teachers" and data.labelled_set is None)
        for name, images in parts.items()
    }
    seen = features["teachers"]
    if data.labelled_set is not None:
        every = max(1, len(data.train) // MAX_SAMPLES)
        some = data.train.select(np.arange(0, len(data.train), every))
        seen = features_on_first(config, model, some, session, with_z=True)

    def measure() -> Metrics:
        accuracies, rows = Metrics(), {name: each.h for name, each in features.items() if each is not None}
        for column in data.label_columns:
            labelled = {name: _labelled(h, parts[name].judged_by(column)) for name, h in rows.items()}
            of_column = _measure(config, labelled, data.num_classes_of(column), session.device)
            accuracies |= {f"{name}{metric_suffix(column)}": value for name, value in of_column.items()}
        return accuracies | _label_free(config, model, data, seen, session)

    found = from_first(measure, session.world_size)
    if data.validation is None:
        found |= {name.replace("test/", "eval/", 1): value for name, value in found.items() if name.startswith("test/")}
    shown = ("eval/", "test/") if with_test else ("eval/",)
    metrics = {name: value for name, value in found.items() if name.startswith(shown)}
    return {**metrics, "eval/seconds": time.perf_counter() - start}


def _measure(config: Config, parts: dict[str, Labelled], num_classes: int, device: torch.device) -> Metrics:
    """Of all parts but the teachers, by `part/name`; none where there is nothing to learn or to measure."""
    train = parts["teachers"]
    measured = {name: part for name, part in parts.items() if name != "teachers" and len(part)}
    if not measured or not train.has_classes:
        return {}
    probe = LinearProbe(
        train,
        measured.get("eval"),
        num_classes=num_classes,
        seed=derive_seed(config.seed, "probe") % 2**32,
        device=device,
    )
    settings = config.evaluate
    linear = probe.measure(measured, budgets=settings.budgets, num_draws=settings.label_draws)
    found = Metrics()
    for name, part in measured.items():
        by_neighbors = nearest_neighbor_measures(
            train, part, num_classes=num_classes, num_neighbors=settings.num_neighbors, device=device
        )
        found |= {f"{name}/{key}": value for key, value in (linear[name] | by_neighbors).items()}
    return found


def _label_free(
    config: Config, model: ContrastiveModel, data: Dataset, train: Features | None, session: Session
) -> Metrics:
    """What is known without labels, on rank 0."""
    assert train is not None, "the rows are on rank 0"
    seed = derive_seed(config.seed, "label-free") % 2**32
    rows = np.random.default_rng(seed).permutation(len(train.h))[:MAX_SAMPLES]
    views = two_views(config, model, data, session, most=MAX_PAIRED, seed=seed)
    found = label_free_measures(train.h[rows], train.z[rows], (views[0].z, views[1].z), seed=seed)
    return {f"eval/{name}": value for name, value in found.items()}


def _labelled(h: np.ndarray, labels: np.ndarray) -> Labelled:
    """The rows of the images that have a label."""
    known = labels >= 0 if labels.ndim == 1 else (labels >= 0).any(1)
    return Labelled(h, labels) if known.all() else Labelled(h[known], labels[known])


def evaluate_checkpoint(checkpoint: Checkpoint, config: Config, data: Dataset) -> Metrics:
    """Accuracy of a checkpoint's encoder, and where the data are those it was trained on its cluster statistics."""
    model = load_model(checkpoint, config)
    session = LocalSession(Path(), None, lambda _: None, device_beside(config.train))
    metrics = {
        "epoch": checkpoint["epoch"],
        **evaluate(config, model.to(session.device), data, session, with_test=True),
    }
    ids = checkpoint["cluster_ids"][0].numpy()
    if len(ids) == len(data.train) and checkpoint["cluster_source"] != "values":
        metrics |= measure_clusters(ids, data.train, checkpoint["num_clusters"][0])
    return metrics


def evaluate_untrained(config: Config, data: Dataset) -> Metrics:
    """Accuracy of the encoder that a run with this config starts from."""
    session = LocalSession(Path(), None, lambda _: None, device_beside(config.train))
    config = with_own_pixels(config, data.train)
    model = fresh_model(config, data.num_channels, config.clusters.num_clusters)
    return evaluate(config, model.to(session.device), data, session, with_test=True)
