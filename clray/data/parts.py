"""The way in to the data of a run: training, validation and test images, with what they are held against."""

from clray.config.sections import DataConfig
from clray.data.load import load_dataset
from clray.data.samples import Dataset
from clray.data.targets import with_headline
from clray.data.validation import with_validation


def load_parts(config: DataConfig, targets: tuple[str, ...] = ()) -> Dataset:
    """All parts of the data.

    Args:
        targets: `evaluate.targets`; they change what is measured, never which images are trained on.

    Raises:
        UserError: as `load_dataset`.
    """
    return with_headline(with_validation(load_dataset(config, targets), config), targets)
