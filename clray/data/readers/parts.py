"""Which parts of a data set serve for testing and validation: those that it holds, or those that the config names."""

from collections.abc import Collection

from clray.config.sections import DataConfig
from clray.data.readers.places import SplitName
from clray.data.readers.split import Parts
from clray.errors import UserError

Served = dict[SplitName, str]
"""The name of the part, as `part_of` tells it, that serves for something."""


def served_by(found: Collection[str | None], config: DataConfig) -> Served:
    """What the parts beside the training images serve for, where the config names no files of its own for it.

    A validation part serves for testing where nothing else does.
    """
    served: Served = {}
    if "train" not in found:
        return served
    if config.test_path is None and (name := next((each for each in ("test", "validation") if each in found), None)):
        served["test"] = name
    # Vectors whose labels lie beside them need those of validation too.
    has_labels = config.labels_path is None or config.validation_labels_path is not None
    is_free = served.get("test") != "validation" and config.validation_path is None
    if "validation" in found and is_free and has_labels:
        served["validation"] = "validation"
    return served


def without_repeated(parts: Parts, config: DataConfig) -> Parts:
    """The parts without a validation part that is the test part again, where the config names it for testing.

    Raises:
        UserError: `data.validation_path` holds the images that are trained or tested on.
    """
    for other in ("train", "test"):
        if not _are_same(parts, other):
            continue
        if config.validation_path is None:
            return {name: split for name, split in parts.items() if name != "validation"}
        raise UserError(
            f"data.validation_path: {config.validation_path} holds the {other}ing images; name others, or leave it out "
            "(with data.validation_fraction=0 the test images choose and report)"
        )
    return parts


def _are_same(parts: Parts, other: SplitName) -> bool:
    if "validation" not in parts or other not in parts:
        return False
    one, two = parts["validation"].images, parts[other].images
    return len(one) == len(two) and (names := list(one.names())) != [] and names == list(two.names())
