"""Every kind of data set read into samples: encoded or small decoded images, labels and attributes as they stand.

Decodes no image but those that torchvision and scikit-learn hand out decoded.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.datasets import load_digits

from clray.config.sections import PUBLISHED, DataConfig
from clray.data.images.encoded import EncodedImages
from clray.data.images.streamed import StreamedImages
from clray.data.readers.published import read_catalog
from clray.data.readers.tables import Table, is_inside, read_csv, read_metadata_csv, read_parquet
from clray.errors import UserError

Images = np.ndarray | EncodedImages | StreamedImages


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
            select_images(self.images, indices),
            self.labels.iloc[indices].reset_index(drop=True),
            {name: values.iloc[indices].reset_index(drop=True) for name, values in self.columns.items()},
            self.notes,
            self.skipped,
        )


def select_images(images: Images, indices: np.ndarray) -> Images:
    return images[indices] if isinstance(images, np.ndarray) else images.select(indices)


def _read_digits(_: DataConfig) -> tuple[Split, None]:
    digits = load_digits()
    # The scanner's counts run from 0 to 16.
    images = np.round(digits.images * (255 / 16)).astype(np.uint8)[:, None]
    return Split(images, pd.Series(digits.target), {}), None


def _read_tables(reader: Callable[[Path, DataConfig], Table]) -> Callable[[DataConfig], tuple[Split, Split | None]]:
    def read(config: DataConfig) -> tuple[Split, Split | None]:
        train, test = (
            None if path is None else reader(Path(path), config) for path in (config.train_path, config.test_path)
        )
        assert train is not None, "DataConfig requires train_path for tables"
        return _as_split(train), None if test is None else _as_split(test)

    return read


def _as_split(table: Table) -> Split:
    return Split(table.images, table.labels, table.columns, skipped=table.skipped)


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
                "or fetch it with --set data.download=true"
            ) from error
        except OSError as error:
            raise UserError(f"data.name={config.name}: the download failed: {error}") from error
        images = np.asarray(data.data)
        images = images[:, None] if images.ndim == 3 else images.transpose(0, 3, 1, 2)
        splits.append(Split(np.ascontiguousarray(images), pd.Series(np.asarray(data.targets)), {}))
    return splits[0], splits[1]


def _read_imagefolder(config: DataConfig) -> tuple[Split, Split | None]:
    from torchvision.datasets import ImageFolder

    def read(path: str) -> Split:
        try:
            folder = ImageFolder(path)
        except OSError as error:
            raise UserError(f"data.name=imagefolder: {error}") from error
        names = [Path(name).relative_to(path) for name, _ in folder.samples]
        labels = pd.Series([folder.classes[label] for _, label in folder.samples])
        columns = {} if config.attributes_path is None else _attributes_of(list(map(str, names)), config)
        return Split(_as_files(Path(path), [str(name) for name in names], config), labels, columns)

    assert config.train_path is not None, "DataConfig requires train_path for imagefolder"
    return read(config.train_path), None if config.test_path is None else read(config.test_path)


def _as_files(root: Path, names: list[str], config: DataConfig) -> EncodedImages:
    """Images in files below the root; raises UserError where a symbolic link leads out of it."""
    files = [(root / name).resolve() for name in names]
    outside = [name for name, file in zip(names, files, strict=True) if not is_inside(file, root)]
    if outside:
        raise UserError(f"{root}: {len(outside)} images are links that leave the folder; the first: {outside[0]}")
    return EncodedImages(files, tuple(map(str, files)), config.image_size)


def _attributes_of(names: list[str], config: DataConfig) -> dict[str, pd.Series]:
    """The columns of `data.attributes_path` for each image, missing where it has no row there."""
    assert config.attributes_path is not None, "asked for where there is one"
    path = Path(config.attributes_path)
    table = read_metadata_csv(path)
    if config.path_column not in table.columns:
        raise UserError(
            f"{path}: no column '{config.path_column}'; the table has: {', '.join(map(str, table.columns))}"
        )
    table = table.drop_duplicates(config.path_column).set_index(config.path_column)
    rows = table.reindex(names)
    if not table.index.isin(names).any():
        raise UserError(f"{path}: none of its paths is an image below {config.train_path}; the first: {table.index[0]}")
    return {str(name): rows[name].reset_index(drop=True) for name in rows.columns}


def _read_published(config: DataConfig) -> tuple[Split, Split | None]:
    assert config.train_path is not None, "DataConfig requires train_path for published data"
    catalog = read_catalog(config)
    table = catalog.table

    def part(name: str) -> Split:
        rows = table[table["split"] == name].reset_index(drop=True)
        columns = {attribute: rows[attribute] for attribute in catalog.attributes}
        return Split(_as_files(catalog.root, rows["path"].tolist(), config), rows["label"], columns, catalog.notes)

    return (part(""), None) if (table["split"] == "").all() else (part("train"), part("test"))


READERS: dict[str, Callable[[DataConfig], tuple[Split, Split | None]]] = {
    "digits": _read_digits,
    "parquet": _read_tables(read_parquet),
    "csv": _read_tables(read_csv),
    "cifar10": _read_torchvision,
    "cifar100": _read_torchvision,
    "fashion_mnist": _read_torchvision,
    "imagefolder": _read_imagefolder,
    **dict.fromkeys(PUBLISHED, _read_published),
}
