"""A column of labels as codes: one label an image, or several, of which the code stands for the set."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Int

from clray.config.sections import DataConfig
from clray.data.readers.columns import MINUS_ONE, encode_labels, is_list, is_missing, joined, notes_on_classes
from clray.data.readers.split import PartName, Parts
from clray.errors import UserError

MAX_LABELS = 1000
"""Of several labels an image, the most frequent so many are looked at."""
NO_LABEL = "none of the labels"
"""What a set without any is called."""


@dataclass(frozen=True)
class Labels:
    """What a column says of N images.

    Attributes:
        codes: int32 [N], -1 where nothing is known; of several labels an image, of their set.
        names: what the codes stand for.
        flags: int8 [N, labels], 1 where an image has the label, 0 where not, -1 where nothing is known; None for one
            label an image.
        labels: what the columns of `flags` stand for; for one label an image `names`.
    """

    codes: Int[np.ndarray, " n"]
    names: tuple[str, ...]
    flags: Int[np.ndarray, "n labels"] | None
    labels: tuple[str, ...]
    notes: tuple[str, ...] = ()

    def part(self, rows: slice) -> "Labels":
        """Those of some images."""
        return replace(self, codes=self.codes[rows], flags=None if self.flags is None else self.flags[rows])

    def unknown(self, count: int) -> "Labels":
        """Those of so many images of which nothing is known."""
        return replace(self, codes=np.full(count, -1, np.int32), flags=None)


def read_labels(values: pd.Series, separator: str | None, key: str = "data.label_column") -> Labels:
    """Labels as they stand, as codes.

    A column that holds lists, or texts of which `separator` splits some, has several labels an image. An empty list is
    an image with none of them; what is null, empty or -1 is unknown, as it is for one label an image.

    Args:
        key: names the column in messages.

    Raises:
        UserError: lists for some images and single values for others.
    """
    sets = _as_sets(values, separator, key)
    if sets is not None:
        return _encode_sets(sets)
    codes, names = encode_labels(values)
    return Labels(codes, names, None, names)


def read_label_columns(parts: Parts, config: DataConfig) -> dict[str | None, dict[PartName, Labels]]:
    """The label, None, and the further columns of `data.label_columns`, for each part of the data.

    Where a part is called labelled, it teaches, and nothing is known of the training images.
    """
    teacher: PartName = "labelled" if "labelled" in parts else "train"
    known = {
        teacher: parts[teacher],
        **{name: split for name, split in parts.items() if name not in (teacher, "train")},
    }
    found: dict[str | None, dict[PartName, Labels]] = {}
    for name in (None, *config.further_columns):
        columns = {part: split.labels if name is None else split.columns[name] for part, split in known.items()}
        key = "data.label_column" if name is None else f"data.label_columns: {name}"
        found[name] = read_known_labels(columns, config.list_separator, key)
        if teacher != "train":
            found[name]["train"] = found[name][teacher].unknown(len(parts["train"].labels))
    return found


def read_known_labels(columns: dict[PartName, pd.Series], separator: str | None, key: str) -> dict[PartName, Labels]:
    """Labels of all parts by the same codes, the first of which teaches, with notes on them; raises as `read_labels`.

    Labels of a single class, or set, say nothing about the images, which count as those without.
    """
    ends = np.cumsum([len(values) for values in columns.values()])
    both, count = read_labels(joined(*columns.values()), separator, key), int(ends[0])
    held_out = " or ".join(name for name in ("validation", "test") if name in columns)
    found = np.unique(both.codes[:count])
    num_without = int((both.codes[:count] < 0).sum())
    if (found >= 0).sum() < 2:
        note = "the images have no labels: what needs them is left out"
        if num_without < count:
            what = f"all labelled training images have the label {both.names[int(found[-1])]}"
            note = f"{what}, which says nothing about them: what needs labels is left out"
        both = Labels(np.full_like(both.codes, -1), (), None, (), (note,))
    else:
        missing = [f"{num_without} of {count} training images have no label"] if num_without else []
        both = replace(both, notes=(*missing, *both.notes, *notes_on_labels(both, count, held_out)))
    return {
        part: both.part(slice(end - len(values), end))
        for (part, values), end in zip(columns.items(), ends, strict=True)
    }


def notes_on_labels(labels: Labels, num_train: int, held_out: str = "test") -> list[str]:
    """That there are several, and classes or labels that nothing can be learned or said about.

    Args:
        labels: of the training images first, so many, then of the others.
        held_out: what the others are called.
    """
    if labels.flags is None:
        return notes_on_classes(labels.codes, num_train, labels.names, held_out)
    found = np.nonzero(labels.flags[:num_train] == 1)[1]
    several = f"an image may have several of the {len(labels.labels)} labels; information is about their set"
    return [several, *notes_on_classes(found, len(found), labels.labels, held_out)]


def _as_sets(values: pd.Series, separator: str | None, key: str) -> list[set[str] | None] | None:
    """The labels of each image, None where nothing is known; None where the column has one value an image."""
    if values.dtype != object and not pd.api.types.is_string_dtype(values.dtype):
        return None
    rows = [None if is_missing(row) else row for row in values.tolist()]
    given = [row for row in rows if row is not None]
    if any(map(is_list, given)):
        plain = next((row for row in given if not is_list(row)), None)
        if plain is not None:
            raise UserError(
                f"{key} holds lists for some images and single values for others, such as {plain!r}; write lists for "
                f"all, as in [{plain!r}]"
            )
        return [None if row is None else _as_set(row) for row in rows]
    if separator is None or not any(isinstance(row, str) and separator in row for row in given):
        return None
    return [None if row is None else _as_set([part.strip() for part in str(row).split(separator)]) for row in rows]


def _as_set(parts: Sequence[Any]) -> set[str] | None:
    """None where there are values, and all of them are unknown."""
    known = {str(part) for part in parts if not is_missing(part)} - MINUS_ONE
    return known if known or len(parts) == 0 else None


def _encode_sets(sets: list[set[str] | None]) -> Labels:
    pairs = [(row, label) for row, found in enumerate(sets) for label in sorted(found or ())]
    is_known = np.array([found is not None for found in sets], bool)
    codes = np.full(len(sets), -1, np.int32)
    if not pairs:
        return Labels(codes, (), None, ())
    columns, distinct = pd.factorize(np.array([label for _, label in pairs], dtype=object), sort=True)
    chosen = np.sort(np.argsort(-np.bincount(columns), kind="stable")[:MAX_LABELS])
    left_out = f"of {len(distinct)} labels the {MAX_LABELS} most frequent are looked at"
    notes = (left_out,) if len(distinct) > MAX_LABELS else ()
    is_chosen = np.isin(columns, chosen)
    flags = np.full((len(sets), len(chosen)), -1, np.int8)
    flags[is_known] = 0
    flags[np.array([row for row, _ in pairs])[is_chosen], np.searchsorted(chosen, columns[is_chosen])] = 1
    distinct = distinct[chosen]
    packed = np.packbits(flags[is_known], axis=1)
    _, first, ids = np.unique(packed, axis=0, return_index=True, return_inverse=True)
    codes[is_known] = ids.reshape(-1)
    names = tuple(" + ".join(distinct[row == 1]) or NO_LABEL for row in flags[is_known][first])
    return Labels(codes, names, flags, tuple(distinct), notes)
