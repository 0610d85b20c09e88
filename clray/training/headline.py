"""The measure by which the epochs of a run and the trials of a sweep are compared: what the data allow."""

import numpy as np

from clray.config import Config, override
from clray.config.sections.data import metric_suffix
from clray.config.sections.sweep import AUTO, LABEL_FREE, LABELLED, needs_labels
from clray.data.samples import Dataset
from clray.errors import UserError

DEFAULT_LABEL_FREE = LABEL_FREE[0]
"""Of data without labels."""
OF_SETS = "mean_average_precision"
"""What takes the place of accuracy where an image may have several labels."""


def with_metric(config: Config, data: Dataset) -> Config:
    """The config with `sweep.metric` settled: by the linear probe where labels teach and judge one.

    Raises:
        UserError: `sweep.metric` or `sweep.stop_dominated` need labels that the data do not have.
    """
    metric, best = config.sweep.metric, default_metric(data)
    known = [name for column in data.label_columns for name in _measures_of(data, column)]
    if metric == AUTO:
        config = override(config, {"sweep.metric": best})
    elif needs_labels(metric) and not known:
        raise UserError(
            f"sweep.metric={metric} needs labels of training and validation images, which the data do not have. Name "
            f"their column with data.label_column, or leave sweep.metric out to rank by {best}"
        )
    elif needs_labels(metric) and metric not in known:
        raise UserError(f"sweep.metric={metric}: the labels of these data tell {', '.join(known)}")
    if config.sweep.stop_dominated and len(data.train.labelled) == 0:
        raise UserError(
            "sweep.stop_dominated=true compares what clusters tell about labels, which the training images do not "
            "have; leave it out, or stop trials with sweep.scheduler=asha"
        )
    return config


def default_metric(data: Dataset) -> str:
    """What `sweep.metric: auto` means for these data: the first measure by the first column of labels."""
    return next(iter(_measures_of(data, None)), DEFAULT_LABEL_FREE)


def _measures_of(data: Dataset, column: str | None) -> tuple[str, ...]:
    """What a column of labels allows; nothing where it does not both teach and judge."""
    taught, judged = (part.judged_by(column) for part in (data.teachers, data.judges))
    if data.num_classes_of(column) == 0 or len(np.unique(taught[taught >= 0])) < 2 or not (judged >= 0).any():
        return ()
    is_of_sets = column in data.teachers.flags
    return tuple(f"{name}{metric_suffix(column)}" for name in LABELLED if name.endswith(OF_SETS) == is_of_sets)


def metric_note(config: Config) -> str | None:
    """What a user should know of a measure that `with_metric` chose without labels."""
    metric = config.sweep.metric
    return None if needs_labels(metric) else f"points are ranked by {metric}, which needs no labels (sweep.metric)"
