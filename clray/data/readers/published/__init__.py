"""Data sets in the layout their authors distribute them in: which images there are, and what is said about them."""

from pathlib import Path

from clray.config.sections import DataConfig
from clray.data.readers.published import cub, imagenet, wider, zappos
from clray.data.readers.published.catalog import Catalog
from clray.data.readers.published.cub import read_cub
from clray.data.readers.published.imagenet import read_imagenet100
from clray.data.readers.published.wider import read_wider
from clray.data.readers.published.zappos import read_zappos

SOURCES = {
    "zappos50k": zappos.SOURCE,
    "cub200": cub.SOURCE,
    "wider_attribute": wider.SOURCE,
    "imagenet100": imagenet.SOURCE,
}


def read_catalog(config: DataConfig) -> Catalog:
    """The published data set that `data.name` names, below `data.train_path`.

    Raises:
        UserError: a missing or malformed file; says where the data set is obtained.
    """
    assert config.train_path is not None, "DataConfig requires train_path for published data"
    root = Path(config.train_path)
    if config.name == "zappos50k":
        return read_zappos(root)
    if config.name == "cub200":
        return read_cub(root, config.min_certainty)
    if config.name == "wider_attribute":
        return read_wider(root)
    assert config.name == "imagenet100", config.name
    return read_imagenet100(root, None if config.classes_path is None else Path(config.classes_path))
