"""The parts of a data set as they stand, with a smaller labelled set of its own where the config names one."""

from dataclasses import replace

from clray.config.sections import DataConfig
from clray.data.labels import read_labels
from clray.data.readers.registry import read_data
from clray.data.readers.split import Parts, Split, no_labels
from clray.errors import UserError


def read_parts(config: DataConfig) -> Parts:
    """The parts that the data have; with `data.labelled_path` its images and parts, and all others for training alone.

    First come the images that teach.

    Raises:
        UserError: as `read_data`.
    """
    if config.labelled_path is None:
        return read_data(config)
    only = {"labelled_path": None, "train_path": config.labelled_path, "attributes_path": None}
    try:
        known = read_data(config.model_copy(update=only))
    except UserError as error:
        raise UserError(f"data.labelled_path, read as data.name={config.name}: {error}") from error
    others = ("test_path", "validation_path", "labels_path", "test_labels_path", "validation_labels_path")
    train = read_data(config.model_copy(update=dict.fromkeys((*others, "label_column", "label_columns"))))["train"]
    return {"labelled": known.pop("train"), **known, "train": _without_labels(train, config)}


def _without_labels(train: Split, config: DataConfig) -> Split:
    named = {config.label_column, *(config.label_columns or ())}
    codes = read_labels(train.labels, config.list_separator).codes
    is_labelled = bool(named & train.columns.keys()) or bool((codes >= 0).any())
    note = "data.labelled_path holds the labels: those of data.train_path are left out"
    columns = {name: values for name, values in train.columns.items() if name not in named}
    notes = (*train.notes, note) if is_labelled else train.notes
    return replace(train, labels=no_labels(len(train.labels)), columns=columns, notes=notes)
