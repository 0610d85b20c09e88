"""The folder of a run or sweep: claimed before anything is started, and never one that holds another run."""

import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from clray.config import Config, dump_yaml, flatten, load_config, override
from clray.config.plain import shown
from clray.config.sections.sweep import AUTO
from clray.errors import UserError
from clray.folder_lock import folder_locked, holds_nothing, require_unlocked
from clray.redaction import hide_credentials, hide_in_tree
from clray.training.metrics import METRICS_FILE
from clray.training.run_name import as_run_name, check_run_name

CONFIG_FILE = "config.yaml"


def claim_folder(config: Config, config_name: str, name: str | None, resume: bool) -> Path:
    """`<output>/<name>`, by default named after the config file and the time; checked, not created.

    Looks only at what is here; see `claim_storage` for what `train.storage_path` holds.

    Raises:
        UserError: a name that `check_run_name` refuses; a folder that holds another run, or with `resume` one that
            holds none or one of another config.
    """
    if name is not None:
        if not isinstance(name, str):
            raise UserError(f"name: expected text; got {shown(name)}")
        check_run_name(name)
    elif resume:
        raise UserError("resume: give the `name` of the run to resume, for example quickstart-20260101-120000")
    output = Path(config.output)
    if output.exists() and not output.is_dir():
        raise UserError(f"output: {output} is a file; choose a folder with `output`")
    folder = output.resolve() / (name or f"{as_run_name(config_name)}-{time.strftime('%Y%m%d-%H%M%S')}")
    require_unlocked(folder)
    if not resume and not holds_nothing(folder):
        raise _taken(folder)
    if resume and (folder / CONFIG_FILE).exists():
        _require_same_config(config, _kept_config(folder), str(folder / CONFIG_FILE))
    elif resume and config.train.storage_path is None:
        raise _holds_no_run(folder)
    return folder


def claim_storage(config: Config, folder: Path, resume: bool) -> None:
    """Check that the run may write to `train.storage_path`; with `resume` fetch a run whose folder is lost.

    Writes, so it comes after what else can be refused.

    Raises:
        UserError: a storage that cannot be written or holds another run of the name, or with `resume` none or one of
            another config.
    """
    if config.train.storage_path is None:
        return
    from clray.training.storage import Storage

    Storage(config.train.storage_path, "").check()
    storage = Storage(config.train.storage_path, folder.name)
    if not resume and not storage.is_empty():
        raise UserError(
            f"train.storage_path: {hide_credentials(storage.uri)} holds another run {folder.name}; resume it with "
            "`resume`, or choose another `name`"
        )
    if resume and not (folder / CONFIG_FILE).exists():
        with tempfile.TemporaryDirectory() as looked_at:
            if not storage.fetch(CONFIG_FILE, Path(looked_at)):
                raise _holds_no_run(folder)
            storage.fetch(METRICS_FILE, Path(looked_at))
            saved = _kept_config(Path(looked_at))
        _require_same_config(config, saved, f"{hide_credentials(storage.uri)}/{folder.name}/{CONFIG_FILE}")
        storage.download(folder, checkpoints=False)


@contextmanager
def folder_held(folder: Path, *, resume: bool) -> Iterator[None]:
    """Hold a folder that `claim_folder` gave while the block runs; see `folder_locked`.

    Raises:
        UserError: another command holds it, or took it since it was claimed.
    """
    with folder_locked(folder):
        if not resume and not holds_nothing(folder):
            raise _taken(folder)
        yield


def _taken(folder: Path) -> UserError:
    return UserError(f"{folder} holds another run; resume it with `resume`, or choose another `name`")


def _holds_no_run(folder: Path) -> UserError:
    return UserError(f"resume: {folder} holds no run to resume")


def write_config(config: Config, folder: Path) -> None:
    """Create the folder and keep the resolved config in it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / CONFIG_FILE).write_text(dump_yaml(config), encoding="utf-8")


def _kept_config(folder: Path) -> Config:
    config = load_config(folder / CONFIG_FILE)
    # With epochs it is a run's; those of earlier versions kept a search space.
    return override(config, {"search_space": []}) if (folder / METRICS_FILE).exists() else config


def _require_same_config(config: Config, kept: Config, where: str) -> None:
    if bool(kept.search_space) != bool(config.search_space):
        holds, command, other = ("sweep", "sweep", "run") if kept.search_space else ("run", "train", "sweep")
        raise UserError(
            f"resume: {where} is of a {holds}; resume it with `clray {command}`, or give the `name` of a {other}"
        )
    saved, given = _comparable(kept), hide_in_tree(_comparable(config))
    if AUTO in (saved.get("sweep.metric"), given["sweep.metric"]):  # which means what the data allow
        del given["sweep.metric"]
    changed = [key for key in given if given[key] != saved.get(key)]
    if changed:
        key = changed[0]
        raise UserError(
            f"resume: the config differs from {where} in {', '.join(changed)} ({key} is {given[key]!r}, was "
            f"{saved.get(key)!r}); resume with the same config, or start a new run"
        )


def _comparable(config: Config) -> dict[str, Any]:
    """All keys but where the results go, which may have moved, the workers, among whom a run is dealt anew, and how
    long one waits for others."""
    flat = flatten(config.model_dump(mode="json"))
    left_out = ("output", "train.num_workers", "train.min_workers", "train.timeout_seconds", "kmeans.timeout_seconds")
    return {key: value for key, value in flat.items() if key not in left_out and not key.startswith("tracking.")}
