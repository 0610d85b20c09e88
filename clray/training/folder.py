"""The folder of a run or sweep: claimed before anything is started, and never one that holds another run."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from clray.config import Config, dump_yaml, flatten, load_config
from clray.errors import UserError
from clray.folder_lock import folder_locked, holds_nothing, require_unlocked
from clray.redaction import hide_credentials, hide_in_tree
from clray.training.run_name import as_run_name, check_run_name

CONFIG_FILE = "config.yaml"


def claim_folder(config: Config, config_name: str, name: str | None, resume: bool) -> Path:
    """`<output>/<name>`, by default named after the config file and the time; checked, not created.

    With `resume` a run whose folder is lost is fetched from `train.storage_path`.

    Raises:
        UserError: a name that `check_run_name` refuses; a folder or storage that holds another run, or with `resume`
            one that holds none or one of another config.
    """
    if name is not None:
        check_run_name(name)
    elif resume:
        raise UserError("--resume: name the run to resume, for example --name quickstart-20260101-120000")
    output = Path(config.output)
    if output.exists() and not output.is_dir():
        raise UserError(f"output: {output} is a file; choose a folder with --output")
    folder = output.resolve() / (name or f"{as_run_name(config_name)}-{time.strftime('%Y%m%d-%H%M%S')}")
    require_unlocked(folder)
    storage = None
    if config.train.storage_path is not None:
        from clray.training.storage import Storage

        Storage(config.train.storage_path, "").check()
        storage = Storage(config.train.storage_path, folder.name)
    if resume:
        if storage is not None and not (folder / CONFIG_FILE).exists():
            storage.download(folder, checkpoints=False)
        if not (folder / CONFIG_FILE).exists():
            raise UserError(f"--resume: {folder} holds no run to go on with")
        _require_same_config(config, folder / CONFIG_FILE)
    elif not holds_nothing(folder):
        raise _taken(folder)
    elif storage is not None and not storage.is_empty():
        raise UserError(
            f"train.storage_path: {hide_credentials(storage.uri)} holds another run {folder.name}; go on with it with "
            "--resume, or choose another --name"
        )
    return folder


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
    return UserError(f"{folder} holds another run; go on with it with --resume, or choose another --name")


def write_config(config: Config, folder: Path) -> None:
    """Create the folder and keep the resolved config in it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / CONFIG_FILE).write_text(dump_yaml(config), encoding="utf-8")


def _require_same_config(config: Config, saved_path: Path) -> None:
    saved, given = _comparable(load_config(saved_path)), hide_in_tree(_comparable(config))
    changed = [key for key in given if given[key] != saved.get(key)]
    if changed:
        key = changed[0]
        raise UserError(
            f"--resume: the config differs from {saved_path} in {', '.join(changed)} ({key} is {given[key]!r}, was "
            f"{saved.get(key)!r}); resume with the same config, or start a new run"
        )


def _comparable(config: Config) -> dict[str, Any]:
    """All keys but where the results go, which may have moved."""
    flat = flatten(config.model_dump(mode="json"))
    return {key: value for key, value in flat.items() if key != "output" and not key.startswith("tracking.")}
