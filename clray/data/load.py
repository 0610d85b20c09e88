"""A data set by name: images, labels and attribute columns as arrays, split into train and test.

Small sets come decoded, as one uint8 array that Ray's object store can share; large ones stay encoded.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from sklearn.model_selection import train_test_split

from clray.config.sections import DataConfig
from clray.data.attributes import encode_attributes
from clray.data.images.encoded import EncodedImages, check_headers, decode_all
from clray.data.images.streamed import StreamedImages
from clray.data.readers.columns import encode_names, joined
from clray.data.readers.places import fitting, is_pattern
from clray.data.readers.registry import READERS, read_data
from clray.data.readers.split import Images, Split, select_images
from clray.errors import UserError
from clray.seeding import derive_seed


@dataclass(frozen=True)
class ImageSet:
    """N images with what is known about them.

    Attributes:
        images: uint8 [N, C, H, W], or encoded images to be decoded while training, in memory or in their files.
        labels: downstream labels T, int64 [N] in 0..num_classes-1.
        columns: attributes as codes, each int64 [N].
    """

    images: Images
    labels: np.ndarray
    columns: dict[str, np.ndarray]
    rows: tuple[str, ...] = ()
    """Names of the images, such as their files; empty where nobody asked for them."""

    def __len__(self) -> int:
        return len(self.labels)

    def select(self, indices: np.ndarray) -> "ImageSet":
        """The samples at `indices`, in that order."""
        columns = {name: values[indices] for name, values in self.columns.items()}
        return ImageSet(select_images(self.images, indices), self.labels[indices], columns)


@dataclass(frozen=True)
class Dataset:
    """Training and test images.

    Attributes:
        names: what the codes of a column stand for; None is the label.
        skipped: the reasons of the images left out under `data.on_bad_image: skip`.
        notes: what else a user should know of the data.
    """

    train: ImageSet
    test: ImageSet
    num_classes: int
    num_channels: int
    names: dict[str | None, tuple[str, ...]]
    skipped: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def load_dataset(config: DataConfig) -> Dataset:
    """Read, check and split the data set.

    Raises:
        UserError: a missing file or column, an undecodable image, or labels of a single class.
    """
    train, test = _chosen(config)
    train, undecoded_train = _decode(train, config)
    test, undecoded_test = _decode(test, config)
    left_out = dict.fromkeys((*train.skipped, *test.skipped, *undecoded_train, *undecoded_test))
    return _encode(train, test, config, tuple(left_out))


def load_descriptions(config: DataConfig) -> Dataset:
    """What `load_dataset` knows of the same images in the same order, with no image decoded where none may be skipped.

    Raises:
        UserError: as `load_dataset`, but for undecodable images.
    """
    if config.on_bad_image == "skip":
        return load_dataset(config)
    return _encode(*_chosen(config), config, ())


def _chosen(config: DataConfig) -> tuple[Split, Split]:
    train, test = read_splits(config)
    train = _subset(train, config.max_train_images, config.split_seed, "train")
    return train, _subset(test, config.max_test_images, config.split_seed, "test")


def read_splits(config: DataConfig) -> tuple[Split, Split]:
    """Training and test samples with no image decoded; raises UserError as `load_dataset`."""
    train, test = read_data(config)
    train, test = _hold_out(train, config) if test is None else (train, test)
    for part, name in ((train, "training"), (test, "test")):
        if len(part.labels) == 0:
            raise UserError(f"data.name={config.name}: there are no {name} images in {config.train_path}")
    return train, test


def load_images(config: DataConfig) -> ImageSet:
    """All images of `train_path`, undivided, with labels as codes.

    Raises:
        UserError: as `load_dataset`, but that one class is enough.
    """
    data, _ = READERS[config.name](config)
    data = _subset(data, config.max_train_images, config.split_seed, "train")
    rows = data.images.rows if isinstance(data.images, EncodedImages) else tuple(map(str, range(len(data.labels))))
    data, undecoded = _decode(data, config)
    skipped = [*data.skipped, *undecoded]
    if skipped:
        raise UserError(
            f"data: {len(skipped)} images cannot be read, and rows would no longer be images; the first: {skipped[0]}"
        )
    return ImageSet(data.images, encode_names(data.labels)[0], {}, rows)


def check_files(config: DataConfig) -> None:
    """Raise UserError where a path of the config does not exist; reads nothing."""
    for key in ("train_path", "test_path", "image_root", "attributes_path", "classes_path"):
        value = getattr(config, key)
        if config.needs_path and value is not None and not _is_there(config, key, value):
            raise UserError(f"data.{key}: no such file or folder: {value} (current folder: {Path.cwd()})")


def _is_there(config: DataConfig, key: str, path: str) -> bool:
    takes_patterns = config.name == "parquet" and key in ("train_path", "test_path")
    return Path(path).exists() or (takes_patterns and is_pattern(path) and len(fitting(Path(path))) > 0)


def _hold_out(data: Split, config: DataConfig) -> tuple[Split, Split]:
    """Split off the test images by a fixed seed, in the proportions of the classes where each has two members."""
    counts = data.labels.value_counts()
    fits = counts.min() >= 2 and len(counts) <= min(config.test_fraction, 1 - config.test_fraction) * len(data.labels)
    if len(data.labels) < 2:
        raise UserError("data: at least 2 images are needed to hold some out for testing; got 1")
    try:
        train, test = train_test_split(
            np.arange(len(data.labels)),
            test_size=config.test_fraction,
            random_state=config.split_seed,
            stratify=data.labels if fits else None,
        )
    except ValueError as error:
        raise UserError(f"data.test_fraction={config.test_fraction}: {error}") from error
    return data.select(np.sort(train)), data.select(np.sort(test))


def _subset(data: Split, limit: int | None, seed: int, component: str) -> Split:
    if limit is None or limit >= len(data.labels):
        return data
    chosen = np.random.default_rng(derive_seed(seed, component)).permutation(len(data.labels))[:limit]
    return data.select(np.sort(chosen))


def _decode(data: Split, config: DataConfig) -> tuple[Split, list[str]]:
    """Decode what fits in memory; of larger data only check the headers, and leave out what cannot be read."""
    if isinstance(data.images, np.ndarray):
        return data, []
    if isinstance(data.images, StreamedImages):
        _require_image_size(config)
        if config.on_bad_image == "error":
            return data, []  # a pass over all of it would cost as much as an epoch; a bad image is named when it comes
        good, reasons = data.images.bad_rows()
        return (data.select(good) if reasons else data), reasons
    if data.images.decoded_bytes() > config.memory_limit_mib * 2**20:
        _require_image_size(config)
        good, reasons = check_headers(data.images, config.on_bad_image)
        return (data.select(good) if reasons else data), reasons
    images, good, reasons = decode_all(data.images, config.on_bad_image)
    if len(good) == 0:
        raise UserError(f"data: none of the {len(data.labels)} images can be decoded; the first: {reasons[0]}")
    return replace(data.select(good) if reasons else data, images=images), reasons


def _require_image_size(config: DataConfig) -> None:
    if config.image_size is None:
        raise UserError("data.image_size is required for images decoded while training; set it in pixels")


def _encode(train: Split, test: Split, config: DataConfig, skipped: tuple[str, ...]) -> Dataset:
    """Remap labels and attributes to codes that agree between train and test."""
    boundary = len(train.labels)
    labels, label_names = encode_names(joined(train.labels, test.labels))
    num_train_classes = len(np.unique(labels[:boundary]))
    if num_train_classes < 2:
        raise UserError(
            f"data.label_column ({config.label_column or 'the labels'}): at least 2 classes are needed among the "
            f"training images; all {boundary} have the label {train.labels.iloc[0]}"
        )
    encoded = encode_attributes(train.columns, config)
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
        notes=(*dict.fromkeys((*train.notes, *test.notes)), *_notes_on_classes(labels, boundary, label_names)),
    )


def _notes_on_classes(labels: np.ndarray, boundary: int, names: tuple[str, ...]) -> list[str]:
    """Classes that nothing can be learned or said about."""
    trained = np.bincount(labels[:boundary], minlength=len(names))
    unseen, single = np.flatnonzero(trained == 0), np.flatnonzero(trained == 1)
    return [
        f"{len(found)} of {len(names)} classes {what}; the first: {names[found[0]]}"
        for found, what in ((unseen, "have test images only"), (single, "have a single training image"))
        if len(found)
    ]
