"""Every kind of data set read into samples: encoded or small decoded images, labels and attributes as they stand.

Decodes no image but those that torchvision and scikit-learn hand out decoded.
"""

from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from clray.config.sections import PUBLISHED, DataConfig
from clray.data.images.array import ArrayImages
from clray.data.readers.embeddings import ENDINGS as VECTORS
from clray.data.readers.embeddings import read_embeddings
from clray.data.readers.folders import as_files, folders_of_parts, read_folder
from clray.data.readers.glyphs import read_glyphs
from clray.data.readers.lists import read_list
from clray.data.readers.parquet_tables import read_parquet
from clray.data.readers.parts import served_by, without_repeated
from clray.data.readers.places import SplitName
from clray.data.readers.published import read_catalog
from clray.data.readers.shards import PARQUET, find_shards, unused_shards
from clray.data.readers.split import Parts, Split
from clray.data.readers.tar_shards import ENDINGS as TAR
from clray.data.readers.tar_shards import read_tar
from clray.data.remote.local import with_places
from clray.errors import UserError

Reader = Callable[[DataConfig], Parts]
ReadPart = Callable[[Path, DataConfig, SplitName], Split]
"""Reads the part of a path that is asked for."""


def _read_digits(_: DataConfig) -> Parts:
    from sklearn.datasets import load_digits

    digits = load_digits()
    # The scanner's counts run from 0 to 16.
    images = np.round(digits.images * (255 / 16)).astype(np.uint8)[:, None]
    return {"train": Split(ArrayImages(images), pd.Series(digits.target), {})}


def _read_parts(read: ReadPart, config: DataConfig, held: Iterable[SplitName]) -> Parts:
    """Training images, and the others from the paths that the config names, or else those that `train_path` holds."""
    parts: Parts = {"train": read(_train_path(config), config, "train")}
    own: dict[SplitName, str | None] = {"test": config.test_path, "validation": config.validation_path}
    for part, path in own.items():
        if path is not None or part in held:
            parts[part] = read(_train_path(config) if path is None else Path(path), config, part)
    return parts


def _in_shards(read: ReadPart, endings: tuple[str, ...]) -> Reader:
    """A reader of files whose names may tell training from test images."""

    def read_parts(config: DataConfig) -> Parts:
        path = _train_path(config)
        found = find_shards(path, endings)
        served = served_by(found, config)
        parts = _read_parts(read, config, served)
        return _with_notes(parts, unused_shards(path, found, {"train", *served.values()}))

    return read_parts


def _read_csv(config: DataConfig) -> Parts:
    return _read_parts(lambda path, config, _: read_list(path, config), config, ())


def _read_imagefolder(config: DataConfig) -> Parts:
    root = _train_path(config)
    found, beside = folders_of_parts(root)
    served = served_by(found, config)
    parts = _read_parts(read_folder, config, served)
    others = sorted([*beside, *(name for part, name in found.items() if part not in ("train", *served.values()))])
    note = f"{root}: left out the folders beside {found.get('train')}/: {', '.join(others)}"
    return _with_notes(parts, [note] if others else [])


def _with_notes(parts: Parts, notes: list[str]) -> Parts:
    return {**parts, "train": replace(parts["train"], notes=(*parts["train"].notes, *notes))}


def _train_path(config: DataConfig) -> Path:
    assert config.train_path is not None, f"DataConfig requires train_path for {config.name}"
    return Path(config.train_path)


def _read_torchvision(config: DataConfig) -> Parts:
    from torchvision import datasets

    source = {"cifar10": datasets.CIFAR10, "cifar100": datasets.CIFAR100, "fashion_mnist": datasets.FashionMNIST}
    root = config.train_path or "data"
    splits = []
    for is_train in (True, False):
        try:
            data = source[config.name](root, train=is_train, download=config.download)
        except RuntimeError as error:
            raise UserError(
                f"data.name={config.name}: not found under '{root}' ({error}). Name its folder with data.train_path, "
                "or fetch it with data.download=true"
            ) from error
        except OSError as error:
            raise UserError(f"data.name={config.name}: the download failed: {error}") from error
        images = np.asarray(data.data)
        images = images[:, None] if images.ndim == 3 else images.transpose(0, 3, 1, 2)
        splits.append(Split(ArrayImages(np.ascontiguousarray(images)), pd.Series(np.asarray(data.targets)), {}))
    return {"train": splits[0], "test": splits[1]}


def _read_published(config: DataConfig) -> Parts:
    catalog = read_catalog(config)
    table = catalog.table

    def part(name: str) -> Split:
        rows = table[table["split"] == name].reset_index(drop=True)
        columns = {attribute: rows[attribute] for attribute in catalog.attributes}
        return Split(as_files(catalog.root, rows["path"].tolist(), config), rows["label"], columns, catalog.notes)

    return {"train": part("")} if (table["split"] == "").all() else {"train": part("train"), "test": part("test")}


READERS: dict[str, Reader] = {
    "digits": _read_digits,
    "glyphs": lambda _: {"train": read_glyphs()},
    "parquet": _in_shards(read_parquet, PARQUET),
    "embeddings": _in_shards(read_embeddings, VECTORS),
    "tar": _in_shards(read_tar, TAR),
    "csv": _read_csv,
    "cifar10": _read_torchvision,
    "cifar100": _read_torchvision,
    "fashion_mnist": _read_torchvision,
    "imagefolder": _read_imagefolder,
    **dict.fromkeys(PUBLISHED, _read_published),
}


def read_all(config: DataConfig) -> Parts:
    """As `read_data`, without the notes on pixels; the way in for data that lie far away, too."""
    if config.label_columns is not None:
        config = config.model_copy(update={"label_column": config.label_columns[0]})
    return without_repeated(READERS[config.name](with_places(config)), config)


def read_data(config: DataConfig) -> Parts:
    """The samples of the data set that `data.name` names, with the parts for testing and validation that it has.

    Raises:
        UserError: what the reader raises; images for validation that are those for training or testing; or a column of
            `data.label_columns` that is not there.
    """
    parts = read_all(config)
    for part in parts.values():
        missing = [name for name in config.further_columns if name not in part.columns]
        if missing:
            raise UserError(
                f"data.label_columns: no column {missing[0]!r}; the data have beside the first: "
                f"{', '.join(part.columns) or 'none'}"
            )
    return {name: replace(each, notes=(*each.notes, *each.images.notes())) for name, each in parts.items()}
