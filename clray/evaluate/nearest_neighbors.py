"""A weighted vote among the nearest training samples, by cosine similarity, by products of tiles on any device."""

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from clray.evaluate.labelled import Labelled
from clray.evaluate.measures import class_measures, flag_measures

TILE_ROWS, TILE_COLUMNS = 1024, 16384
"""Test and training samples of a tile: 64 MiB of similarities."""


def nearest_neighbor_measures(
    train: Labelled,
    test: Labelled,
    *,
    num_classes: int,
    num_neighbors: int,
    device: torch.device,
    temperature: float = 0.07,
) -> dict[str, float]:
    """`knn_accuracy`, or for several labels a sample `knn_mean_average_precision`.

    Neighbours vote with weight exp(cosine/temperature). For several labels a sample a label's score is the weighted
    share of the neighbours that have it, among those of which that is known.

    Source: Wu et al., arXiv 1805.01978, section 3.4.
    """
    labels = torch.from_numpy(train.labels).to(device).long()
    base = F.normalize(torch.from_numpy(train.h).to(device))
    scores = []
    for query in torch.from_numpy(test.h).split(TILE_ROWS):
        similarity, rows = nearest(F.normalize(query.to(device)), base, num_neighbors)
        # The largest similarity is taken out first, so that the exponent cannot overflow.
        weights = ((similarity - similarity[:, :1]) / temperature).exp()
        scores.append(_flag_votes(weights, labels[rows]) if train.has_flags else
                      _class_votes(weights, labels[rows], num_classes))  # fmt: skip
    wanted = torch.from_numpy(test.labels).to(device).long()
    votes = torch.cat(scores)
    found = flag_measures(votes, wanted) if train.has_flags else {"accuracy": class_measures(votes, wanted)["accuracy"]}
    return {f"knn_{name}": value for name, value in found.items()}


def nearest(
    query: Float[Tensor, "m dim"], base: Float[Tensor, "n dim"], num_neighbors: int
) -> tuple[Float[Tensor, "m k"], Int[Tensor, "m k"]]:
    """The largest products of each row with rows of the base, largest first, and which these are; at most all."""
    found = []
    for first in range(0, len(base), TILE_COLUMNS):
        tile = base[first : first + TILE_COLUMNS]
        values, rows = (query @ tile.T).topk(min(num_neighbors, len(tile)), dim=1)
        found.append((values, rows + first))
    values, rows = (torch.cat(parts, dim=1) for parts in zip(*found, strict=True))
    values, places = values.topk(min(num_neighbors, values.shape[1]), dim=1)
    return values, rows.gather(1, places)


def _class_votes(weights: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    return weights.new_zeros(len(weights), num_classes).scatter_add_(1, labels, weights)


def _flag_votes(weights: Tensor, labels: Tensor) -> Tensor:
    known = (labels >= 0) * weights[..., None]
    return (known * labels).sum(1) / known.sum(1).clamp(min=1e-12)
