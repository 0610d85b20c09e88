"""The port of an objective: what it is given of a batch, and what it gives back."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from clray.config.sections import ObjectiveConfig
from clray.errors import UserError
from clray.model.encoder import ContrastiveModel, Outputs
from clray.objective.contrastive import ObjectiveValue, mean_value


@dataclass(frozen=True)
class EmbeddedBatch:
    """One worker's batch, as the model embeds it.

    Attributes:
        z: unit-length embeddings of each view, float32 [views, batch, dim].
        h: representations, float32 [views, batch, h_dim].
        second: of the second head, where there is one: unit-length embeddings, logits of a classifier, or similarities
            to prototypes.
        indices: dataset indices of the images, int64 [batch].
        cluster_ids: clusters of the images, int32 [granularities, batch]; until the first k-means each its own. With
            `clusters.confidence` below 1 an image that does not count has an id that no other has, K or more.
    """

    z: Float[Tensor, "views batch dim"]
    h: Float[Tensor, "views batch h_dim"]
    second: Float[Tensor, "views batch second_dim"] | None
    indices: Int[Tensor, " batch"]
    cluster_ids: Int[Tensor, "granularities batch"]


@dataclass(frozen=True)
class StepValue:
    """What an objective makes of a batch.

    Attributes:
        loss: of this worker, a float32 scalar.
        num_positives: per anchor, the mean over the global batch.
        embeddings: of the model that is clustered, one per image, detached, float32 [batch, dim].
    """

    loss: Tensor
    num_positives: Tensor
    embeddings: Tensor


class Objective:
    """The loss of one step. A subclass defines `loss`; one that embeds in a way of its own overrides `__call__`.

    Small views, where `augmentation` asks for them, are anchors alone: `small_views_loss` draws them to the others.

    Example:
        >>> class Attract(clray.Objective):
        ...     def loss(self, batch):
        ...         return -(batch.z[0] * batch.z[1]).sum(dim=1).mean() / self.temperature
        >>> clray.train(config, {"objective.name": Attract})

    Attributes:
        num_views: views of each image of a batch.
        draws_pairs: whether a batch holds pairs of images of one cluster, the second halves behind the first.
        uses_concentrations: whether `take_clusters` is given PCL's concentration of each cluster.
        settings: the config's section `objective`.
        temperature: `objective.temperature`.
    """

    num_views = 2
    draws_pairs = False
    uses_concentrations = False

    def __init__(self, settings: ObjectiveConfig, model: ContrastiveModel) -> None:
        """Args: `model` as it stands before the first step, on its device and not yet wrapped for several workers."""
        self.settings, self.temperature = settings, settings.temperature

    def loss(self, batch: EmbeddedBatch) -> Tensor | ObjectiveValue:
        """The loss of this worker's batch: a scalar that depends on the embeddings, alone or with the positives.

        The gradients of several workers are averaged; `clray.objective.gather.all_gather` fetches the other workers'
        embeddings, with gradients.
        """
        raise NotImplementedError(f"{type(self).__name__} defines no loss(batch)")

    def small_views_loss(self, small: EmbeddedBatch, batch: EmbeddedBatch) -> Tensor | ObjectiveValue:
        """The loss of the small views of a batch, the mean over them.

        As it stands, `loss` is asked once for each small view, which takes the place of one of the views. The others
        pass on no gradient, so that what it says trains the small view alone. Its gradient counts once for each view
        that a loss is the mean over, so that a small view weighs as much as a view.

        Args:
            small: as `batch`, with the small views of the same images.
        """
        views = len(batch.z)
        values = [self.loss(_with_view(batch, number % views, small, number)) for number in range(len(small.z))]
        found = [each if isinstance(each, ObjectiveValue) else _without_positives(each) for each in values]
        return mean_value(found)

    def __call__(
        self,
        model: nn.Module,
        views: Tensor,
        indices: Tensor,
        cluster_ids: Tensor,
        small_views: Tensor | None = None,
    ) -> StepValue:
        """Embed all views in one pass, and take their loss: the mean over views, of which each is an anchor.

        Args:
            model: returns `Outputs`; may be wrapped for several workers.
            views: float [num_views, batch, channels, height, width].
            indices: dataset indices of the batch, int64 [batch].
            cluster_ids: clusters of all samples, int32 [granularities, N].
            small_views: float [num_small_views, batch, channels, height, width], where there are any.
        """
        kinds = [views] if small_views is None else [views, small_views]
        outputs: Outputs = model(*(each.flatten(0, 1) for each in kinds))
        batches = _batches(outputs, kinds, indices, cluster_ids[:, indices])
        value = self._checked(self.loss(batches[0]))
        if small_views is not None:
            of_small = self._checked(self.small_views_loss(batches[1], batches[0]))
            value = _mean_over_views(value, len(views), of_small, len(small_views))
        z = batches[0].z.detach()
        return StepValue(value.loss, value.num_positives, z[0] if len(z) == 1 else F.normalize(z.mean(dim=0), dim=1))

    def _checked(self, value: Tensor | ObjectiveValue) -> ObjectiveValue:
        require_loss(value, type(self).__name__)
        return value if isinstance(value, ObjectiveValue) else _without_positives(value)

    def embedding_model(self, model: ContrastiveModel) -> ContrastiveModel:
        """The model whose embeddings are clustered."""
        return model

    def take_clusters(
        self,
        centroids: list[np.ndarray],
        phis: list[np.ndarray] | None,
        *,
        renamed: bool,
        seed: int,
    ) -> list[nn.Parameter]:
        """Hear of new k-means clusters. Every worker is told the same.

        Args:
            centroids: of each granularity, float32 [K, dim].
            phis: the concentrations of each granularity, float32 [K], where the objective `uses_concentrations`.
            renamed: whether the ids have nothing to do with those before.
            seed: for what is drawn at random.

        Returns:
            The parameters that were drawn anew, whose gradients and moments mean nothing any more.
        """
        return []

    def take_values(self, values: Float[Tensor, "samples dim"]) -> None:
        """Hear of the values of all training images, before the first step, where `clusters.source` is `values`."""

    def state_dict(self) -> dict[str, Any]:
        """What the objective carries from step to step, as tensors and plain values; a checkpoint holds it."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what `state_dict` gave."""


def _without_positives(loss: Tensor) -> ObjectiveValue:
    return ObjectiveValue(loss, loss.new_zeros(()))


def _mean_over_views(large: ObjectiveValue, num_large: int, small: ObjectiveValue, num_small: int) -> ObjectiveValue:
    share = num_small / (num_large + num_small)
    return ObjectiveValue(
        (1 - share) * large.loss + share * small.loss,
        (1 - share) * large.num_positives + share * small.num_positives,
    )


def _batches(outputs: Outputs, kinds: list[Tensor], indices: Tensor, cluster_ids: Tensor) -> list[EmbeddedBatch]:
    """What the model made of each kind of views, which went through it one behind the other."""
    sizes = [len(views) * len(indices) for views in kinds]
    hs, zs = (each.split(sizes) for each in (outputs.h, outputs.z))
    seconds = [None] * len(sizes) if outputs.second is None else outputs.second.split(sizes)
    found = []
    for views, h, z, second in zip(kinds, hs, zs, seconds, strict=True):
        shape = views.shape[:2]
        of_second = None if second is None else second.unflatten(0, shape)
        found.append(EmbeddedBatch(z.unflatten(0, shape), h.unflatten(0, shape), of_second, indices, cluster_ids))
    return found


def _with_view(batch: EmbeddedBatch, place: int, small: EmbeddedBatch, number: int) -> EmbeddedBatch:
    """The batch with a small view in the place of one of its views, and no gradient to the others.

    Of a loss that is the mean over views as anchors, one view has a share; its gradient is multiplied by their number,
    as all views together have theirs in the loss of the batch.
    """

    def changed(of_batch: Tensor, of_small: Tensor) -> Tensor:
        views, own = list(of_batch.detach().unbind()), of_small[number]
        views[place] = own.detach() + len(views) * (own - own.detach())
        return torch.stack(views)

    z, h = changed(batch.z, small.z), changed(batch.h, small.h)
    if batch.second is None or small.second is None:
        return replace(batch, z=z, h=h)
    return replace(batch, z=z, h=h, second=changed(batch.second, small.second))


def require_loss(value: Any, name: str) -> None:
    """Raise UserError unless this is the value of a loss that can be minimised; waits for no GPU."""
    loss = value.loss if isinstance(value, ObjectiveValue | StepValue) else value
    wanted = "a scalar float tensor that depends on the embeddings"
    if not isinstance(loss, Tensor):
        raise UserError(f"{name}: the loss must be {wanted}; got {type(loss).__name__}")
    if loss.shape != () or not loss.is_floating_point():
        kind = f"{loss.dtype} {list(loss.shape)}".removeprefix("torch.")
        raise UserError(f"{name}: the loss must be {wanted}; got {kind}, reduce it with .mean()")
    if torch.is_grad_enabled() and not loss.requires_grad:
        raise UserError(f"{name}: the loss must be {wanted}; this one has no gradient, was it detached?")
