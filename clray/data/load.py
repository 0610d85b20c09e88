"""A data set by name: images, labels and attribute columns as arrays, split into train and test.

Small sets come decoded, as one uint8 array that Ray's object store can share; large ones stay encoded.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from clray.config.sections import DataConfig
from clray.data.attributes import encode_attributes
from clray.data.equal_images import notes_on_equal_images
from clray.data.images.port import Images
from clray.data.readers.columns import encode_labels, joined, notes_on_classes
from clray.data.readers.embeddings import holds_vectors_only
from clray.data.readers.places import files_in, fitting, is_folder, is_pattern, require_exists
from clray.data.readers.registry import read_all, read_data
from clray.data.readers.split import Split
from clray.data.readers.text_tables import SUFFIXES as TEXT_SUFFIXES
from clray.data.remote.address import address_at
from clray.data.remote.local import PATHS, place_of, with_places
from clray.data.samples import Dataset, Samples
from clray.errors import UserError
from clray.seeding import derive_seed


def load_dataset(config: DataConfig) -> Dataset:
    """Read, check and split the data set.

    Raises:
        UserError: a missing file or column, or an undecodable image.
    """
    train, test = _chosen(config)
    train, undecoded_train = _decode(train, config)
    test, undecoded_test = _decode(test, config)
    left_out = dict.fromkeys((*train.skipped, *test.skipped, *undecoded_train, *undecoded_test))
    train = replace(train, notes=(*train.notes, *notes_on_equal_images(train.images)))
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


def load_images(config: DataConfig) -> Samples:
    """All images of `train_path`, undivided, with labels as codes; raises UserError as `load_dataset`."""
    data, _ = read_all(config)
    data = _subset(data, config.max_train_images, config.split_seed, "train")
    names = data.images.names() or tuple(map(str, range(len(data.labels))))
    data, undecoded = _decode(data, config)
    skipped = [*data.skipped, *undecoded]
    if skipped:
        raise UserError(
            f"data: {len(skipped)} images cannot be read, and rows would no longer be images; the first: {skipped[0]}"
        )
    return Samples(data.images, encode_labels(data.labels)[0], {}, names)


def kind_of(path: Path) -> str:
    """The `data.name` that reads a file, folder or pattern.

    Raises:
        UserError: none does.
    """
    place = place_of(path)
    if address_at(place) is not None:
        return _kind_from_afar(path, place)
    is_folder = path.is_dir()
    if path.suffix.lower() in TEXT_SUFFIXES and not is_folder:
        return "csv"
    if path.suffix == ".parquet" or (
        is_folder and any(each for at in ("*", "*/*") for each in path.glob(f"{at}.parquet"))
    ):
        return "embeddings" if holds_vectors_only(path) else "parquet"
    for ending, kind in ((".tar", "tar"), (".npy", "embeddings")):
        if path.suffix == ending or (is_folder and any(path.glob(f"*{ending}"))):
            return kind
    if is_folder:
        return "imagefolder"
    raise UserError(f"{path}: expected a .parquet file, a folder of them, a .csv, or a folder of images")


def _kind_from_afar(path: Path, place: Path) -> str:
    """By the ending of the address, or of the files in its folder."""
    kinds = {".parquet": "parquet", ".tar": "tar", ".npy": "embeddings", **dict.fromkeys(TEXT_SUFFIXES, "csv")}
    if place.suffix in kinds:
        return kinds[place.suffix]
    files = fitting(place) if is_pattern(place) else files_in(place) if is_folder(place) else []
    endings = {file.suffix for file in files}
    if not endings & kinds.keys():
        raise UserError(f"{path}: expected {', '.join(kinds)} files")
    return next(kind for ending, kind in kinds.items() if ending in endings)


def reading_of(config: DataConfig, path: Path) -> DataConfig:
    """How a run read its images, for all the images of another file or folder.

    Raises:
        UserError: no reader takes it.
    """
    others = dict.fromkeys(("test_path", "attributes_path", "labels_path", "test_labels_path"))
    name = "embeddings" if config.name == "embeddings" else kind_of(path)
    other = {"name": name, "train_path": str(path), **others}
    return config.model_copy(update={**other, "max_train_images": None})


def check_files(config: DataConfig) -> None:
    """Raise UserError where a path of the config does not exist; reads nothing."""
    config = with_places(config)
    for key in PATHS:
        value = getattr(config, key)
        if config.needs_path and value is not None and not _is_there(config, key, value):
            raise UserError(f"data.{key}: no such file or folder: {value} (current folder: {Path.cwd()})")


def _is_there(config: DataConfig, key: str, path: str) -> bool:
    if address_at(Path(path)) is not None:
        require_exists(Path(path))
        return True
    takes_patterns = config.name in ("parquet", "tar", "embeddings") and key in ("train_path", "test_path")
    return Path(path).exists() or (takes_patterns and is_pattern(path) and len(fitting(Path(path))) > 0)


def _hold_out(data: Split, config: DataConfig) -> tuple[Split, Split]:
    """Split off the test images by a fixed seed, in the proportions of the classes where each has two members.

    The images without a label are divided as those of a class.
    """
    classes = encode_labels(data.labels)[0]
    counts = np.unique(classes, return_counts=True)[1]
    fits = counts.min() >= 2 and len(counts) <= min(config.test_fraction, 1 - config.test_fraction) * len(data.labels)
    if len(data.labels) < 2:
        raise UserError("data: at least 2 images are needed to hold some out for testing; got 1")
    from sklearn.model_selection import train_test_split

    try:
        train, test = train_test_split(
            np.arange(len(data.labels)),
            test_size=config.test_fraction,
            random_state=config.split_seed,
            stratify=classes if fits else None,
        )
    except ValueError as error:
        raise UserError(f"data.test_fraction={config.test_fraction}: {error}") from error
    return data.select(np.sort(train)), data.select(np.sort(test))


def _subset(data: Split, limit: int | None, seed: int, component: str) -> Split:
    if limit is None or limit >= len(data.labels):
        return data
    chosen = np.random.default_rng(derive_seed(seed, component)).permutation(len(data.labels))[:limit]
    return data.select(np.sort(chosen))


def _decode(data: Split, config: DataConfig) -> tuple[Split, tuple[str, ...]]:
    """The samples whose images can be decoded, and why the others cannot."""
    ready = data.images.ready(config)
    kept = data if ready.kept is None else data.select(ready.kept)
    return replace(kept, images=ready.images), ready.reasons


def _encode(train: Split, test: Split, config: DataConfig, skipped: tuple[str, ...]) -> Dataset:
    """Remap labels and attributes to codes that agree between train and test."""
    boundary = len(train.labels)
    labels, label_names, label_notes = _as_codes(joined(train.labels, test.labels), boundary)
    encoded = encode_attributes(train.columns, config)
    columns = {name: codes for name, (codes, _) in encoded.items()}
    _require_one_shape(train.images, test.images)
    return Dataset(
        Samples(train.images, labels[:boundary], columns),
        Samples(test.images, labels[boundary:], {}),
        num_classes=len(label_names),
        num_channels=train.images.channels,
        names={None: label_names, **{name: names for name, (_, names) in encoded.items()}},
        skipped=skipped,
        notes=(*dict.fromkeys((*train.notes, *test.notes)), *label_notes),
    )


def _as_codes(values: pd.Series, num_train: int) -> tuple[np.ndarray, tuple[str, ...], list[str]]:
    """Labels of the training images and then the others as codes, what they stand for, and notes on them.

    Labels of a single class say nothing about the images, which count as those without.
    """
    labels, names = encode_labels(values)
    found = np.unique(labels[:num_train])
    num_without, num_classes = int((labels[:num_train] < 0).sum()), int((found >= 0).sum())
    if num_without == num_train:
        return np.full_like(labels, -1), (), ["the images have no labels: what needs them is left out"]
    if num_classes == 1:
        only = names[int(found[-1])]
        what = f"all labelled training images have the label {only}, which says nothing about them"
        return np.full_like(labels, -1), (), [f"{what}: what needs labels is left out"]
    notes = [f"{num_without} of {num_train} training images have no label"] if num_without else []
    return labels, names, [*notes, *notes_on_classes(labels, num_train, names)]


def _require_one_shape(train: Images, test: Images) -> None:
    if train.size is None or test.size is None:
        return
    if not train.has_pixels and train.channels != test.channels:
        raise UserError(
            f"data: the training vectors have {train.channels} dimensions and the test vectors {test.channels}"
        )
    if (train.channels, train.size) != (test.channels, test.size):
        raise UserError(
            f"data: the training images are {train.size[1]}x{train.size[0]} pixels and the test images "
            f"{test.size[1]}x{test.size[0]}; set data.image_size"
        )
