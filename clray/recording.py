"""Around the training of a run or sweep: its folder is held, what happens is recorded, and both are closed."""

import _thread
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from clray.config import Config
from clray.errors import TrainingError
from clray.interrupts import uninterrupted
from clray.progress import Observer

if TYPE_CHECKING:
    from clray.track.runs import Tracker


def keep(config: Config, folder: Path) -> None:
    """Copy the results to `train.storage_path`, where that is set."""
    from clray.training.storage import keep_results

    keep_results(config, folder, folder.name)


@contextmanager
def recorded(config: Config, folder: Path, observer: Observer, *, resume: bool, is_on_ray: bool) -> "Iterator[Tracker]":
    """Hold and open the folder and the store; end what MLflow holds of the work whatever way the block ends.

    Raises:
        UserError: another command holds the folder, or the store cannot be used.
        TrainingError: the head of the Ray cluster is lost.
    """
    from clray.track.mlflow import open_store
    from clray.track.runs import Tracker
    from clray.training.folder import folder_held, write_config

    lost: list[str] = []
    with folder_held(folder, resume=resume):
        with observer.preparing("opening the MLflow store"):
            if is_on_ray:
                from clray.ray_runtime.cluster import require_shared_folder

                require_shared_folder(folder)
            store = open_store(config.tracking, Path(config.output))
            write_config(config, folder)
            observer.opened(folder)
            keep(config, folder)
            tracker = Tracker(store, folder)

        if is_on_ray:
            from clray.ray_runtime.head import head_watched
            from clray.ray_runtime.lost_nodes import nodes_watched

        def leave(reason: str) -> None:
            lost.append(reason)
            tracker.end_open("KILLED")
            _close(tracker, config, observer)
            observer.lost(reason)
            _thread.interrupt_main()

        try:
            with ExitStack() as watches:
                if is_on_ray:
                    watches.enter_context(head_watched(observer.note, leave))
                    watches.enter_context(nodes_watched(observer.note))
                yield tracker
            if lost:
                raise TrainingError(lost[0])
        except BaseException as error:
            if lost:
                raise TrainingError(lost[0]) from error
            with uninterrupted():
                tracker.end_open("FAILED" if isinstance(error, Exception) else "KILLED")
                _close(tracker, config, observer)
            raise
        with uninterrupted():
            _close(tracker, config, observer)


def _close(tracker: "Tracker", config: Config, observer: Observer) -> None:
    left = tracker.close(config.tracking.wait_seconds)
    if left:
        observer.kept_back(left, tracker.folder, tracker.store.uri)
