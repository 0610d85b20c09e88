"""What a single run leaves in MLflow besides its metrics: its pictures, and its encoder as a model."""

import logging
from pathlib import Path

from clray.config import Config
from clray.data.samples import Dataset
from clray.report.pictures import draw_run
from clray.track.models import write_model
from clray.track.runs import RunLogger

log = logging.getLogger(__name__)


def log_result(logger: RunLogger, folder: Path, config: Config, data: Dataset) -> None:
    """Draw and write into the run's folder, and record it; a run is not lost over either."""
    try:
        if config.tracking.pictures == "all":
            for picture in draw_run(folder, config, data):
                logger.log_file(picture)
        if config.tracking.models != "none":
            logger.log_model(write_model(folder, config, data))
    except Exception as error:
        log.warning("could not write pictures or the MLflow model of %s: %s", folder, error)
