"""Each objective on a model of one layer, against its formula written out."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from clray.config.sections import ObjectiveConfig
from clray.model.encoder import Outputs
from clray.training.objectives.batch_contrast import BatchContrast
from clray.training.objectives.classification import Classification
from clray.training.objectives.pair_contrast import PairContrast
from clray.training.objectives.port import Objective
from clray.training.objectives.prototype_contrast import PrototypeContrast
from clray.training.objectives.queue_contrast import QueueContrast

T = 0.3
IDS = torch.tensor([[0, 1, 0, 2, 1, 0, 2, 2]])


class Flat(nn.Module):
    """A model whose embedding is one layer, with a second head."""

    def __init__(self, num_classes: int = 0) -> None:
        super().__init__()
        self.head = nn.Linear(4, 5)
        self.second = nn.Linear(4, num_classes or 5)
        self.classifies = num_classes > 0

    def forward(self, images: Tensor) -> Outputs:
        h = images.flatten(1)
        second = self.second(h)
        return Outputs(h, F.normalize(self.head(h), dim=1), second if self.classifies else F.normalize(second, dim=1))


def views(seed: int, num_views: int = 2) -> Tensor:
    return torch.randn(num_views, 4, 1, 2, 2, generator=torch.Generator().manual_seed(seed))


def infonce(anchors: Tensor, own: list[int | None], candidates: Tensor, positives: list[list[int]]) -> Tensor:
    """Mean over anchors with a positive, one logarithm at a time."""
    losses = []
    for i, anchor in enumerate(anchors):
        scores = (candidates @ anchor / T).exp()
        total = sum(score for j, score in enumerate(scores) if j != own[i])
        if positives[i]:
            losses.append(-torch.stack([(scores[j] / total).log() for j in positives[i]]).mean())
    return torch.stack(losses).mean()


def in_batch(z: Tensor, ids: Tensor) -> Tensor:
    z, ids = z.flatten(0, 1), ids.repeat(2).tolist()
    positives = [[j for j in range(len(ids)) if j != i and ids[j] == ids[i]] for i in range(len(ids))]
    return infonce(z, list(range(len(ids))), z, positives)


def settings(**values: object) -> ObjectiveConfig:
    return ObjectiveConfig.model_validate({"temperature": T, **values})


def test_the_second_head_is_contrasted_by_instance_and_added() -> None:
    model, seen, indices = Flat(), views(0), torch.tensor([0, 2, 3, 5])
    value = BatchContrast(settings(), model)(model, seen, indices, IDS)
    outputs = model(seen.flatten(0, 1))
    first = in_batch(outputs.z.unflatten(0, (2, 4)), IDS[0, indices])
    second = in_batch(outputs.second.unflatten(0, (2, 4)), indices)
    torch.testing.assert_close(value.loss, first + second)
    mean = F.normalize(outputs.z.unflatten(0, (2, 4)).mean(0), dim=1)
    torch.testing.assert_close(value.embeddings, mean.detach())


@pytest.mark.parametrize("base_temperature", [None, 0.07])
def test_by_the_head_of_instances_the_second_contrasts_clusters_across_views_alone(
    base_temperature: float | None,
) -> None:
    model, seen, indices = Flat(), views(0), torch.tensor([0, 2, 3, 5])
    chosen = settings(dual_head=True, dual_head_clusters="instance-head", base_temperature=base_temperature)
    value = BatchContrast(chosen, model)(model, seen, indices, IDS)
    outputs, ids = model(seen.flatten(0, 1)), IDS[0, indices].tolist()
    z, second = (each.unflatten(0, (2, 4)) for each in (outputs.z, outputs.second))
    positives = [[j for j in range(4) if ids[j] == ids[i]] for i in range(4)]
    clusters = [infonce(second[v], [None] * 4, second[1 - v], positives) for v in range(2)]
    scale = 1 if base_temperature is None else T / base_temperature
    torch.testing.assert_close(value.loss, scale * (in_batch(z, indices) + sum(clusters) / 2))
    torch.testing.assert_close(value.num_positives, torch.tensor(sum(map(len, positives)) / 4))
    torch.testing.assert_close(value.embeddings, F.normalize(z.mean(0), dim=1).detach())  # what is clustered


@pytest.mark.parametrize("kind", [BatchContrast, QueueContrast])
def test_without_weight_for_other_images_clusters_say_nothing(kind: type[Objective]) -> None:
    """Over several steps, so that a queue holds keys of images that come again."""
    losses = []
    for weight, ids in ((0.0, IDS), (1.0, torch.arange(8)[None])):
        torch.manual_seed(0)
        model = Flat()
        objective = kind(settings(queue_size=6, key_momentum=0.9, cluster_weight=weight), model)
        steps = torch.tensor([[0, 2, 3, 5], [1, 4, 6, 7], [0, 1, 2, 3]])
        losses.append([objective(model, views(seed), each, ids).loss for seed, each in enumerate(steps)])
    assert torch.equal(*map(torch.stack, losses))


def test_old_keys_of_an_image_count_as_its_own_views() -> None:
    model, indices = Flat(), torch.tensor([0, 2, 3, 5])
    objective = QueueContrast(settings(queue_size=8, key_momentum=0.9, cluster_weight=0.25), model)
    for seed in range(2):
        value = objective(model, views(seed), indices, IDS)
    same = (IDS[0, indices][:, None] == IDS[0, indices]).sum(1) - 1
    assert value.num_positives.item() == pytest.approx((2 + 0.25 * 2 * same).mean().item())


def test_keys_of_earlier_batches_are_candidates_under_the_clusters_of_today() -> None:
    model = Flat()
    objective = QueueContrast(settings(queue_size=6, key_momentum=0.9), model)
    key_weight, past = model.head.weight.detach().clone(), []
    for seed, indices in enumerate(torch.tensor([[0, 2, 3, 5], [1, 4, 6, 7], [0, 1, 2, 3]])):
        with torch.no_grad():
            model.head.weight.add_(0.5)
        seen, ids = views(seed), (IDS + seed) % 3
        value = objective(model, seen, indices, ids)
        key_weight = 0.9 * key_weight + 0.1 * model.head.weight.detach()
        torch.testing.assert_close(objective.key_model.head.weight, key_weight)
        keys = objective.key_model(seen[1]).z
        candidates = torch.cat([keys, *(key[None] for key, _ in past)])
        of_candidates = [*indices.tolist(), *(index for _, index in past)]
        positives = [
            [j for j, other in enumerate(of_candidates) if ids[0, other] == ids[0, index]] for index in indices
        ]
        expected = infonce(model(seen[0]).z, [None] * 4, candidates, positives)
        torch.testing.assert_close(value.loss, expected)
        past = [*zip(keys, indices.tolist(), strict=True), *past][:6]


def test_pcl_contrasts_instances_with_the_queue_and_centroids_by_their_concentration() -> None:
    model, indices = Flat(), torch.tensor([5, 2, 3, 0])
    objective = PrototypeContrast(settings(queue_size=8), model)
    first = views(0)
    objective(model, first, torch.tensor([1, 4, 6, 7]), IDS)
    queue = objective.key_model(first[1]).z
    centroids, phis = np.random.default_rng(0).normal(size=(3, 5)).astype(np.float32), np.array([0.1, 0.5, 0.2], "f4")
    objective.take_clusters([centroids], [phis], renamed=True, seed=0)
    seen = views(1)
    value = objective(model, seen, indices, IDS)
    queries, keys = model(seen[0]).z, objective.key_model(seen[1]).z
    losses = []
    for query, key, index in zip(queries, keys, indices, strict=True):
        against_queue = torch.cat([key[None], queue]) @ query / T
        unit = F.normalize(torch.from_numpy(centroids), dim=1)
        against_centroids = unit @ query / torch.from_numpy(phis)
        losses.append(-against_queue.log_softmax(0)[0] - against_centroids.log_softmax(0)[IDS[0, index]])
    torch.testing.assert_close(value.loss, torch.stack(losses).mean())


def test_pairs_are_contrasted_with_all_second_halves() -> None:
    model, seen = Flat(), views(0, num_views=1)
    value = PairContrast(settings(base_temperature=0.1), model)(model, seen, torch.tensor([0, 1, 2, 4]), IDS)
    x, y = model(seen[0]).z.chunk(2)
    scores = x @ y.T / T
    expected = (scores.exp().mean(1).log() - scores.diagonal()).mean() * T / 0.1
    torch.testing.assert_close(value.loss, expected)


def test_a_classifier_learns_the_clusters_of_both_views() -> None:
    model, seen, indices = Flat(num_classes=3), views(0), torch.tensor([0, 1, 3, 4])
    value = Classification(settings(), model)(model, seen, indices, IDS)
    chances = model(seen.flatten(0, 1)).second.log_softmax(1)
    expected = torch.stack([-chances[i, IDS[0, indices[i % 4]]] for i in range(8)]).mean()
    torch.testing.assert_close(value.loss, expected)


@pytest.mark.parametrize("renamed", [True, False])
def test_a_classifier_is_drawn_anew_alike_on_every_worker_only_for_renamed_clusters(renamed: bool) -> None:
    models = [Flat(num_classes=3) for _ in range(2)]
    before = [model.second.weight.clone() for model in models]
    for model in models:
        drawn = Classification(settings(), model).take_clusters([], None, renamed=renamed, seed=7)
        assert (set(drawn) == set(model.second.parameters())) is renamed
    assert torch.equal(models[0].second.weight, before[0]) is not renamed
    assert torch.equal(models[0].second.weight, models[1].second.weight) is renamed
    assert models[0].second.weight.abs().max() <= 0.5 if renamed else True
