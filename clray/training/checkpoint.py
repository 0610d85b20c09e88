"""Checkpoint files: written so that a kill or a full disk never costs the one before, read without running code.

What they hold is checked here, once, when they are read.
"""

import logging
import os
import shutil
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NotRequired, TypedDict

import torch
from torch import Tensor

from clray.errors import UserError

CHECKPOINT_FILE = "checkpoint.pt"
BEST_FILE = "best.pt"
ADDED_LATER: dict[str, Any] = {"confident": None}
"""Keys that older files do not have, and what stands for them."""
GROUP_FOLDER = "workers"
"""Where a worker group keeps its checkpoints, in the folder of the run."""
log = logging.getLogger(__name__)


class Checkpoint(TypedDict):
    """A run between two steps: everything that is needed to resume it, or to use its model.

    Attributes:
        config: the resolved config, as a tree.
        num_channels: of the images.
        epoch, step_in_epoch: epochs that are done, and steps of the one under way.
        clustered_step: the step whose embeddings gave the clusters; None before the first clustering.
        order_ids: clusters by which the epoch's order was drawn, int32 [N]; None where it does not follow any.
        model, optimizer, schedule, objective: what their `state_dict` gives.
        cluster_ids: int32 [granularities, N]; int64 in older files.
        num_clusters: of each granularity.
        cluster_source: where the clusters come from.
        confident: the members that count, bool [granularities, N]; None where all do, and not in older files.
        centroids: of each granularity, float32 [K, dim]; None where the clusters have none.
        meter: what has been measured since the epoch began; see `EpochMeter`.
        bank: `vectors` float16 [N, dim] and `seen` bool [N]; None where the run keeps none.
        scaler: of the gradients of float16; see `torch.amp.GradScaler`.
        recluster_metrics: of the last clustering, as far as no epoch has reported them.
        first: the first clusterings of runs that start here, until they are kept in a file of their own.
    """

    config: dict[str, Any]
    num_channels: int
    epoch: int
    step_in_epoch: int
    clustered_step: int | None
    order_ids: Tensor | None
    model: dict[str, Tensor]
    optimizer: dict[str, Any]
    schedule: dict[str, Any]
    objective: dict[str, Any]
    cluster_ids: Tensor
    num_clusters: list[int]
    cluster_source: str
    confident: Tensor | None
    centroids: list[Tensor] | None
    meter: dict[str, Any]
    bank: dict[str, Tensor] | None
    recluster_metrics: dict[str, float]
    first: NotRequired[dict[str, Any]]
    scaler: NotRequired[dict[str, Any]]


def write_checkpoint(folder: Path, checkpoint: Checkpoint, *, num_kept: int = 1) -> Path:
    """Write `checkpoint.pt`, and keep those before it as `checkpoint.1.pt`, ...; a reader finds no half of one.

    Raises:
        UserError: it cannot be written, as on a full disk; those before it stay as they were.
    """
    path = folder / CHECKPOINT_FILE
    partial = path.with_suffix(".partial")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as file:
            torch.save(checkpoint, file)
            file.flush()
            os.fsync(file.fileno())
        for age in range(num_kept - 1, 0, -1):
            older, newer = _aged(path, age), _aged(path, age - 1)
            if newer.exists():
                # The newest keeps its name all the while, as a second name of the same file.
                link_or_copy(newer, older)
        partial.replace(path)
    except (OSError, RuntimeError) as error:
        # torch reports a failed write as a RuntimeError of its zip writer.
        partial.unlink(missing_ok=True)
        raise UserError(
            f"{path}: the checkpoint cannot be written ({_first_line(error)}{_free_space(folder)}); the previous "
            "one is intact: free some space and resume"
        ) from error
    return path


def keep_best(folder: Path, checkpoint: Path) -> None:
    """Keep a checkpoint file as the run's `best.pt`; a reader finds the old one or the new one, whole."""
    link_or_copy(checkpoint, folder / BEST_FILE)


def newest_checkpoint(folder: Path, load: Callable[[Checkpoint], None] | None = None) -> Checkpoint | None:
    """The newest checkpoint in a run's folder that is whole and loads, or None where there is none at all.

    One that is damaged is left out, with a warning, for the one before it.

    Args:
        load: takes the checkpoint over, and fails where it does not fit; what it has taken over by then, the next
            one replaces.

    Raises:
        UserError: there are checkpoints, but none can be used.
    """
    ages = range(1 + len(list(folder.glob("checkpoint.*.pt"))))
    paths = [path for age in ages if (path := _aged(folder / CHECKPOINT_FILE, age)).exists()]
    return first_that_loads(paths, load)


def first_that_loads(paths: Iterable[Path], load: Callable[[Checkpoint], None] | None = None) -> Checkpoint | None:
    """The first of these files that is whole and loads; see `newest_checkpoint`."""
    refused: list[str] = []
    for path in paths:
        try:
            checkpoint = _read(path)
            if load is not None:
                _load(checkpoint, path, load)
        except UserError as error:
            refused.append(str(error))
            continue
        for reason in refused:
            log.warning("%s; resuming from %s", reason, path)
        return checkpoint
    if refused:
        raise UserError("\n".join([*refused, "no checkpoint of the run can be used; start a new run"]))
    return None


def _load(checkpoint: Checkpoint, path: Path, load: Callable[[Checkpoint], None]) -> None:
    try:
        load(checkpoint)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    except (RuntimeError, ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise UserError(f"{path}: does not fit the run: {type(error).__name__}: {_first_line(error)}") from error


def read_checkpoint(path: Path) -> Checkpoint:
    """Load a checkpoint file, or the newest in a run's folder, without running code from it.

    Raises:
        UserError: no checkpoint, or one that is cut short, damaged or not clray's.
    """
    if path.is_dir():
        # A worker group's checkpoints lie in folders that Ray Train names by time.
        of_group = sorted(path.glob(f"{GROUP_FOLDER}/*/{CHECKPOINT_FILE}"))
        path = of_group[-1] if of_group else path / CHECKPOINT_FILE
    if not path.is_file():
        raise UserError(f"{path}: no such checkpoint; give a checkpoint.pt or the folder of a run")
    try:
        return _read(path)
    except UserError as error:
        raise UserError(f"{error}; use another one, such as a checkpoint.1.pt or best.pt beside it") from error


def _read(path: Path) -> Checkpoint:
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from error
    except Exception as error:  # damaged bytes make the reader raise nearly anything
        reason = (
            "it holds more than tensors and plain values, or is damaged"
            if zipfile.is_zipfile(path)
            else "it is cut short, or another kind of file"
        )
        raise UserError(f"{path}: not a complete checkpoint of clray: {reason}") from error
    if not isinstance(checkpoint, dict) or "cluster_ids" not in checkpoint:
        raise UserError(f"{path}: not a clray checkpoint")
    checkpoint = ADDED_LATER | checkpoint
    wrong = _first_wrong(checkpoint)
    if wrong is not None:
        raise UserError(f"{path}: a damaged checkpoint: {wrong}")
    return checkpoint  # type: ignore[return-value]  # checked key by key


def _first_wrong(tree: dict[str, Any]) -> str | None:
    """The first key of a checkpoint that does not hold what `Checkpoint` says."""
    for key, is_right in CHECKS.items():
        if key not in tree:
            return f"'{key}' is missing"
        if not is_right(tree[key]):
            return f"'{key}' holds {_described(tree[key])}"
    ids, counts, centroids = tree["cluster_ids"], tree["num_clusters"], tree["centroids"]
    if len(ids) != len(counts) or any(int(row.max()) >= count for row, count in zip(ids, counts, strict=True)):
        return "'cluster_ids' and 'num_clusters' do not agree"
    if centroids is not None and len(centroids) != len(counts):
        return "'centroids' and 'num_clusters' do not agree"
    confident = tree["confident"]
    if confident is not None and confident.shape != ids.shape:
        return "'confident' and 'cluster_ids' are of different data"
    for key, value in (("order_ids", tree["order_ids"]), ("bank", tree["bank"] and tree["bank"]["seen"])):
        if value is not None and len(value) != ids.shape[1]:
            return f"'{key}' and 'cluster_ids' are of different data"
    return None


def _is_count(value: Any, least: int = 0) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _is_tree(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(key, str) for key in value)


def _is_tensor(value: Any, num_dims: int, *, is_float: bool) -> bool:
    """Whether it is a dense tensor of so many dimensions, none of which is empty."""
    return (
        isinstance(value, Tensor)
        and value.layout == torch.strided
        and value.ndim == num_dims
        and value.numel() > 0
        and value.dtype.is_floating_point == is_float
        and value.dtype != torch.bool
    )


def _is_weight(value: Any) -> bool:
    return isinstance(value, Tensor) and value.layout == torch.strided and not value.is_complex()


def _is_ids(value: Any, num_dims: int) -> bool:
    return _is_tensor(value, num_dims, is_float=False) and not value.dtype.is_complex and int(value.min()) >= 0


def _is_bank(value: Any) -> bool:
    return (
        _is_tree(value)
        and set(value) == {"vectors", "seen"}
        and _is_tensor(value["vectors"], 2, is_float=True)
        and isinstance(value["seen"], Tensor)
        and value["seen"].dtype == torch.bool
        and value["seen"].shape == value["vectors"].shape[:1]
    )


def _is_meter(value: Any) -> bool:
    if not _is_tree(value) or set(value) != {"losses", "positives", "num_samples", "seconds", "data_wait_seconds"}:
        return False
    lists = [value["losses"], value["positives"]]
    return (
        all(isinstance(each, Tensor) and each.ndim == 1 and each.dtype.is_floating_point for each in lists)
        and len(lists[0]) == len(lists[1])
        and _is_count(value["num_samples"])
        and all(isinstance(value[name], float | int) for name in ("seconds", "data_wait_seconds"))
    )


CHECKS: dict[str, Callable[[Any], bool]] = {
    "config": _is_tree,
    "num_channels": lambda value: _is_count(value, 1) and value < 2**16,
    "epoch": _is_count,
    "step_in_epoch": _is_count,
    "clustered_step": lambda value: value is None or _is_count(value),
    "order_ids": lambda value: value is None or _is_ids(value, 1),
    "model": lambda value: _is_tree(value) and all(_is_weight(each) for each in value.values()),
    "optimizer": lambda value: _is_tree(value) and {"state", "param_groups"} <= set(value),
    "schedule": lambda value: _is_tree(value) and "last_epoch" in value,
    "objective": _is_tree,
    "cluster_ids": lambda value: _is_ids(value, 2),
    "num_clusters": lambda value: isinstance(value, list) and all(_is_count(each, 1) for each in value),
    "cluster_source": lambda value: isinstance(value, str),
    "confident": lambda value: value is None or (isinstance(value, Tensor) and value.dtype == torch.bool),
    "centroids": lambda value: (
        value is None or (isinstance(value, list) and all(_is_tensor(each, 2, is_float=True) for each in value))
    ),
    "meter": _is_meter,
    "bank": lambda value: value is None or _is_bank(value),
    "recluster_metrics": lambda value: _is_tree(value) and all(isinstance(v, float | int) for v in value.values()),
}


def _described(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"a tensor of {value.dtype} {list(value.shape)}"
    text = repr(value)
    return f"{type(value).__name__} {text[:60]}{'...' if len(text) > 60 else ''}"


def link_or_copy(source: Path, target: Path) -> None:
    """Give a file a second name, which replaces what is there; a copy where the file system has no links."""
    partial = target.with_name(target.name + ".partial")
    partial.unlink(missing_ok=True)
    try:
        os.link(source, partial)
    except OSError:
        shutil.copyfile(source, partial)
    partial.replace(target)


def _aged(path: Path, age: int) -> Path:
    return path if age == 0 else path.with_suffix(f".{age}.pt")


def _free_space(folder: Path) -> str:
    try:
        return f"; {shutil.disk_usage(folder).free / 2**20:.0f} MiB are free there"
    except OSError:
        return ""


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
