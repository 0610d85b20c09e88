"""Every kind of data set read into samples: encoded or small decoded images, labels and attributes as they stand.

Decodes no image but those that torchvision and scikit-learn hand out decoded.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from clray.config.sections import PUBLISHED, DataConfig
from clray.data.images.array import ArrayImages
from clray.data.readers.embeddings import ENDINGS as VECTORS
from clray.data.readers.embeddings import read_embeddings
from clray.data.readers.folders import as_files, has_test_folder, read_folder
from clray.data.readers.lists import read_list
from clray.data.readers.parquet_tables import read_parquet
from clray.data.readers.places import SplitName
from clray.data.readers.published import read_catalog
from clray.data.readers.shards import PARQUET, has_test_shards, unused_shards
from clray.data.readers.split import Split
from clray.data.readers.tar_shards import ENDINGS as TAR
from clray.data.readers.tar_shards import read_tar
from clray.data.remote.local import with_places
from clray.errors import UserError

Reader = Callable[[DataConfig], tuple[Split, Split | None]]
"""Training images, and test images where the data set has a part for them."""
ReadShards = Callable[[Path, DataConfig, SplitName], Split]
"""Reads the part of a path that is asked for."""


def _read_digits(_: DataConfig) -> tuple[Split, None]:
    from sklearn.datasets import load_digits

    digits = load_digits()
    # The scanner's counts run from 0 to 16.
    images = np.round(digits.images * (255 / 16)).astype(np.uint8)[:, None]
    return Split(ArrayImages(images), pd.Series(digits.target), {}), None


def _in_shards(read: ReadShards, endings: tuple[str, ...]) -> Reader:
    """A reader of files whose names may tell training from test images."""

    def read_both(config: DataConfig) -> tuple[Split, Split | None]:
        path, test = _train_path(config), None
        if config.test_path is not None:
            test = read(Path(config.test_path), config, "test")
        elif has_test_shards(path, endings):
            test = read(path, config, "test")
        train = read(path, config, "train")
        unused = unused_shards(path, endings, has_test_path=config.test_path is not None)
        return replace(train, notes=(*train.notes, *unused)), test

    return read_both


def _read_csv(config: DataConfig) -> tuple[Split, Split | None]:
    train = read_list(_train_path(config), config)
    return train, None if config.test_path is None else read_list(Path(config.test_path), config)


def _read_imagefolder(config: DataConfig) -> tuple[Split, Split | None]:
    root, test = _train_path(config), None
    if config.test_path is not None:
        test = read_folder(Path(config.test_path), config, "test")
    elif has_test_folder(root):
        test = read_folder(root, config, "test")
    return read_folder(root, config, "train"), test


def _train_path(config: DataConfig) -> Path:
    assert config.train_path is not None, f"DataConfig requires train_path for {config.name}"
    return Path(config.train_path)


def _read_torchvision(config: DataConfig) -> tuple[Split, Split]:
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
    return splits[0], splits[1]


def _read_published(config: DataConfig) -> tuple[Split, Split | None]:
    catalog = read_catalog(config)
    table = catalog.table

    def part(name: str) -> Split:
        rows = table[table["split"] == name].reset_index(drop=True)
        columns = {attribute: rows[attribute] for attribute in catalog.attributes}
        return Split(as_files(catalog.root, rows["path"].tolist(), config), rows["label"], columns, catalog.notes)

    return (part(""), None) if (table["split"] == "").all() else (part("train"), part("test"))


READERS: dict[str, Reader] = {
    "digits": _read_digits,
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


def read_all(config: DataConfig) -> tuple[Split, Split | None]:
    """As `read_data`, without the notes on pixels; the way in for data that lie far away, too."""
    return READERS[config.name](with_places(config))


def read_data(config: DataConfig) -> tuple[Split, Split | None]:
    """The samples of the data set that `data.name` names, and its test samples where it has a part for them.

    Raises:
        UserError: what the reader raises.
    """
    train, test = read_all(config)
    return _with_notes(train), None if test is None else _with_notes(test)


def _with_notes(split: Split) -> Split:
    return replace(split, notes=(*split.notes, *split.images.notes()))
