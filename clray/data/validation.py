"""The validation images: held out of training, so that what is chosen by them can be reported on the test images."""

from dataclasses import replace

import numpy as np
from jaxtyping import Int

from clray.config.sections import DataConfig
from clray.data.samples import Dataset
from clray.seeding import derive_seed


def with_validation(data: Dataset, config: DataConfig) -> Dataset:
    """The data with `data.validation_fraction` of the training images held out of training, or of the labelled set.

    The same rows for the same data and `split_seed`; none where every class has two images or fewer, or where the data
    have validation images of their own, which a note says.
    """
    if data.validation is not None:
        note = (
            f"the data have {len(data.validation)} validation images of their own: "
            f"data.validation_fraction={config.validation_fraction:g} does nothing"
        )
        return replace(data, notes=(*data.notes, note))
    whole = data.teachers
    labels = whole.labels
    if None in whole.flags:  # most sets of labels are too rare to give a share
        labels = np.minimum(labels, 0)
    held_out = choose_validation(labels, config.validation_fraction, config.split_seed)
    if len(held_out) == 0:
        return data
    kept, validation = whole.select(np.setdiff1d(np.arange(len(whole)), held_out)), whole.select(held_out)
    if data.labelled_set is not None:
        return replace(data, labelled_set=kept, validation=validation)
    return replace(data, train=kept, validation=validation)


def choose_validation(labels: Int[np.ndarray, " n"], fraction: float, seed: int) -> Int[np.ndarray, " m"]:
    """Rows to hold out, sorted: of every class its share, but never its last two samples.

    The share of a class is rounded at random, so that many small classes give their share together.
    """
    generator = np.random.default_rng(derive_seed(seed, "validation"))
    _, classes, counts = np.unique(labels, return_inverse=True, return_counts=True)
    shares = np.floor(counts * fraction + generator.random(len(counts))).astype(np.int64)
    shares = np.minimum(shares, np.maximum(counts - 2, 0))
    # By class, and at random within it.
    order = np.lexsort((generator.random(len(classes)), classes))
    rank = np.arange(len(classes)) - np.repeat(np.cumsum(counts) - counts, counts)
    return np.sort(order[rank < np.repeat(shares, counts)])
