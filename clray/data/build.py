"""Any data set as Parquet: encoded images, label and attributes, in files that a cluster's nodes stream.

Files appear whole or not at all, and those that are there are not written again, so that a build that was interrupted
continues where it stopped.
"""

import csv
import hashlib
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from clray.config.sections import DataConfig
from clray.data.images.decode import BadImageError
from clray.data.images.port import Images
from clray.data.load import read_splits
from clray.data.readers.columns import is_list, is_missing
from clray.data.readers.split import Parts, Split
from clray.errors import UserError
from clray.folder_lock import folder_locked, holds_nothing, require_unlocked

MANIFEST_FILE, BAD_FILE = "build.json", "bad_images.csv"
ROWS_PER_FILE, ROWS_PER_GROUP = 10_000, 1_000
BAD_KEY = b"clray.bad_images"
KEYS_OF_USE = {"memory_limit_mib", "device_memory_fraction", "store", "num_decoders", "shuffle_row_groups",
                   "max_train_images", "max_test_images", "max_validation_images", "download",
                   "on_bad_image"}  # fmt: skip
"""Keys of the config that change how data are used, not what is built."""


@dataclass(frozen=True)
class Built:
    """What a build left: rows of each split, and where the bad images are listed, if there are any."""

    folder: Path
    num_train: int
    num_test: int
    num_validation: int
    num_labelled: int
    num_bad: int
    num_files_kept: int


def build_parquet(
    config: DataConfig,
    folder: Path,
    *,
    num_threads: int = 4,
    on_image: Callable[[int, int], None] | None = None,
) -> Built:
    """Write `train/00000.parquet`, ..., `test/00000.parquet`, ..., with columns image, label and the attributes.

    Validation images of the data's own are written into `validation/`, and those of `data.labelled_path` into
    `labelled/`.

    Without `data.image_size` the encoded bytes are copied as they are; with it images are resized and written as JPEG.
    Images that cannot be decoded are left out and listed in `bad_images.csv`.

    Args:
        on_image: hears of images done, and of how many there are.

    Raises:
        UserError: as `load_dataset`; or the folder holds other files, or a build of other data.
    """
    require_unlocked(folder)
    splits = read_splits(config.model_copy(update={"on_bad_image": "skip"}))
    if any(split.images.is_sequential for split in splits.values()):
        raise UserError(
            "data: these are Parquet files beyond data.memory_limit_mib already, which training streams as they are"
        )
    if {"image", "label"} & {*config.further_columns}:
        raise UserError("data.label_columns: a build calls its first columns image and label; give others another name")
    with folder_locked(folder):
        _claim(folder, _digest(config, splits))
        return _write(splits, folder, config, num_threads, on_image)


def _write(
    splits: Parts,
    folder: Path,
    config: DataConfig,
    num_threads: int,
    on_image: Callable[[int, int], None] | None,
) -> Built:
    """What is not there yet of each split."""
    total = sum(len(split.labels) for split in splits.values())
    done, num_kept, counts, bad = 0, 0, {}, []
    for name, split in splits.items():
        counts[name] = 0
        bad += [(name, reason.partition(": ")[0], reason) for reason in split.skipped]
        (folder / name).mkdir(exist_ok=True)
        for number, start in enumerate(range(0, len(split.labels), ROWS_PER_FILE)):
            path = folder / name / f"{number:05d}.parquet"
            rows = np.arange(start, min(start + ROWS_PER_FILE, len(split.labels)))
            num_kept += path.exists()
            if not path.exists():
                has_labels = bool(split.labels.notna().any())
                _write_part(split.select(rows), path, config.image_size, num_threads, has_labels=has_labels)
            metadata = pq.read_metadata(path)
            counts[name] += metadata.num_rows
            bad += [(name, *each) for each in json.loads(metadata.metadata[BAD_KEY])]
            done += len(rows)
            if on_image is not None:
                on_image(done, total)
        if counts[name] == 0:
            raise UserError(
                f"data: none of the {len(split.labels)} {name} images can be decoded; the first: {bad[0][2]}"
            )
    if bad:
        with (folder / BAD_FILE).open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([("split", "image", "reason"), *bad])
    num_validation, num_labelled = counts.get("validation", 0), counts.get("labelled", 0)
    return Built(folder, counts["train"], counts["test"], num_validation, num_labelled, len(bad), num_kept)


def _digest(config: DataConfig, splits: Parts) -> dict[str, str]:
    """What the files are made from: the settings, the labels and attributes, and the names of the images."""
    content = hashlib.sha256()
    for name, split in splits.items():
        content.update(f"{name} {len(split.labels)}".encode())
        content.update("\n".join(map(str, split.labels)).encode())
        for column, values in split.columns.items():
            content.update(column.encode() + "\n".join(map(str, values)).encode())
        content.update("\n".join(split.images.names()).encode())
    return {"settings": config.model_dump_json(exclude=KEYS_OF_USE), "content": content.hexdigest()}


def _claim(folder: Path, made_from: dict[str, str]) -> None:
    """Take an empty folder, or one with a build of the same data."""
    manifest = folder / MANIFEST_FILE
    if manifest.exists():
        if _settled(json.loads(manifest.read_text(encoding="utf-8"))) != _settled(made_from):
            raise UserError(f"{folder}: holds a build of other data or settings; choose another folder")
        return
    if not holds_nothing(folder):
        raise UserError(f"{folder}: exists and holds no clray build; choose another folder")
    partial = manifest.with_name(MANIFEST_FILE + ".partial")
    partial.write_text(json.dumps(made_from, indent=2), encoding="utf-8")
    partial.replace(manifest)


def _settled(made_from: dict[str, str]) -> dict[str, object]:
    """With the defaults of keys that did not exist yet, so that builds made before them can be continued."""
    defaults = {name: field.default for name, field in DataConfig.model_fields.items() if name not in KEYS_OF_USE}
    return {**made_from, "settings": {**defaults, **json.loads(made_from["settings"])}}


def _write_part(part: Split, path: Path, size: int | None, num_threads: int, *, has_labels: bool) -> None:
    encode = partial(_encode, part.images, size)
    with ThreadPoolExecutor(num_threads) as pool:
        images = list(pool.map(encode, range(len(part.labels))))
    good = np.array([i for i, image in enumerate(images) if isinstance(image, bytes)], np.int64)
    bad = [(part.images.name(i), image) for i, image in enumerate(images) if isinstance(image, str)]
    structs = [{"bytes": images[i], "path": part.images.name(i)} for i in good]
    kept = part.select(good)
    table = pa.table(
        {
            "image": pa.array(structs, pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
            **({"label": _as_arrow(kept.labels)} if has_labels else {}),
            **{name: _as_arrow(values) for name, values in kept.columns.items() if name not in ("image", "label")},
        }
    ).replace_schema_metadata({BAD_KEY: json.dumps(bad)})
    unfinished = path.with_name(path.name + ".partial")
    # Images are compressed already.
    pq.write_table(table, unfinished, row_group_size=ROWS_PER_GROUP, compression="zstd", use_dictionary=False)
    unfinished.replace(path)


def _as_arrow(values: pd.Series) -> pa.Array:
    try:
        return pa.Array.from_pandas(values)
    except (pa.ArrowInvalid, pa.ArrowTypeError):  # such as numbers and texts in one column
        if values.map(is_list).any():
            lists = [None if is_missing(value) else value if is_list(value) else [value] for value in values]
            return pa.array([None if each is None else [*map(str, each)] for each in lists])
        return pa.array([None if value != value else str(value) for value in values], pa.string())


def _encode(images: Images, size: int | None, index: int) -> bytes | str:
    """An image's encoded bytes, or the reason why there are none."""
    try:
        return images.encode(index, size)
    except (BadImageError, OSError) as error:
        return str(error)
