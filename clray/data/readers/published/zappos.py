"""UT-Zappos50K: shoes in folders category/subcategory/brand, with eight descriptive columns as binary attributes."""

from pathlib import Path

import pandas as pd

from clray.data.readers.places import is_hidden
from clray.data.readers.published.catalog import Catalog, Source, require_file, require_names, require_rows
from clray.data.readers.text_tables import read_text_table
from clray.errors import UserError

SOURCE = Source(
    title="UT-Zappos50K",
    obtained="the University of Texas at Austin (vision.cs.utexas.edu/projects/finegrained/utzap50k): "
    "ut-zap50k-images-square.zip and ut-zap50k-data.zip, unpacked into one folder",
    num_images=50_025,
    num_classes=21,
    num_attributes=126,
)
IMAGES = ("ut-zap50k-images-square", "ut-zap50k-images")
TABLES = (
    "meta-data-bin.csv",
    "ut-zap50k-data/meta-data-bin.csv",
    "ut-zap50k-images-square/ut-zap50k-data/meta-data-bin.csv",
)
ABOUT_THE_CLASS = ("Category.", "SubCategory.")
"""The 25 binary columns that say the label itself: of 151 they leave the 126 attributes."""


def read_zappos(root: Path) -> Catalog:
    """Every image in the folders, its class `category/subcategory`, its attributes by its file's name (CID).

    Raises:
        UserError: no images or no table of attributes.
    """
    folder = require_file(root, IMAGES, SOURCE)
    path = require_file(root, TABLES, SOURCE)
    binary = read_text_table(path).frame
    if "CID" not in binary.columns:
        raise UserError(f"{path}: no column 'CID'; the table has: {', '.join(map(str, binary.columns[:8]))}, ...")
    files = sorted(file.relative_to(folder) for file in folder.glob("*/*/*/*.jpg") if not is_hidden(file.name))
    table = pd.DataFrame(
        {
            "path": [str(file) for file in files],
            "label": ["/".join(file.parts[:2]) for file in files],
            "split": "",
            # The file of the shoe 100627-72 is called 100627.72.jpg.
            "CID": [file.stem.replace(".", "-") for file in files],
        }
    )
    require_rows(table, folder, SOURCE)
    attributes = tuple(name for name in binary.columns if name != "CID" and not name.startswith(ABOUT_THE_CLASS))
    require_names(attributes, path)
    repeated = int(binary["CID"].duplicated().sum())
    known = binary.drop_duplicates("CID")[["CID", *attributes]].assign(CID=lambda each: each["CID"].astype(str))
    table = table.merge(known, on="CID", how="left", indicator=True)
    undescribed = int((table["_merge"] == "left_only").sum())
    missing = int((~known["CID"].isin(table["CID"])).sum())
    notes = [
        f"{count} {what}"
        for count, what in (
            (undescribed, "images have no row of attributes; theirs are missing values"),
            (missing, "rows of attributes have no image and are left out"),
            (repeated, "rows repeat a CID and are left out"),
        )
        if count
    ]
    return Catalog(SOURCE, folder, table.drop(columns=["CID", "_merge"]), attributes, tuple(notes))
