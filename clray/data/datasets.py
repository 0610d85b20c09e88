"""A data set by name: images, labels and attribute columns as arrays, split into train and test.

Small sets come decoded, as one uint8 array that Ray's object store can share; large ones stay encoded.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from clray.config import UserError
from clray.data.images import EncodedImages, check_headers, decode_all
from clray.data.metadata import Table, encode_names, read_csv, read_parquet
from clray.sections import DataConfig
from clray.seeding import derive_seed


@dataclass(frozen=True)
class ImageSet:
    """N images with what is known about them.

    Attributes:
        images: uint8 [N, C, H, W], or encoded images to be decoded while training.
        labels: downstream labels T, int64 [N] in 0..num_classes-1.
        columns: attributes as codes, each int64 [N].
    """

    images: np.ndarray | EncodedImages
    labels: np.ndarray
    columns: dict[str, np.ndarray]

    def __len__(self) -> int:
        return len(self.labels)

    def select(self, indices: np.ndarray) -> "ImageSet":
        """The samples at `indices`, in that order."""
        images = self.images.select(indices) if isinstance(self.images, EncodedImages) else self.images[indices]
        columns = {name: values[indices] for name, values in self.columns.items()}
        return ImageSet(images, self.labels[indices], columns)


@dataclass(frozen=True)
class Dataset:
    """Training and test images.

    Attributes:
        names: what the codes of a column stand for; None is the label.
        skipped: the reasons of the images left out under `data.on_bad_image: skip`.
    """

    train: ImageSet
    test: ImageSet
    num_classes: int
    num_channels: int
    names: dict[str | None, tuple[str, ...]]
    skipped: tuple[str, ...] = ()


@dataclass(frozen=True)
class Split:
    """Samples before labels and attributes are encoded."""

    images: np.ndarray | EncodedImages
    labels: pd.Series
    columns: dict[str, pd.Series]

    def select(self, indices: np.ndarray) -> "Split":
        images = self.images.select(indices) if isinstance(self.images, EncodedImages) else self.images[indices]
        return Split(
            images,
            self.labels.iloc[indices].reset_index(drop=True),
            {name: values.iloc[indices].reset_index(drop=True) for name, values in self.columns.items()},
        )


def load_dataset(config: DataConfig) -> Dataset:
    """Read, check and split the data set.

    Raises:
        UserError: a missing file or column, an undecodable image, or labels of a single class.
    """
    train, test = READERS[config.name](config)
    if test is None:
        train, test = _hold_out(train, config)
    train = _subset(train, config.max_train_images, config.split_seed, "train")
    test = _subset(test, config.max_test_images, config.split_seed, "test")
    train, skipped_train = _decode(train, config)
    test, skipped_test = _decode(test, config)
    return _encode(train, test, config, (*skipped_train, *skipped_test))


def load_images(config: DataConfig) -> ImageSet:
    """All images of `train_path`, undivided, with labels as codes.

    Raises:
        UserError: as `load_dataset`, but that one class is enough.
    """
    data, _ = READERS[config.name](config)
    data, skipped = _decode(_subset(data, config.max_train_images, config.split_seed, "train"), config)
    if skipped:
        raise UserError(
            f"data: {len(skipped)} images cannot be read, and rows would no longer be images; the first: {skipped[0]}"
        )
    return ImageSet(data.images, encode_names(data.labels)[0], {})


def check_files(config: DataConfig) -> None:
    """Raise UserError where a path of the config does not exist; reads nothing."""
    for key in ("train_path", "test_path", "image_root"):
        value = getattr(config, key)
        if config.needs_path and value is not None and not Path(value).exists():
            raise UserError(f"data.{key}: no such file or folder: {value} (current folder: {Path.cwd()})")


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
    return Split(table.images, table.labels, table.columns)


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
        except FileNotFoundError as error:
            raise UserError(f"data.name=imagefolder: {error}") from error
        files = [Path(name).resolve() for name, _ in folder.samples]
        labels = pd.Series([folder.classes[label] for _, label in folder.samples])
        return Split(EncodedImages(files, tuple(map(str, files)), config.image_size), labels, {})

    assert config.train_path is not None, "DataConfig requires train_path for imagefolder"
    return read(config.train_path), None if config.test_path is None else read(config.test_path)


READERS: dict[str, Callable[[DataConfig], tuple[Split, Split | None]]] = {
    "digits": _read_digits,
    "parquet": _read_tables(read_parquet),
    "csv": _read_tables(read_csv),
    "cifar10": _read_torchvision,
    "cifar100": _read_torchvision,
    "fashion_mnist": _read_torchvision,
    "imagefolder": _read_imagefolder,
}


def _hold_out(data: Split, config: DataConfig) -> tuple[Split, Split]:
    """Split off the test images by a fixed seed, in the proportions of the classes where each has two members."""
    counts = data.labels.value_counts()
    fits = counts.min() >= 2 and len(counts) <= min(config.test_fraction, 1 - config.test_fraction) * len(data.labels)
    if len(data.labels) < 2:
        raise UserError("data: at least 2 images are needed to hold some out for testing; got 1")
    train, test = train_test_split(
        np.arange(len(data.labels)),
        test_size=config.test_fraction,
        random_state=config.split_seed,
        stratify=data.labels if fits else None,
    )
    return data.select(np.sort(train)), data.select(np.sort(test))


def _subset(data: Split, limit: int | None, seed: int, component: str) -> Split:
    if limit is None or limit >= len(data.labels):
        return data
    chosen = np.random.default_rng(derive_seed(seed, component)).permutation(len(data.labels))[:limit]
    return data.select(np.sort(chosen))


def _decode(data: Split, config: DataConfig) -> tuple[Split, list[str]]:
    """Decode what fits in memory; of larger data only check the headers, and leave out what cannot be read."""
    if not isinstance(data.images, EncodedImages):
        return data, []
    if data.images.decoded_bytes() > config.memory_limit_mib * 2**20:
        if config.image_size is None:
            raise UserError("data.image_size is required for images decoded while training; set it in pixels")
        good, reasons = check_headers(data.images, config.on_bad_image)
        return (data.select(good) if reasons else data), reasons
    images, good, reasons = decode_all(data.images, config.on_bad_image)
    if len(good) == 0:
        raise UserError(f"data: none of the {len(data.labels)} images can be decoded; the first: {reasons[0]}")
    return replace(data.select(good) if reasons else data, images=images), reasons


def _encode(train: Split, test: Split, config: DataConfig, skipped: tuple[str, ...]) -> Dataset:
    """Remap labels and attributes to codes that agree between train and test."""
    boundary = len(train.labels)
    labels, label_names = encode_names(pd.concat([train.labels, test.labels], ignore_index=True))
    num_train_classes = len(np.unique(labels[:boundary]))
    if num_train_classes < 2:
        raise UserError(
            f"data.label_column ({config.label_column or 'the labels'}): at least 2 classes are needed among the "
            f"training images; all {boundary} have the label {train.labels.iloc[0]}"
        )
    encoded = {name: encode_names(values) for name, values in train.columns.items()}
    columns = {name: codes for name, (codes, _) in encoded.items()}
    num_channels = 3
    if isinstance(train.images, np.ndarray):
        num_channels = train.images.shape[1]
        if isinstance(test.images, np.ndarray) and train.images.shape[1:] != test.images.shape[1:]:
            raise UserError(
                f"data: the training images are {train.images.shape[3]}x{train.images.shape[2]} pixels and the test "
                f"images {test.images.shape[3]}x{test.images.shape[2]}; set data.image_size"
            )
    return Dataset(
        ImageSet(train.images, labels[:boundary], columns),
        ImageSet(test.images, labels[boundary:], {}),
        num_classes=int(labels.max()) + 1,
        num_channels=num_channels,
        names={None: label_names, **{name: names for name, (_, names) in encoded.items()}},
        skipped=skipped,
    )
