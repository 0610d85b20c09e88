"""What a reader returns: samples as they stand in the data, with nothing decoded or encoded."""

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from clray.config.sections import DataConfig
from clray.data.images.port import Images
from clray.errors import UserError


@dataclass(frozen=True)
class Split:
    """Samples before labels and attributes are encoded; `notes` tell what their reader left out or put right."""

    images: Images
    labels: pd.Series
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


def labelled(split: Split, config: DataConfig) -> Split:
    """The samples that have a label.

    Raises:
        UserError: one has none, and `data.on_bad_image` is not `skip`; or all have none.
    """
    is_missing = split.labels.isna().to_numpy()
    if not is_missing.any():
        return split
    count, first = int(is_missing.sum()), split.images.name(int(is_missing.argmax()))
    column = config.label_column or "the label"
    if count == len(split.labels) or config.on_bad_image == "error":
        raise UserError(
            f"data.label_column ({column}): {count} of {len(split.labels)} images have no label; the first: {first}. "
            "Fill it in, or leave such images out with --set data.on_bad_image=skip"
        )
    reasons = tuple(
        f"{split.images.name(int(row))}: no label ({column} is empty)" for row in np.flatnonzero(is_missing)
    )
    kept = split.select(np.flatnonzero(~is_missing))
    return replace(kept, skipped=(*split.skipped, *reasons))


def no_labels(num_samples: int) -> pd.Series:
    """The labels of samples of which none has one."""
    return pd.Series([None] * num_samples, dtype=object)
