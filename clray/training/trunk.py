"""The epochs before the first clustering, trained once for several runs that differ only in what comes after."""

import logging
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from clray.config import Config, override
from clray.errors import UserError
from clray.training.checkpoint import (
    BEST_FILE,
    GROUP_FOLDER,
    read_checkpoint,
    write_checkpoint,
)
from clray.training.checkpoint_parts import CHECKPOINT_FILE, link_or_copy
from clray.training.first_clusterings import FirstClustering, Wanted, read_first, write_first
from clray.training.metrics import METRICS_FILE, read_metrics, truncate_metrics

FILES = (METRICS_FILE, BEST_FILE, CHECKPOINT_FILE)
"""What a run starts from; the checkpoint last, as a run without one starts afresh."""
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Trunk:
    """A run that ends before its first clustering, with the first clusterings of the runs that go on from there.

    The bits are the same as if each had trained these epochs, and clustered, by itself.

    Attributes:
        folder: of its own; there once all is in it.
        wanted: what the runs ask of their first clustering.
    """

    folder: Path
    num_epochs: int
    wanted: tuple[Wanted, ...] = ()

    @property
    def is_ready(self) -> bool:
        return (self.folder / CHECKPOINT_FILE).exists()

    def grow(self, config: Config, grower: str, train: Callable[[Config, Path, tuple[Wanted, ...]], None]) -> None:
        """Train it, from where the same grower was interrupted, unless it is there whole.

        One whose checkpoint is damaged is removed with a warning, and trained again.

        Args:
            config: of one of the runs.
            grower: names the folder in which it grows, so that no two write the same files.
            train: trains a config in a folder, and clusters, as `clray.training.trainer.grow`.
        """
        if self.is_ready and self._reads(self.folder, CHECKPOINT_FILE):
            return
        growing = self.folder.with_name(f"{self.folder.name}.{grower}")
        if growing.exists() and any(growing.rglob(CHECKPOINT_FILE)):
            self._reads(growing)
        growing.mkdir(parents=True, exist_ok=True)
        own = trunk_config(config)
        kmeans = Wanted.of(own).kmeans
        train(own, growing, tuple(each for each in self.wanted if each.kmeans == kmeans))
        checkpoint = read_checkpoint(growing, "all")
        write_first(growing, checkpoint.pop("first"))
        write_checkpoint(growing, checkpoint)
        shutil.rmtree(growing / GROUP_FOLDER, ignore_errors=True)
        try:
            growing.rename(self.folder)
        except OSError as error:
            if not self.is_ready:
                raise
            log.info("%s was there first: %s", self.folder, error)
            shutil.rmtree(growing, ignore_errors=True)

    def start(self, run: Path) -> bool:
        """Put the files into the folder of a run that has none yet; returns whether the run starts from them."""
        if not self.is_ready or not is_fresh(run) or not self._reads(self.folder, CHECKPOINT_FILE):
            return False
        for name in FILES:
            if (self.folder / name).exists():
                link_or_copy(self.folder / name, run / name)
        truncate_metrics(run, self.num_epochs)
        return True

    def first_clustering(self, config: Config) -> FirstClustering | None:
        """That of a run; None where it is not kept, and the run computes the same itself."""
        return read_first(self.folder).get(Wanted.of(config)) if self.is_ready else None

    def _reads(self, folder: Path, name: str = "") -> bool:
        """Whether this checkpoint of the folder is whole, or any; else the folder is removed, with a warning."""
        try:
            read_checkpoint(folder / name)
        except UserError as error:
            log.warning("%s; its epochs are trained again", str(error).split("; use another")[0])
            shutil.rmtree(folder, ignore_errors=True)
            return False
        return True


def is_fresh(run: Path) -> bool:
    """Whether a run has trained nothing yet."""
    return not (run / CHECKPOINT_FILE).exists() and not read_metrics(run)


def trunk_config(config: Config) -> Config:
    """That of a run, or of its trunk where it never clusters: InfoNCE trains as such a run before its clusters."""
    if config.clusters.source == "instance":
        config = override(config, {"objective.name": "cl-infonce", "clusters.source": "kmeans"})
    return config.model_copy(update={"train": config.train.model_copy(update={"storage_path": None})})
