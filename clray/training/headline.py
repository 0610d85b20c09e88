"""The measure by which the epochs of a run and the trials of a sweep are compared: what the data allow."""

from clray.config import Config, override
from clray.config.sections.sweep import AUTO, LABEL_FREE, needs_labels
from clray.data.samples import Dataset
from clray.errors import UserError

DEFAULT_LABEL_FREE = LABEL_FREE[0]
"""Of data without labels."""


def with_metric(config: Config, data: Dataset) -> Config:
    """The config with `sweep.metric` settled: by the linear probe where labels teach and judge one.

    Raises:
        UserError: `sweep.metric` or `sweep.stop_dominated` need labels that the data do not have.
    """
    metric, best = config.sweep.metric, default_metric(data)
    if metric == AUTO:
        config = override(config, {"sweep.metric": best})
    elif needs_labels(metric) and best == DEFAULT_LABEL_FREE:
        raise UserError(
            f"sweep.metric={metric} needs labels of training and validation images, which the data do not have. Name "
            f"their column with data.label_column, or leave sweep.metric out to rank by {best}"
        )
    if config.sweep.stop_dominated and len(data.train.labelled) == 0:
        raise UserError(
            "sweep.stop_dominated=true compares what clusters tell about labels, which the training images do not "
            "have; leave it out, or stop trials with sweep.scheduler=asha"
        )
    return config


def default_metric(data: Dataset) -> str:
    """What `sweep.metric: auto` means for these data."""
    judges = data.test if data.validation is None else data.validation
    has_labels = data.num_classes > 0 and min(len(data.train.labelled), len(judges.labelled)) > 0
    return "eval/linear_accuracy" if has_labels else DEFAULT_LABEL_FREE


def metric_note(config: Config) -> str | None:
    """What a user should know of a measure that `with_metric` chose without labels."""
    metric = config.sweep.metric
    return None if needs_labels(metric) else f"points are ranked by {metric}, which needs no labels (sweep.metric)"
