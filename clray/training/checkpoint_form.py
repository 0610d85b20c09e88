"""What a checkpoint holds, and whether what was read from a file is that; reads and writes nothing."""

from collections.abc import Callable
from typing import Any, NamedTuple, NotRequired, TypedDict, cast

import torch
from torch import Tensor

from clray.errors import UserError

ADDED_LATER: dict[str, Any] = {"confident": None, "steps_per_epoch": None}
"""Keys that older files do not have, and what stands for them."""


class Checkpoint(TypedDict):
    """A run between two steps: everything that is needed to resume it, or to use its model.

    Attributes:
        config: the resolved config, as a tree.
        num_channels: of the images.
        epoch, step_in_epoch: epochs that are done, and steps of the one under way.
        steps_per_epoch: not in older files.
        clustered_step: the step whose embeddings gave the clusters; None before the first clustering.
        order_ids: clusters by which the epoch's order was drawn, int32 [N]; None where it does not follow any.
        model, optimizer, schedule, objective: what their `state_dict` gives.
        cluster_ids: int32 [granularities, N]; int64 in older files.
        num_clusters: of each granularity.
        cluster_source: where the clusters come from.
        confident: the members that count, bool [granularities, N]; None where all do, and not in older files.
        centroids: of each granularity, float32 [K, dim]; None where the clusters have none.
        meter: what has been measured since the epoch began; see `EpochMeter`.
        bank: `vectors` float16 [N, dim] and `seen` bool [N], or those of one worker's samples; None where the run keeps
            none.
        num_parts: files in which each worker of a group keeps its own, while they have not been read.
        scaler: of the gradients of float16; see `torch.amp.GradScaler`.
        recluster_metrics: of the last clustering, as far as no epoch has reported them.
        first: the first clusterings of runs that start here, until they are kept in a file of their own.
    """

    config: dict[str, Any]
    num_channels: int
    epoch: int
    step_in_epoch: int
    steps_per_epoch: int | None
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
    num_parts: NotRequired[int]
    scaler: NotRequired[dict[str, Any]]


class Part(TypedDict):
    """What one worker alone knows of a run.

    Attributes:
        rows: dataset indices of its samples, ascending, int64 [n].
        meter: as in `Checkpoint`, of this worker.
        bank: `vectors` float16 [n, dim] and `seen` bool [n] of its samples; None where the run keeps none.
    """

    rows: Tensor
    meter: dict[str, Any]
    bank: dict[str, Tensor] | None


class Snapshot(NamedTuple):
    """A run between two steps, as one of its workers knows it.

    Attributes:
        shared: what all workers hold alike, on rank 0; None on the others.
        part: what this worker holds alone.
    """

    shared: dict[str, Any] | None
    part: Part

    def whole(self) -> Checkpoint:
        """The checkpoint of a run of one worker."""
        assert self.shared is not None, "asked of the first worker"
        return cast(Checkpoint, {**self.shared, "meter": self.part["meter"], "bank": self.part["bank"]})


def checked(tree: Any, where: str) -> Checkpoint:
    """A tree read from a file as the checkpoint that it is.

    Raises:
        UserError: it is none, or a damaged one.
    """
    if not isinstance(tree, dict) or "cluster_ids" not in tree:
        raise UserError(f"{where}: not a clray checkpoint")
    tree = ADDED_LATER | tree
    wrong = _first_wrong(tree)
    if wrong is not None:
        raise UserError(f"{where}: a damaged checkpoint: {wrong}")
    return cast(Checkpoint, tree)


def checked_part(tree: Any, where: str) -> Part:
    """A tree read from a file as the part of one worker; raises UserError as `checked`."""
    is_part = (
        _is_tree(tree)
        and set(tree) == Part.__required_keys__
        and _is_rows(tree["rows"])
        and _is_meter(tree["meter"])
        and (tree["bank"] is None or (_is_bank(tree["bank"]) and len(tree["bank"]["seen"]) == len(tree["rows"])))
    )
    if not is_part:
        raise UserError(f"{where}: a damaged part of a checkpoint")
    return cast(Part, tree)


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
    if "num_parts" in tree and not _is_count(tree["num_parts"], 1):
        return f"'num_parts' holds {_described(tree['num_parts'])}"
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


def _is_rows(value: Any) -> bool:
    """Whether it is dataset indices, ascending."""
    return _is_ids(value, 1) and bool((value.diff() > 0).all())


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
    "steps_per_epoch": lambda value: value is None or _is_count(value, 1),
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
