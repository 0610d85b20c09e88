"""Letters and digits drawn in the fonts that come with matplotlib: a small data set with attributes.

Characters and fonts are fully crossed, so that what each attribute tells about the label is known: `alphabet` and
`case` are properties of the character, `family`, `weight` and `slant` of the font, which tell nothing.
"""

from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image, ImageDraw, ImageFont

from clray.data.images.array import ArrayImages
from clray.data.readers.split import Split

SIZE = 16
FONT_SIZE, BASELINE = 13, 12
CHARACTERS = {
    ("latin", "upper"): "ABCDEFGHIJKLMNOPQRSTUVWXYZ",
    ("latin", "lower"): "abcdefghijklmnopqrstuvwxyz",
    ("digits", "none"): "0123456789",
    # Without those that look like another one.
    ("greek", "upper"): "ΓΔΘΛΠΣΦΨΩ",
    ("greek", "lower"): "αβγδεζηθλμξπρσφχψω",
    ("cyrillic", "upper"): "БДЖИЛЦЧШЩЫЭЮЯ",
    ("cyrillic", "lower"): "бвгджйлнцшщыэюя",
}
FAMILIES = {
    "sans": ("DejaVuSans", "DejaVuSans-Oblique", "DejaVuSans-Bold", "DejaVuSans-BoldOblique"),
    "mono": ("DejaVuSansMono", "DejaVuSansMono-Oblique", "DejaVuSansMono-Bold", "DejaVuSansMono-BoldOblique"),
    "serif": ("DejaVuSerif", "DejaVuSerif-Italic", "DejaVuSerif-Bold", "DejaVuSerif-BoldItalic"),
    "stix": ("STIXGeneral", "STIXGeneralItalic", "STIXGeneralBol", "STIXGeneralBolIta"),
}
"""The files of each family: book upright and slanted, bold upright and slanted."""


def read_glyphs() -> Split:
    """1,872 grey images of 117 characters in 16 fonts, bright on dark as the digits."""
    import matplotlib

    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    rows, images = [], []
    for family, files in FAMILIES.items():
        for file, (weight, slant) in zip(files, product(("book", "bold"), ("upright", "slanted")), strict=True):
            font = ImageFont.truetype(folder / f"{file}.ttf", FONT_SIZE)
            for (alphabet, case), characters in CHARACTERS.items():
                images += [_draw(character, font) for character in characters]
                rows += [(character, alphabet, case, family, weight, slant) for character in characters]
    table = pd.DataFrame(rows, columns=["character", "alphabet", "case", "family", "weight", "slant"])
    columns = {str(name): table[name] for name in table.columns[1:]}
    return Split(ArrayImages(np.stack(images)[:, None]), table["character"], columns)


def _draw(character: str, font: ImageFont.FreeTypeFont) -> np.ndarray:
    image = Image.new("L", (SIZE, SIZE))
    ImageDraw.Draw(image).text((SIZE / 2, BASELINE), character, fill=255, font=font, anchor="ms")
    return np.asarray(image)
