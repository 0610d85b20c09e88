"""Folders of images: flat or of any depth, by class or not, with `train/` beside `val/` or `test/` as parts."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import pandas as pd

from clray.config.sections import DataConfig
from clray.data.images.decode import PixelRules
from clray.data.images.encoded import EncodedImages
from clray.data.readers.lists import path_column_of, path_texts
from clray.data.readers.metadata import Described, read_metadata
from clray.data.readers.places import SplitName, is_inside, part_of, require_columns
from clray.data.readers.split import Split, no_labels
from clray.data.readers.text_tables import read_text_table
from clray.data.readers.walk import Found, folders_in, holds_images, holds_metadata, image_folders, metadata_above, walk
from clray.errors import UserError

MAX_DESCENT = 20
NEUTRAL = frozenset(("set", "split", "data", "dataset", "images", "imgs", "image", "seg", "original"))
"""Words beside `train` that leave a folder a part of a data set: `training_set`, `seg_train`, `train_images`."""


def read_folder(root: Path, config: DataConfig, part: SplitName) -> Split:
    """The images below a folder.

    Their labels are what a `metadata.csv` or `metadata.jsonl` among them, or above the folders of the parts, says, else
    the names of their topmost folders; images in none have no label. Where all images lie in one folder, that is taken
    for the root.

    Args:
        part: where the folder holds `train/` and `val/` or `test/`, the one that is taken.

    Raises:
        UserError: no such part, no image, a link that leaves the root; or a broken one, or a row of metadata that names
            no image (where these are not skipped).
    """
    if not root.is_dir():
        raise UserError(f"{root}: expected a folder of images; it is none")
    top = _layout_of(root).folder_of(part)
    found = walk(root, top)
    _require_sound(root, found, config)
    if not found.images:
        raise UserError(f"{top}: expected images; found {found.describe() or 'nothing'}")
    prefix = len(top.relative_to(root).parts)
    names = sorted(found.images, key=lambda name: _order(name, prefix))
    described = read_metadata(root, top, [*found.metadata, *metadata_above(root, top)], names, config)
    columns = {} if described is None else {**described.columns}
    if config.attributes_path is not None:
        columns = {**columns, **_attributes_of(names, config, part)}
    labels, label_notes = _labels_of(top, names, prefix, described, columns, config)
    notes = (*found.notes(root), *label_notes, *(() if described is None else described.notes))
    skipped = (*(f"{root / name}" for name in found.broken), *(() if described is None else described.problems))
    return Split(as_files(root, names, config), labels, columns, notes, skipped)


def folders_of_parts(root: Path) -> tuple[dict[str, str], list[str]]:
    """The folder of each part, and those beside them that are none; both empty where the folders are classes."""
    layout = _layout_of(root) if root.is_dir() else _Layout(root, [], {})
    return layout.parts, [name for name in layout.folders if layout.parts and name not in layout.parts.values()]


def as_files(root: Path, names: Iterable[str], config: DataConfig) -> EncodedImages:
    """Images in files below the root; raises UserError where a symbolic link leads out of it."""
    files = [(root / name).resolve() for name in names]
    outside = [name for name, file in zip(names, files, strict=True) if not is_inside(file, root)]
    if outside:
        raise _leaving(root, outside)
    return EncodedImages.of_files(files, PixelRules.of(config))


@dataclass(frozen=True)
class _Layout:
    """The folder that holds all images, and in it the folders of the parts of the data set, where there are any."""

    top: Path
    folders: list[str]
    parts: dict[str, str]

    def folder_of(self, part: SplitName) -> Path:
        """The folder that holds a part; a lone `train/` is any. Raises UserError where there are others alone."""
        if not self.parts:
            return self.top
        wanted = "validation" if part == "test" and "test" not in self.parts else part
        if wanted not in self.parts and len(self.parts) > 1:
            raise UserError(f"{self.top}: holds {' and '.join(self.parts.values())}, and no folder for {part}")
        return self.top / self.parts.get(wanted, self.parts["train"])


def _layout_of(root: Path) -> _Layout:
    """`train/` beside `val/` or `test/` is a part, and so is a lone `train/`; beside others it is a class."""
    top, described = root, None
    for _ in range(MAX_DESCENT):
        folders = image_folders(top)
        parts = {part: name for name in folders if (part := _part_of(name)) is not None}
        if "train" in parts and (len(parts) > 1 or len(folders) == 1):
            return _Layout(top, folders, parts)
        inner = top / folders[0] if len(folders) == 1 else None
        if inner is None or inner.is_symlink() or holds_images(top):
            break
        if described is None and holds_metadata(top):
            described = _Layout(top, folders, {})
        top = inner
    # Metadata describe all below them, where that is not divided into parts.
    return described or _Layout(top, folders, {})


def _part_of(name: str) -> str | None:
    words = [word for word in name.lower().replace("-", "_").replace(" ", "_").split("_") if word not in NEUTRAL]
    return part_of("_".join(words), alone=True)


def _require_sound(root: Path, found: Found, config: DataConfig) -> None:
    if found.outside:
        raise _leaving(root, found.outside)
    if found.broken and config.on_bad_image == "error":
        raise UserError(f"{root}: {len(found.broken)} images are broken links; the first: {found.broken[0]}. Remove "
                        "it, or leave such images out with data.on_bad_image=skip")  # fmt: skip


def _leaving(root: Path, links: Sequence[str]) -> UserError:
    return UserError(
        f"{root}: {len(links)} links leave the folder; the first: {links[0]}. Remove them, copy into the folder what "
        "they lead to, or name the folder that holds both with data.train_path"
    )


def _order(name: str, prefix: int) -> tuple[bool, str, str, str]:
    """As torchvision's ImageFolder: classes, in them folders by their paths, in them files by name; then the others."""
    folder, _, file = name.rpartition("/")
    parts = PurePosixPath(name).parts
    return len(parts) == prefix + 1, parts[prefix], folder, file


def _labels_of(
    top: Path,
    names: list[str],
    prefix: int,
    described: Described | None,
    columns: dict[str, pd.Series],
    config: DataConfig,
) -> tuple[pd.Series, list[str]]:
    """The labels of the images, and notes on what has none; a column that holds them is taken from `columns`."""
    if described is not None and described.labels is not None:
        return described.labels, []
    if config.label_columns is not None and config.label_column in columns:
        return columns.pop(config.label_column), []
    if config.label_column is not None and (described is not None or config.label_columns is not None):
        raise UserError(f"{top}: no metadata has the column {config.label_column!r} (data.label_column)")
    classes = [parts[prefix] if len(parts := PurePosixPath(name).parts) > prefix + 1 else None for name in names]
    known = set(classes) - {None}
    if not known:
        return no_labels(len(names)), []
    notes = []
    beside = [name for name, each in zip(names, classes, strict=True) if each is None]
    if beside:
        notes.append(f"{top}: {len(beside)} images lie in no class folder and have no label, such as {beside[0]}")
    empty = [name for name in folders_in(top) if name not in known]
    if empty:
        notes.append(f"{top}: {len(empty)} class folders hold no image; the first: {empty[0]}")
    return pd.Series(classes, dtype=object), notes


def _attributes_of(names: list[str], config: DataConfig, part: SplitName) -> dict[str, pd.Series]:
    """The columns of `data.attributes_path` for each image, missing where it has no row there."""
    assert config.attributes_path is not None, "asked for where there is one"
    path = Path(config.attributes_path)
    table = read_text_table(path).frame
    column = path_column_of(path, list(map(str, table.columns)), config)
    require_columns(path, list(table.columns), {column})
    table = table.assign(**{column: path_texts(table[column])})
    table = table.drop_duplicates(column).set_index(column)
    # Nobody asks for the attributes of validation images.
    if part != "validation" and not table.index.isin(names).any():
        raise UserError(f"{path}: none of its paths is an image below {config.train_path}; the first: {table.index[0]}")
    rows = table.reindex(names)
    return {str(name): rows[name].reset_index(drop=True) for name in rows.columns}
