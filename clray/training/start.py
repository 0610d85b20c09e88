"""What a run starts from, built once and handed to where it trains: its first clusters and its model."""

from dataclasses import dataclass

import numpy as np

from clray.clusters.assignment import ClusterAssignment
from clray.clusters.known import known_clusters, note_on_ids
from clray.config import Config
from clray.data.samples import Dataset
from clray.model.encoder import ContrastiveModel
from clray.training.check import check_against_data, check_classes, view_shape
from clray.training.conditioning import value_assignment, value_notes
from clray.training.encoder_start import check_encoder, is_plain, matched_model, start_notes, with_pixels
from clray.training.first_clusterings import FirstClustering
from clray.training.objectives.rehearsal import rehearse
from clray.training.pixel_statistics import with_own_pixels
from clray.training.positives import positives_notes

StartClusters = dict[str, tuple[ClusterAssignment, ...]]
"""What trials start with, by `clusters_key`."""


@dataclass(frozen=True)
class Start:
    """What a run starts from.

    Attributes:
        assignments: clusters of the training images, one for each granularity.
        model: on the CPU, trained in place; None where the process that trains it builds it.
        notes: what the user should know of it.
        first: its first clustering, where that has been computed already.
    """

    assignments: tuple[ClusterAssignment, ...]
    model: ContrastiveModel | None = None
    notes: tuple[str, ...] = ()
    first: FirstClustering | None = None


def prepare(config: Config, data: Dataset) -> Start:
    """The start of a single run, with everything that these data and the user's own code rule out refused.

    Raises:
        UserError: as `check_against_data` and `check_code`; clusters that the data do not have.
    """
    check_against_data(config, data)
    config = with_own_pixels(config, data.train)
    assignments = start_clusters(config, data)
    check_classes(config, assignments)
    notes = (
        *cluster_notes(config, data),
        *value_notes(config, data, assignments),
        *positives_notes([config], len(data.train)),
    )
    if config.train.num_workers > 1:
        return Start(assignments, None, (*notes, *check_code(config, data, assignments)))
    model, match = matched_model(config, data.num_channels, num_classes(config, assignments))
    rehearse_own_objective(config, data, assignments, model)
    return Start(assignments, model, (*notes, *check_encoder(with_pixels(config), data, model, match)))


def check_code(config: Config, data: Dataset, assignments: tuple[ClusterAssignment, ...]) -> tuple[str, ...]:
    """What the user should know of a start that other processes build, after a try where only that tells.

    Raises:
        UserError: an encoder, its weights or an objective that cannot be used.
    """
    config = with_own_pixels(config, data.train)
    if is_plain(config) and not config.objective.is_own:
        return start_notes(config, None)
    model, match = matched_model(config, data.num_channels, num_classes(config, assignments))
    rehearse_own_objective(config, data, assignments, model)
    return check_encoder(with_pixels(config), data, model, match)


def start_clusters(config: Config, data: Dataset) -> tuple[ClusterAssignment, ...]:
    """The assignments the run starts with."""
    train = data.train
    if config.clusters.source == "values":
        return (value_assignment(config.clusters, data),)
    return known_clusters(
        config.clusters, labels=train.labels, columns=train.columns, names=data.names, seed=config.seed
    )


def cluster_notes(config: Config, data: Dataset) -> tuple[str, ...]:
    """What the user should know of the clusters that the run starts with."""
    note = note_on_ids(config.clusters, data.train.columns)
    return () if note is None else (note,)


def clusters_key(config: Config) -> str:
    """Equal for runs on the same data that start with the same clusters."""
    clusters = config.clusters
    if clusters.source == "kmeans":  # each image its own, whatever follows
        return "instance"
    is_random = clusters.source == "synthetic" or ":" in clusters.source
    # Which members count is decided later, and not here.
    known = clusters.model_dump_json(exclude={"confidence", "confidence_by"})
    return f"{known} {config.seed if is_random else ''}"


def num_classes(config: Config, assignments: tuple[ClusterAssignment, ...]) -> int:
    """What a classifier of the clusters tells apart: those of k-means, which come later, or those at the start."""
    return config.clusters.num_clusters if config.clusters.source == "kmeans" else assignments[0].num_clusters


def rehearse_own_objective(
    config: Config, data: Dataset, assignments: tuple[ClusterAssignment, ...], model: ContrastiveModel
) -> None:
    """Raise UserError where the user's objective fails on a few random images; nothing for clray's own."""
    if config.objective.is_own:
        ids = np.stack([each.ids for each in assignments])
        rehearse(config, model, view_shape(config, data), ids)
