"""Whether the images of a data set are all one and the same, from which nothing can be learned."""

import numpy as np

from clray.data.images.decode import BadImageError
from clray.data.images.port import Images

MOST_COMPARED = 1_000


def notes_on_equal_images(images: Images) -> list[str]:
    """A note where up to 1,000 training images, drawn at random, have equal pixels.

    The first that differs ends it, so that most data sets take two images. Of images that are read in runs the first
    ones are compared.
    """
    count = min(len(images), MOST_COMPARED)
    if count < 2:
        return []
    rows = np.arange(count) if images.is_sequential else np.random.default_rng(0).permutation(len(images))[:count]
    if not _are_equal(images, rows):
        return []
    kind = "images" if images.has_pixels else "vectors"
    which = f"all {count} training {kind}" if count == len(images) else f"{count} of {len(images)} training {kind}"
    one, other = images.name(int(rows[0])), images.name(int(rows[-1]))
    return [f"{which} were compared and are equal, such as {one} and {other}: nothing can be learned from them"]


def _are_equal(images: Images, rows: np.ndarray) -> bool:
    """False where an image cannot be decoded, which is told elsewhere."""
    try:
        pixels = images.each(rows)
        first = next(pixels)
        return all(np.array_equal(first, other) for other in pixels)
    except BadImageError:
        return False
