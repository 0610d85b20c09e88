"""A data set by name: images, labels and attribute columns as arrays, split into train and test.

Small sets come decoded, as one uint8 array that Ray's object store can share; large ones stay encoded.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np

from clray.config.sections import DataConfig
from clray.data.attributes import continuous_values, encode_attributes
from clray.data.equal_images import notes_on_equal_images
from clray.data.images.port import Images
from clray.data.images.stored import notes_on_store, ready_images
from clray.data.labelled import read_parts
from clray.data.labels import Labels, read_label_columns, read_labels
from clray.data.readers.embeddings import holds_vectors_only
from clray.data.readers.places import files_in, fitting, is_folder, is_pattern, require_exists
from clray.data.readers.registry import read_all
from clray.data.readers.split import PartName, Parts, Split
from clray.data.readers.text_tables import SUFFIXES as TEXT_SUFFIXES
from clray.data.remote.address import address_at
from clray.data.remote.local import PATHS, place_of, with_places
from clray.data.samples import Dataset, Samples
from clray.data.targets import encode_targets
from clray.errors import UserError
from clray.seeding import derive_seed

NAMES: dict[PartName, str] = {"train": "training", "test": "test", "validation": "validation", "labelled": "labelled"}
"""What messages call the images of a part."""


def load_dataset(config: DataConfig, targets: tuple[str, ...] = ()) -> Dataset:
    """Read, check and split the data set.

    Args:
        targets: attributes to hold results against beside the labels.

    Raises:
        UserError: a missing file, column or attribute, or an undecodable image.
    """
    parts = _chosen(config)
    # Refused before anything is decoded.
    encode_targets(parts, targets, config)
    if config.labelled_path is not None and not targets:
        _require_labels(parts["labelled"], config.labelled_path, config.list_separator)
    left_out = [reason for split in parts.values() for reason in split.skipped]
    for part, split in parts.items():
        parts[part], reasons = _decode(split, config)
        left_out += reasons
    dataset = _encode(parts, config, targets, tuple(dict.fromkeys(left_out)))
    more = (*notes_on_store([split.images for split in parts.values()]), *notes_on_equal_images(dataset.train.images))
    return replace(dataset, notes=(*dataset.notes, *more))


def load_descriptions(config: DataConfig) -> Dataset:
    """What `load_dataset` knows of the same images in the same order, with no image decoded where none may be skipped.

    Raises:
        UserError: as `load_dataset`, but for undecodable images.
    """
    if config.on_bad_image == "skip":
        return load_dataset(config)
    return _encode(_chosen(config), config, (), ())


def _chosen(config: DataConfig) -> Parts:
    """The parts of the data, cut to the limits of the config."""
    limits: dict[PartName, int | None] = {
        "train": config.max_train_images, "test": config.max_test_images, "validation": config.max_validation_images,
        "labelled": None,
    }  # fmt: skip
    return {part: _subset(split, limits[part], config.split_seed, part) for part, split in read_splits(config).items()}


def _require_labels(labelled: Split, path: str, separator: str | None) -> None:
    codes = read_labels(labelled.labels, separator).codes
    if len(np.unique(codes[codes >= 0])) < 2:
        raise UserError(
            f"data.labelled_path: the images of {path} have no labels, or all the same; name their column with "
            "data.label_column, or an attribute with evaluate.targets"
        )


def read_splits(config: DataConfig) -> Parts:
    """The parts of the data, test images and those of `data.labelled_path` among them; decodes no image.

    Raises:
        UserError: as `load_dataset`.
    """
    parts = read_parts(config)
    if "test" not in parts:
        teacher: PartName = "labelled" if "labelled" in parts else "train"
        taught, test = _hold_out(parts[teacher], config)
        parts = {**parts, teacher: taught, "test": test}
    for part, split in parts.items():
        if len(split.labels) == 0:
            path = config.train_path if part == "train" else config.labelled_path or config.train_path
            raise UserError(f"data.name={config.name}: there are no {NAMES[part]} images in {path}")
    return parts


def load_images(config: DataConfig) -> Samples:
    """All images of `train_path`, undivided, with labels as codes; raises UserError as `load_dataset`."""
    data = read_all(config)["train"]
    data = _subset(data, config.max_train_images, config.split_seed, "train")
    names = data.images.names() or tuple(map(str, range(len(data.labels))))
    # One pass is made over them, for which no store pays.
    data, undecoded = _decode(data, config.model_copy(update={"store": "decode"}))
    skipped = [*data.skipped, *undecoded]
    if skipped:
        raise UserError(
            f"data: {len(skipped)} images cannot be read, and rows would no longer be images; the first: {skipped[0]}"
        )
    return Samples(data.images, read_labels(data.labels, config.list_separator).codes, {}, names)


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
    own = ("test_path", "validation_path", "labelled_path", "attributes_path", "label_column", "label_columns")
    others = dict.fromkeys((*own, "labels_path", "test_labels_path", "validation_labels_path"))
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
    of_shards = ("train_path", "test_path", "validation_path", "labelled_path")
    takes_patterns = config.name in ("parquet", "tar", "embeddings") and key in of_shards
    return Path(path).exists() or (takes_patterns and is_pattern(path) and len(fitting(Path(path))) > 0)


def _hold_out(data: Split, config: DataConfig) -> tuple[Split, Split]:
    """Split off the test images by a fixed seed, in the proportions of the classes where each has two members.

    The images without a label are divided as those of a class.
    """
    classes = read_labels(data.labels, config.list_separator).codes
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
    ready = ready_images(data.images, config)
    kept = data if ready.kept is None else data.select(ready.kept)
    return replace(kept, images=ready.images), ready.reasons


def _encode(parts: Parts, config: DataConfig, targets: tuple[str, ...], skipped: tuple[str, ...]) -> Dataset:
    """Remap labels and attributes to codes that agree between the parts."""
    _require_one_shape(parts)
    labels = read_label_columns(parts, config)
    known = encode_targets(parts, targets, config)
    columns = {name: values for name, values in parts["train"].columns.items() if name not in config.further_columns}
    attributes = encode_attributes(columns, config)
    samples = {
        part: _samples(
            split.images,
            {name: each[part] for name, each in labels.items()},
            {name: codes[part] for name, (codes, _) in known.items()},
        )
        for part, split in parts.items()
    }
    of_columns = {name: each["train"].names for name, each in labels.items() if name is not None}
    label_names = labels[None]["train"].names
    return Dataset(
        replace(
            samples["train"],
            columns={name: codes for name, (codes, _) in attributes.items()},
            numbers=continuous_values(columns, config),
        ),
        samples["test"],
        num_classes=len(label_names),
        num_channels=parts["train"].images.channels,
        names={None: label_names, **{name: names for name, (_, names) in attributes.items()}},
        skipped=skipped,
        notes=(
            *dict.fromkeys(note for split in parts.values() for note in split.notes),
            *_label_notes(labels, parts, targets),
        ),
        validation=samples.get("validation"),
        targets={**of_columns, **{name: names for name, (_, names) in known.items()}},
        labelled_set=samples.get("labelled"),
    )


def _label_notes(
    labels: dict[str | None, dict[PartName, Labels]], parts: Parts, targets: tuple[str, ...]
) -> list[str]:  # fmt: skip
    first = labels[None]["train"]
    if targets and not first.names:
        notes = [f"the images have no labels: {targets[0]} takes their place (evaluate.targets)"]
    else:
        notes = [
            note if name is None else f"{name}: {note}" for name, each in labels.items() for note in each["train"].notes
        ]
    return [f"data.labelled_path: {note}" for note in notes] if "labelled" in parts else notes


def _samples(images: Images, labels: dict[str | None, Labels], targets: dict[str, np.ndarray]) -> Samples:
    of_columns = {name: each.codes for name, each in labels.items() if name is not None}
    flags = {name: each.flags for name, each in labels.items() if each.flags is not None}
    return Samples(images, labels[None].codes, {}, targets={**of_columns, **targets}, flags=flags)


def _require_one_shape(parts: Parts) -> None:
    train = parts["train"].images
    for part, split in parts.items():
        other, name = split.images, NAMES[part]
        if train.size is None or other.size is None:
            continue
        if not train.has_pixels and train.channels != other.channels:
            raise UserError(
                f"data: the training vectors have {train.channels} dimensions and the {name} vectors {other.channels}"
            )
        if (train.channels, train.size) != (other.channels, other.size):
            raise UserError(
                f"data: the training images are {train.size[1]}x{train.size[0]} pixels and the {name} images "
                f"{other.size[1]}x{other.size[0]}; set data.image_size"
            )
