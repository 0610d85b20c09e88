"""Tar files as WebDataset lays them out: `key.jpg`, `key.cls` and `key.json` are one sample. Unpacks nothing."""

import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import pandas as pd
import pyarrow as pa

from clray.config.sections import DataConfig
from clray.data.images.decode import PixelRules
from clray.data.images.encoded import EncodedImages, as_places, as_texts
from clray.data.readers.columns import from_json, from_texts
from clray.data.readers.hub_columns import LABEL_NAMES
from clray.data.readers.places import SplitName
from clray.data.readers.shards import shards_of
from clray.data.readers.split import Split, no_labels
from clray.data.readers.tar_index import Member, read_index
from clray.data.readers.walk import SUFFIXES
from clray.data.remote.cache import present
from clray.errors import UserError

ENDINGS = (".tar",)
CLASS, RECORD = "cls", "json"
MAX_BYTES = 2**20
"""Of a label or a record."""


@dataclass
class _Samples:
    """The samples of all shards, a value in each list for each; `others` counts the members that are none of them."""

    names: list[str] = field(default_factory=list)
    files: list[str] = field(default_factory=list)
    images: list[Member] = field(default_factory=list)
    classes: list[str] = field(default_factory=list)
    records: list[dict[str, Any]] = field(default_factory=list)
    others: Counter[str] = field(default_factory=Counter)
    without_image: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def read_tar(path: Path, config: DataConfig, part: SplitName | None = None) -> Split:
    """A tar file, a folder of them, or those that a pattern such as `data/train-*.tar` fits.

    What stands before the first dot of a member's name is the sample's key, what stands behind it says what it is: an
    image, `cls` (its label as text), or `json` (a record of attributes, among which the label may be).

    Raises:
        UserError: a missing or damaged file, a sample with two images, or a record that is no mapping.
    """
    files = shards_of(path, part, ENDINGS)
    found = _Samples()
    for file in files:
        _read_shard(file, config, found)
    if not found.names:
        others = ", ".join(f"{count} .{ending}" for ending, count in found.others.most_common(5)) or "nothing"
        raise UserError(f"{path}: holds no image, such as key.jpg; it holds {others}")
    images = EncodedImages(
        as_texts(found.names), PixelRules.of(config), files=as_places(found.files), spans=_spans(found.images)
    )
    labels, columns = _known(path, found, config)
    return Split(images, labels, columns, (*found.notes, *_notes(path, found)))


def _spans(images: list[Member]) -> pa.Array:
    numbers = {"offset": [image.offset for image in images], "size": [image.size for image in images]}
    return pa.StructArray.from_arrays([pa.array(values, pa.int64()) for values in numbers.values()], list(numbers))


def _read_shard(file: Path, config: DataConfig, found: _Samples) -> None:
    index = read_index(file)
    samples: dict[str, dict[str, Member]] = {}
    for member in index.members:
        folder, _, base = member.name.rpartition("/")
        key, _, ending = base.partition(".")
        parts = samples.setdefault(f"{folder}/{key}" if folder else key, {})
        if ending.lower() in parts:
            raise UserError(f"{file}: holds {member.name} twice; give each sample a key of its own")
        parts[ending.lower()] = member
    with present(file).open("rb") as opened:
        for key, parts in samples.items():
            _add_sample(file, opened, key, parts, config, found)
    if index.num_others:
        found.notes.append(f"{file}: left out {index.num_others} links and devices, which are no data")
    if not index.has_end:
        found.notes.append(f"{file}: has no mark of its end, so that it may have been cut between two samples")


def _add_sample(
    file: Path, opened: BinaryIO, key: str, parts: dict[str, Member], config: DataConfig, found: _Samples
) -> None:
    name = f"{file}, {key}"
    images = [ending for ending in parts if f".{ending.rpartition('.')[2]}" in SUFFIXES]
    if config.image_column is not None:
        images = [ending for ending in images if ending == config.image_column.lower()]
    if len(images) > 1:
        raise UserError(f"{name}: holds several images ({', '.join(images)}); name one with data.image_column")
    found.others.update(ending for ending in parts if ending not in (*images, CLASS, RECORD))
    if not images:
        found.without_image.append(name)
        return
    found.names.append(name)
    found.files.append(str(file.resolve()))
    found.images.append(parts[images[0]])
    found.classes.append(_text(opened, name, parts[CLASS]).strip() if CLASS in parts else "")
    found.records.append(_record(opened, name, parts[RECORD]) if RECORD in parts else {})


def _text(opened: BinaryIO, name: str, member: Member) -> str:
    if member.size > MAX_BYTES:
        raise UserError(f"{name}: {member.name} has {member.size} bytes; labels and records have at most {MAX_BYTES}")
    opened.seek(member.offset)
    try:
        return opened.read(member.size).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{name}: {member.name} is no text in UTF-8: {error}") from error


def _record(opened: BinaryIO, name: str, member: Member) -> dict[str, Any]:
    try:
        record = json.loads(_text(opened, name, member))
    except (ValueError, RecursionError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{name}: {member.name} is no JSON: {error}") from error
    if not isinstance(record, dict):
        raise UserError(f"{name}: {member.name} must hold a mapping of attributes; it holds a {type(record).__name__}")
    return record


def _known(path: Path, found: _Samples, config: DataConfig) -> tuple[pd.Series, dict[str, pd.Series]]:
    """Labels and attributes: those of `cls` where any sample has one, else a field of the records."""
    names = dict.fromkeys(str(name) for record in found.records for name in record)
    fields = {name: from_json([record.get(name) for record in found.records]) for name in names}
    columns = {name: values for name, values in fields.items() if values is not None}
    has_classes = any(found.classes)
    wanted = config.label_column
    if wanted is None:
        wanted = CLASS if has_classes else next((name for name in LABEL_NAMES if name in columns), None)
    if wanted == CLASS and has_classes:
        return from_texts(found.classes), columns
    if wanted is None:
        return no_labels(len(found.names)), columns
    if wanted not in columns:
        there = ", ".join([*([CLASS] if has_classes else []), *columns]) or "none"
        raise UserError(f"{path}: data.label_column={wanted}: no sample has it; there are: {there}")
    labels = columns.pop(wanted)
    return labels, columns


def _notes(path: Path, found: _Samples) -> list[str]:
    notes = []
    if found.without_image:
        count = len(found.without_image)
        notes.append(f"{path}: left out {count} samples without an image; the first: {found.without_image[0]}")
    if found.others:
        shown = ", ".join(f"{count} .{ending}" for ending, count in found.others.most_common(5))
        notes.append(f"{path}: left out what is neither image, .{CLASS} nor .{RECORD}: {shown}")
    return notes
