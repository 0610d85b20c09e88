"""What a reader returns: samples as they stand in the data, with nothing decoded or encoded."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from clray.data.images.port import Images
from clray.data.readers.places import SplitName


@dataclass(frozen=True)
class Split:
    """Samples before labels and attributes are encoded; `notes` tell what their reader left out or put right."""

    images: Images
    labels: pd.Series
    """Missing where an image has none; see `no_labels`."""
    columns: dict[str, pd.Series]
    notes: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()
    """The reasons of the samples left out under `data.on_bad_image: skip`."""

    def select(self, indices: np.ndarray) -> "Split":
        """The samples at `indices`, in that order."""
        return Split(
            self.images.select(indices),
            self.labels.iloc[indices].reset_index(drop=True),
            {name: values.iloc[indices].reset_index(drop=True) for name, values in self.columns.items()},
            self.notes,
            self.skipped,
        )


PartName = SplitName | Literal["labelled"]
"""With the images of `data.labelled_path`, which teach in the place of the training images."""
Parts = dict[PartName, Split]
"""The parts of a data set that are there, training images always; a reader knows of none that is labelled apart."""


def no_labels(num_samples: int) -> pd.Series:
    """The labels of samples of which none has one."""
    return pd.Series([None] * num_samples, dtype=object)
