"""What a run trains and tests on: images with codes for what is known about them."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float, Int
from torch import Tensor

from clray.data.images.port import Images


@dataclass(frozen=True)
class Samples:
    """N images with what is known about them.

    Attributes:
        images: decoded, or to be decoded while training, in memory or in their files.
        labels: downstream labels T, int32 [N] in 0..num_classes-1; -1 where an image has none. Of several labels an
            image the code of their set.
        columns: attributes as codes, each int32 [N].
        numbers: of the continuous attributes, whose codes are bins, float64 [N] with NaN where one is missing.
        targets: further columns of labels, by name; codes as `labels` has them.
        flags: of the columns with several labels an image, None for `labels`: int8 [N, labels], 1 where the image has
            the label, 0 where not, -1 where that is unknown.
        names: of the images, such as their files; empty where nobody asked for them.
        held: the images as batches have them, where these lie on the device that trains on them.
    """

    images: Images
    labels: Int[np.ndarray, " n"]
    columns: dict[str, Int[np.ndarray, " n"]]
    names: Sequence[str] = ()
    targets: dict[str, Int[np.ndarray, " n"]] = field(default_factory=dict)
    flags: dict[str | None, Int[np.ndarray, "n labels"]] = field(default_factory=dict)
    held: Tensor | None = None
    numbers: dict[str, Float[np.ndarray, " n"]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def labelled(self) -> Int[np.ndarray, " m"]:
        """Numbers of the images that have a label."""
        return np.flatnonzero(self.labels >= 0)

    def judged_by(self, column: str | None) -> Int[np.ndarray, "n ..."]:
        """What is known by a column of labels, None for `labels`: codes [N], or flags [N, labels]."""
        if column in self.flags:
            return self.flags[column]
        return self.labels if column is None else self.targets[column]

    def select(self, indices: Int[np.ndarray, " m"]) -> "Samples":
        """The samples at `indices`, in that order."""
        columns, targets, numbers = (
            {name: values[indices] for name, values in each.items()}
            for each in (self.columns, self.targets, self.numbers)
        )
        flags = {name: values[indices] for name, values in self.flags.items()}
        names = [self.names[i] for i in indices] if self.names else ()
        images, labels = self.images.select(indices), self.labels[indices]
        return Samples(images, labels, columns, names, targets, flags, numbers=numbers)


@dataclass(frozen=True)
class Dataset:
    """Training and test images.

    Attributes:
        num_classes: 0 where no image has a label.
        validation: held out of training to choose by; None where the test images choose.
        names: what the codes of a column stand for; None is the label.
        targets: of the samples, with what their codes stand for.
        labelled_set: images that teach the probe and are neighbours, in the place of the training images, whose
            labels are unknown then.
        skipped: the reasons of the images left out under `data.on_bad_image: skip`.
        notes: what else a user should know of the data.
    """

    train: Samples
    test: Samples
    num_classes: int
    num_channels: int
    names: dict[str | None, tuple[str, ...]]
    skipped: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    validation: Samples | None = None
    targets: dict[str, tuple[str, ...]] = field(default_factory=dict)
    labelled_set: Samples | None = None

    @property
    def label_columns(self) -> tuple[str | None, ...]:
        """What is told of the images by labels: None for the first column, the targets by name."""
        return (None, *self.targets)

    def num_classes_of(self, column: str | None) -> int:
        """Of one of the `label_columns`."""
        return self.num_classes if column is None else len(self.targets[column])

    @property
    def teachers(self) -> Samples:
        """The images by whose labels a probe learns."""
        return self.train if self.labelled_set is None else self.labelled_set

    @property
    def judges(self) -> Samples:
        """The images by whose labels a representation is chosen."""
        return self.test if self.validation is None else self.validation
