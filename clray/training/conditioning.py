"""The values of `clusters.source: values`: numbers of each training image, of columns or a file, on one scale.

Computes no weights of its own; those of a batch are `clray.objective.kernel`'s.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float

from clray.clusters.assignment import ClusterAssignment
from clray.clusters.known import instance_clusters
from clray.config import Config
from clray.config.sections import ClustersConfig
from clray.data.attributes import ABSENT, PRESENT
from clray.data.samples import Dataset
from clray.data.vector_files import open_npy, open_parquet, to_float32
from clray.errors import UserError
from clray.objective.kernel import conditional_weights, effective_positives
from clray.training.objectives.kernel_contrast import KernelContrast, kernel_of

NUMBERS = {ABSENT: "0", PRESENT: "1", "False": "0", "True": "1"}
MOST_COMPARED = 1000
"""Images whose distances give the scale."""
BLOCK_ROWS = 65_536


def value_assignment(config: ClustersConfig, data: Dataset) -> ClusterAssignment:
    """Every training image its own cluster, with its values.

    Raises:
        UserError: a column that is not there or holds no numbers; a file that holds another number of vectors; missing,
            infinite or constant values.
    """
    if config.value_columns:
        values = np.stack([_of_column(name, data) for name in config.value_columns], axis=1)
    else:
        values = _of_file(config, len(data.train))
    return replace(instance_clusters(len(data.train)), source="values", values=_scaled(values, config))


def value_notes(config: Config, data: Dataset, assignments: Sequence[ClusterAssignment]) -> tuple[str, ...]:
    """What the weights of a batch are like, of images drawn at random; nothing where there are no values."""
    values = assignments[0].values
    if values is None:
        return ()
    size = min(config.train.global_batch_size, len(values))
    drawn = np.random.default_rng(0).choice(len(values), size, replace=False)
    weights = conditional_weights(torch.from_numpy(values[drawn]), slice(0, size), kernel_of(config.objective))
    num_positives = effective_positives(weights, weights.diagonal(), KernelContrast.num_views).mean().item()
    note = f"ccl-k: in a batch of {size} an anchor has about {num_positives:.3g} positives"
    labels = data.train.labels[drawn]
    others = weights.numpy() * ((labels[:, None] >= 0) & (labels >= 0))
    np.fill_diagonal(others, 0)
    if others.sum() == 0:
        return (note,)
    is_same = labels[:, None] == labels
    known = labels[labels >= 0]
    pairs = len(known) * (len(known) - 1)
    chance = (np.square(np.unique(known, return_counts=True)[1]).sum() - len(known)) / pairs
    right = (others * is_same).sum() / others.sum()
    return (f"{note}; of the weight of other images {right:.0%} is of the anchor's label, by chance {chance:.0%}",)


def _of_column(name: str, data: Dataset) -> Float[np.ndarray, " n"]:
    """The numbers of a column, mean 0 and variance 1."""
    where = f"clusters.value_columns: {name}"
    if name not in data.train.columns:
        raise UserError(f"{where} is no column; the data have: {', '.join(data.train.columns) or 'none'}")
    if name in data.train.numbers:
        numbers = data.train.numbers[name]
    else:
        texts = data.names[name]
        try:
            numbers = np.array([float(NUMBERS.get(each, each)) for each in texts])[data.train.columns[name]]
        except ValueError:
            text = next(each for each in texts if not _is_number(each))
            raise UserError(
                f"{where} must hold numbers, and has the value {text!r}; leave it out, or give numbers in its place"
            ) from None
    _require_finite(numbers, where, "fill them in, or leave the column out")
    if numbers.min() == numbers.max():  # the deviation may be above 0 by rounding
        raise UserError(f"{where} is {numbers[0]:g} for every training image and tells none apart; leave it out")
    centred: np.ndarray = (numbers - numbers.mean()) / numbers.std()
    return centred


def _is_number(text: str) -> bool:
    try:
        float(NUMBERS.get(text, text))
    except ValueError:
        return False
    return True


def _of_file(config: ClustersConfig, num_images: int) -> Float[np.ndarray, "n dim"]:
    assert config.path is not None, "ClustersConfig requires columns or a path"
    path = Path(config.path)
    file = open_npy(path) if path.suffix == ".npy" else open_parquet(path, config.column)
    if file.num_rows != num_images:
        raise UserError(
            f"clusters.path: {path} holds {file.num_rows} vectors, there are {num_images} training images; give one "
            "vector for each, in their order"
        )
    values = np.concatenate([to_float32(block) for block in file.blocks(0, file.num_rows, BLOCK_ROWS)])
    _require_finite(values, f"clusters.path: {path}", "leave out the images, or embed them again")
    return values


def _require_finite(values: np.ndarray, where: str, way_out: str) -> None:
    bad = np.flatnonzero(~np.isfinite(values).reshape(len(values), -1).all(axis=1))
    if len(bad):
        raise UserError(
            f"{where}: {len(bad)} of {len(values)} training images have a value that is missing or infinite, the first "
            f"is number {bad[0]}; {way_out}"
        )


def _scaled(values: np.ndarray, config: ClustersConfig) -> Float[np.ndarray, "n dim"]:
    """Over the median distance of two images, or the mean one where most images are alike; float32."""
    rows = np.unique(np.linspace(0, len(values) - 1, MOST_COMPARED).astype(np.int64))
    some = torch.from_numpy(values[rows].astype(np.float64))
    distances = torch.pdist(some).numpy()
    scale = float(np.median(distances)) or float(distances.mean())
    if not scale > 0:
        what = "clusters.value_columns" if config.value_columns else f"clusters.path: {config.path}"
        raise UserError(f"{what}: the training images all have the same values, which tell none apart")
    return (values / scale).astype(np.float32)
