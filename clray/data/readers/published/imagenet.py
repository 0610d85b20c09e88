"""ImageNet-100: a list of WordNet ids over the folders of ILSVRC-2012."""

from importlib.resources import files
from pathlib import Path

import pandas as pd

from clray.data.readers.places import is_hidden
from clray.data.readers.published.catalog import Catalog, Source, read_text, require_file, require_rows
from clray.errors import UserError

SOURCE = Source(
    title="ImageNet-100",
    obtained="image-net.org (ILSVRC-2012): the training and validation images as train/ID/*.JPEG and val/ID/*.JPEG, a "
    "folder for each WordNet id; of the others only those of the list are read",
    num_images=None,
    num_classes=100,
    num_attributes=0,
)
CLASSES_FILE = "imagenet100.txt"
SUFFIXES = (".jpeg", ".jpg", ".png")


def read_imagenet100(root: Path, classes_path: Path | None = None) -> Catalog:
    """The images of the listed WordNet ids, which are their labels.

    Args:
        classes_path: a file with an id on each line; by default the 100 of Tsai et al. (arXiv 2202.06670).

    Raises:
        UserError: a missing folder, or one for a listed class.
    """
    wanted = read_classes(classes_path)
    rows = []
    for split, names in (("train", ("train",)), ("test", ("val", "validation"))):
        folder = require_file(root, names, SOURCE)
        missing = [name for name in wanted if not (folder / name).is_dir()]
        if missing:
            raise UserError(
                f"{SOURCE.title}: {folder} has no folder for {len(missing)} of {len(wanted)} classes: "
                f"{', '.join(missing[:5])}. It is obtained from {SOURCE.obtained}"
            )
        for name in wanted:
            images = sorted(file for file in (folder / name).iterdir() if _is_image(file))
            rows += [(str(file.relative_to(root)), name, split) for file in images]
    table = pd.DataFrame(rows, columns=["path", "label", "split"])
    require_rows(table, root, SOURCE)
    return Catalog(SOURCE, root, table, ())


def _is_image(file: Path) -> bool:
    return file.suffix.lower() in SUFFIXES and not is_hidden(file.name)


def read_classes(path: Path | None) -> list[str]:
    """WordNet ids such as n01496331, one a line; raises UserError for a line that is none, or one named twice."""
    packaged = files("clray.data.readers.published") / CLASSES_FILE
    text = packaged.read_text(encoding="utf-8") if path is None else read_text(path, SOURCE)
    names = [line.split()[0] for line in text.splitlines() if line.strip() and not line.startswith("#")]
    for name in names:
        if not (name[:1] == "n" and name[1:].isdigit() and len(name) == 9):
            raise UserError(f"{path}: expected a WordNet id such as n01496331 on each line; got {name!r}")
    if len(set(names)) < len(names) or len(names) < 2:
        raise UserError(
            f"{path}: expected two or more different WordNet ids; got {len(names)}, {len(set(names))} different"
        )
    return names
