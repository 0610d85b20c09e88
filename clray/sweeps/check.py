"""Whether every trial of a sweep can be run on its data, before any starts; what that takes is built once."""

from clray.config import Config
from clray.data.samples import Dataset
from clray.errors import UserError
from clray.sweeps.search_space import SweepPoint
from clray.training.check import check_against_data, check_classes
from clray.training.conditioning import value_notes
from clray.training.objectives.kernel_contrast import kernel_of
from clray.training.positives import positives_notes
from clray.training.start import StartClusters, check_code, cluster_notes, clusters_key, start_clusters


def check_points(points: list[SweepPoint], data: Dataset) -> tuple[StartClusters, list[str]]:
    """The clusters that the trials start with, each built once, and what the user should know of their starts.

    Raises:
        UserError: a trial that cannot be run on these data, by its name.
    """
    known: StartClusters = {}
    notes: dict[str, tuple[str, ...]] = {}
    for point in points:
        try:
            _check_point(point.config, data, known, notes)
        except UserError as error:
            raise UserError(f"trial {point.name}: {error}") from None
    notes["positives"] = positives_notes([point.config for point in points], len(data.train))
    return known, list(dict.fromkeys(note for each in notes.values() for note in each))


def _check_point(config: Config, data: Dataset, known: StartClusters, notes: dict[str, tuple[str, ...]]) -> None:
    check_against_data(config, data)
    key = clusters_key(config)
    if key not in known:
        known[key] = start_clusters(config, data)
        notes[key] = cluster_notes(config, data)
    check_classes(config, known[key])
    of_values = repr((key, kernel_of(config.objective), config.train.global_batch_size))
    if of_values not in notes:
        notes[of_values] = value_notes(config, data, known[key])
    # Trials build their own model; what is tried here is tried once for all that have the same.
    clusters = (config.clusters.source, config.recluster.warmup_epochs)
    same = repr((config.encoder, config.head, config.objective, *clusters))
    if same not in notes:
        notes[same] = check_code(config, data, known[key])
