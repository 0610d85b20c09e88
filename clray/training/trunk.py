"""The epochs before the first clustering, trained once for several runs that differ only in what comes after."""

import logging
import shutil
import uuid
from dataclasses import dataclass
from pathlib import Path

from clray.errors import UserError
from clray.training.checkpoint import BEST_FILE, CHECKPOINT_FILE, link_or_copy, read_checkpoint
from clray.training.metrics import METRICS_FILE, read_metrics, truncate_metrics

FILES = (METRICS_FILE, BEST_FILE, CHECKPOINT_FILE)
"""What a run starts from; the checkpoint last, as a run without one starts afresh."""
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Trunk:
    """A run's files as they were after `num_epochs`, in a folder of their own.

    The run that gets there first keeps them, and the others start from them. The bits are the same as if each had
    trained these epochs itself.
    """

    folder: Path
    num_epochs: int

    @property
    def is_ready(self) -> bool:
        return (self.folder / CHECKPOINT_FILE).exists()

    def keep(self, run: Path, checkpoint: Path) -> None:
        """Keep the files of a run that has just trained `num_epochs`; a reader finds all of them or none.

        Args:
            run: its folder.
            checkpoint: of that epoch.
        """
        if self.is_ready:
            return
        partial = self.folder.with_name(f"{self.folder.name}.{uuid.uuid4().hex}.partial")
        partial.mkdir(parents=True)
        try:
            shutil.copyfile(run / METRICS_FILE, partial / METRICS_FILE)
            if (run / BEST_FILE).exists():
                link_or_copy(run / BEST_FILE, partial / BEST_FILE)
            link_or_copy(checkpoint, partial / CHECKPOINT_FILE)
            partial.rename(self.folder)
        except OSError as error:
            # The run itself is well; another one trains these epochs again.
            log.warning("%s: the shared epochs were not kept: %s", self.folder, error)
            shutil.rmtree(partial, ignore_errors=True)

    def start(self, run: Path) -> bool:
        """Put the files into the folder of a run that has none yet; returns whether the run starts from them.

        A trunk whose checkpoint is damaged is removed with a warning, and the run trains these epochs itself.
        """
        if not self.is_ready or (run / CHECKPOINT_FILE).exists() or read_metrics(run):
            return False
        try:
            read_checkpoint(self.folder / CHECKPOINT_FILE)
        except UserError as error:
            log.warning("%s; its epochs are trained again", str(error).split("; use another")[0])
            shutil.rmtree(self.folder, ignore_errors=True)
            return False
        for name in FILES:
            if (self.folder / name).exists():
                link_or_copy(self.folder / name, run / name)
        truncate_metrics(run, self.num_epochs)
        return True
