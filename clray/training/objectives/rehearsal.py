"""A dress rehearsal of an objective of the user's on a few random images, so that its faults show before training."""

import inspect
import io
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy

import numpy as np
import torch
from torch import Tensor, nn

from clray.config import Config
from clray.errors import UserError
from clray.model.encoder import ContrastiveModel
from clray.training.objectives.build import objective_class
from clray.training.objectives.port import Objective, StepValue, require_loss

NUM_IMAGES = 8


def rehearse(
    config: Config, model: ContrastiveModel, view_shape: tuple[int, int, int], cluster_ids: np.ndarray
) -> None:
    """Take a step, hear of k-means clusters where there will be some, take another, and save and load the state.

    Works on a copy of the model, and leaves all random generators as they were.

    Args:
        model: that the run starts from.
        view_shape: channels, height and width of a view.
        cluster_ids: that the run starts with, int32 [granularities, N].

    Raises:
        UserError: the objective fails, or returns what cannot be minimised.
    """
    name = f"objective.name={config.objective.name}"
    kind, model = objective_class(config.objective), deepcopy(model).train()
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        torch.manual_seed(0)
        with _own_code(f"{name}: {kind.__name__}(settings, model)"):
            objective = kind(config.objective, model)
        small_shape = _small_shape(config, kind, view_shape, name)
        _step(
            objective, model, view_shape, small_shape, _as_in_training(config, torch.from_numpy(cluster_ids)), name
        )  # fmt: skip
        if config.clusters.source == "kmeans":
            ids = _take_clusters(objective, model, config.clusters.counts, cluster_ids.shape[1], name)
            _step(objective, model, view_shape, small_shape, _as_in_training(config, ids), name)
        _save_and_load(objective, name)
        with _own_code(f"{name}: embedding_model(model)"):
            found = objective.embedding_model(model)
        if not isinstance(found, nn.Module):
            raise UserError(f"{name}: embedding_model must return a module; got {type(found).__name__}")


def _as_in_training(config: Config, ids: Tensor) -> Tensor:
    """The ids, of which every other is one of its own where `clusters.confidence` asks for that."""
    if config.clusters.confidence == 1:
        return ids
    places = torch.arange(ids.shape[1], dtype=ids.dtype)
    return torch.where(places % 2 == 0, ids, ids.max() + 1 + places)


def _small_shape(
    config: Config, kind: type[Objective], view_shape: tuple[int, int, int], name: str
) -> tuple[int, ...] | None:
    """Small views of an image, their channels, height and width; None where there are none."""
    number, size = config.augmentation.small_views, config.augmentation.small_size(view_shape[2])
    if number and "small_views" not in inspect.signature(kind.__call__).parameters:
        raise UserError(
            f"{name}: augmentation.num_small_views={number}, but {kind.__name__}.__call__ takes no small_views; give "
            "it this argument, or set augmentation.num_small_views=0"
        )
    return (number, view_shape[0], size, size) if number else None


def _step(
    objective: Objective,
    model: ContrastiveModel,
    view_shape: tuple[int, int, int],
    small_shape: tuple[int, ...] | None,
    cluster_ids: Tensor,
    name: str,
) -> None:
    """A step on images of which some share a cluster, where there are such."""
    first = cluster_ids[0].sort(stable=True).indices
    indices = first[:NUM_IMAGES] if not objective.draws_pairs else first[: NUM_IMAGES // 2].repeat(2)
    views = torch.rand(objective.num_views, len(indices), *view_shape)
    further = {}
    if small_shape is not None:
        further["small_views"] = torch.rand(small_shape[0], len(indices), *small_shape[1:])
    model.zero_grad()
    with _own_code(f"{name}: a step on {len(indices)} random images"):
        value = objective(model, views, indices, cluster_ids, **further)
    if not isinstance(value, StepValue):
        raise UserError(f"{name}: a step must return StepValue; got {type(value).__name__}")
    require_loss(value, name)
    if tuple(value.embeddings.shape) != (len(indices), model.embedding_dim):
        wanted = [len(indices), model.embedding_dim]
        raise UserError(f"{name}: embeddings must be one for each image, {wanted}; got {list(value.embeddings.shape)}")
    if not torch.isfinite(value.loss):
        raise UserError(
            f"{name}: the loss of {len(indices)} random images is {value.loss.item()}; it must be finite, also where "
            "no two images of a batch share a cluster"
        )
    with _own_code(f"{name}: the gradient of a step"):
        value.loss.backward()
    gradients = [each.grad for each in model.parameters() if each.grad is not None]
    if not all(torch.isfinite(each).all() for each in gradients):
        raise UserError(f"{name}: the loss of {len(indices)} random images has gradients that are NaN or infinite")
    if not gradients:
        raise UserError(f"{name}: the loss does not depend on the weights of the encoder; is it of the embeddings?")


def _take_clusters(
    objective: Objective, model: ContrastiveModel, counts: tuple[int, ...], num_images: int, name: str
) -> Tensor:
    """Tell the objective of random clusters, and return their ids."""
    generator = np.random.default_rng(0)
    centroids = [generator.normal(size=(count, model.embedding_dim)).astype(np.float32) for count in counts]
    phis = [np.ones(count, np.float32) for count in counts] if objective.uses_concentrations else None
    with _own_code(f"{name}: take_clusters"):
        drawn = objective.take_clusters(centroids, phis, renamed=True, seed=0)
    if not isinstance(drawn, list):
        raise UserError(f"{name}: take_clusters must return a list of parameters; got {type(drawn).__name__}")
    ids = [generator.integers(count, size=num_images).astype(np.int32) for count in counts]
    return torch.from_numpy(np.stack(ids))


def _save_and_load(objective: Objective, name: str) -> None:
    """As a checkpoint does, which runs no code when it is read."""
    file = io.BytesIO()
    with _own_code(f"{name}: state_dict"):
        torch.save(objective.state_dict(), file)
    file.seek(0)
    try:
        state = torch.load(file, weights_only=True)
    except Exception as error:
        raise UserError(f"{name}: state_dict must hold tensors and plain values alone, in dicts and lists") from error
    with _own_code(f"{name}: load_state_dict"):
        objective.load_state_dict(state)


@contextmanager
def _own_code(what: str) -> Iterator[None]:
    """Around a call of the user's code: whatever it raises is told with its place."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{what}: {error}") from error
    except Exception as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        raise UserError(f"{what} raised {type(error).__name__}: {error} ({place.filename}:{place.lineno})") from error
