"""Attributes that clusters and representations are held against, beside the labels or in their place."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from clray.config.sections import DataConfig
from clray.data.attributes import encode_target
from clray.data.readers.columns import joined
from clray.data.readers.split import PartName, Parts
from clray.data.samples import Dataset, Samples
from clray.errors import UserError

Encoded = tuple[dict[PartName, np.ndarray], tuple[str, ...]]
"""Codes of each part, int32 [N] with -1 for what is missing, and what they stand for in all of them."""


def encode_targets(parts: Parts, wanted: Sequence[str], config: DataConfig) -> dict[str, Encoded]:
    """The attributes of `evaluate.targets` over all parts, by name; a part without the attribute knows none of it.

    Raises:
        UserError: an attribute that no part has, or one that is the same everywhere.
    """
    # A further column of labels is measured anyway.
    return {name: _encode(name, parts, config) for name in wanted if name not in config.further_columns}


def _encode(name: str, parts: Parts, config: DataConfig) -> Encoded:
    columns = dict.fromkeys(column for part in parts.values() for column in part.columns)
    # Lists become attributes such as colour=red.
    for column in (each for each in columns if f"{name}=".startswith(f"{each}=")):
        holders = {part: split.columns[column] for part, split in parts.items() if column in split.columns}
        encoded = encode_target(name, column, joined(*holders.values()), config)
        if encoded is None:
            continue
        codes, names = encoded
        if len(names) < 2:
            raise UserError(f"evaluate.targets: {name} tells no images apart, it has one value or none; leave it out")
        ends = np.cumsum([len(values) for values in holders.values()])
        known = dict(zip(holders, np.split(codes, ends[:-1]), strict=True))
        return {part: known.get(part, np.full(len(split.labels), -1, np.int32)) for part, split in parts.items()}, names
    raise UserError(
        f"evaluate.targets: the data have no attribute {name}; they have: {', '.join(columns) or 'none'}. Of a column "
        "of lists name one value, as in colour=red"
    )


def with_headline(data: Dataset, targets: Sequence[str]) -> Dataset:
    """The data as they are; without labels with the first of `evaluate.targets` in the place of these."""
    if data.num_classes > 0 or not targets:
        return data
    first, names = targets[0], data.targets[targets[0]]
    others = {name: each for name, each in data.targets.items() if name != first}

    def moved(samples: Samples) -> Samples:
        rest = {name: samples.targets[name] for name in others}
        flags = {None if name == first else name: each for name, each in samples.flags.items()}
        return replace(samples, labels=samples.targets[first], targets=rest, flags=flags)

    return replace(
        data,
        train=moved(data.train),
        test=moved(data.test),
        validation=None if data.validation is None else moved(data.validation),
        labelled_set=None if data.labelled_set is None else moved(data.labelled_set),
        num_classes=len(names),
        names={**data.names, None: names},
        targets=others,
    )
