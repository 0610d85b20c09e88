"""What a run trains and tests on: images with codes for what is known about them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int

from clray.data.images.port import Images


@dataclass(frozen=True)
class Samples:
    """N images with what is known about them.

    Attributes:
        images: decoded, or to be decoded while training, in memory or in their files.
        labels: downstream labels T, int32 [N] in 0..num_classes-1; -1 where an image has none.
        columns: attributes as codes, each int32 [N].
        names: of the images, such as their files; empty where nobody asked for them.
    """

    images: Images
    labels: Int[np.ndarray, " n"]
    columns: dict[str, Int[np.ndarray, " n"]]
    names: Sequence[str] = ()

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def labelled(self) -> Int[np.ndarray, " m"]:
        """Numbers of the images that have a label."""
        return np.flatnonzero(self.labels >= 0)

    def select(self, indices: Int[np.ndarray, " m"]) -> "Samples":
        """The samples at `indices`, in that order."""
        columns = {name: values[indices] for name, values in self.columns.items()}
        names = [self.names[i] for i in indices] if self.names else ()
        return Samples(self.images.select(indices), self.labels[indices], columns, names)


@dataclass(frozen=True)
class Dataset:
    """Training and test images.

    Attributes:
        num_classes: 0 where no image has a label.
        validation: held out of training to choose by; None where the test images choose.
        names: what the codes of a column stand for; None is the label.
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
