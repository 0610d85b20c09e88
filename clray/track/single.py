"""What a single run leaves in MLflow besides its metrics: its pictures, and its encoder as a model."""

from pathlib import Path

from clray.config import Config
from clray.data.samples import Dataset
from clray.track.models import log_model
from clray.track.runs import RunLogger


def log_result(logger: RunLogger, folder: Path, config: Config, data: Dataset) -> None:
    """Draw and write into the run's folder, and record it."""
    if config.tracking.pictures != "none":
        from clray.report.pictures import try_to_draw

        for picture in try_to_draw(folder, config, data):
            logger.log_file(picture)
    if config.tracking.models != "none":
        log_model(logger, folder, config, data, stored_as=folder.name, register_as=config.tracking.register_as)
