"""Small views with every objective, against who attracts and repels whom written out one pair at a time.

They are anchors: the views of all images of their cluster are their positives, all other views their negatives. They
are nobody's positive and nobody's negative, and neither the queue nor k-means hears of them.
"""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import clray
from clray.config import Config
from clray.config.sections import ObjectiveConfig
from clray.data.images.array import ArrayImages
from clray.data.load import load_dataset
from clray.data.samples import Dataset
from clray.errors import UserError
from clray.model.encoder import Outputs
from clray.objective.equipartition import balanced_codes
from clray.training.checkpoint import read_checkpoint
from clray.training.objectives.batch_contrast import BatchContrast
from clray.training.objectives.classification import Classification
from clray.training.objectives.equipartition import Equipartition
from clray.training.objectives.pair_contrast import PairContrast
from clray.training.objectives.port import Objective
from clray.training.objectives.prototype_contrast import PrototypeContrast
from clray.training.objectives.queue_contrast import QueueContrast
from clray.training.start import prepare
from tests.training.test_trainer import train

MakeConfig = Callable[..., Config]
T = 0.3
IDS = torch.tensor([[0, 1, 0, 2, 1, 0, 2, 2]])
INDICES = torch.tensor([0, 2, 3, 5])
PLACE = "tests.training.own_objectives"
Views = list[list[Tensor]]
"""Embeddings of each image by view."""


class Pooled(nn.Module):
    """A model of images of any size."""

    def __init__(self, num_classes: int = 0, *, dual_head: bool = False) -> None:
        super().__init__()
        self.head, self.second = nn.Linear(4, 5), nn.Linear(4, num_classes or 5)
        self.has_second, self.classifies = dual_head or num_classes > 0, num_classes > 0

    def forward(self, images: Tensor, small: Tensor | None = None) -> Outputs:
        h = torch.cat([each.mean(dim=(2, 3)) for each in (images, small) if each is not None])
        second = self.second(h) if self.has_second else None
        if second is not None and not self.classifies:
            second = F.normalize(second, dim=1)
        return Outputs(h, F.normalize(self.head(h), dim=1), second)


def views(seed: int, num_views: int = 2, size: int = 3) -> Tensor:
    return torch.randn(num_views, 4, 4, size, size, generator=torch.Generator().manual_seed(seed))


def small_views(seed: int, num_views: int = 3) -> Tensor:
    return views(100 + seed, num_views, size=2)


def settings(**values: object) -> ObjectiveConfig:
    return ObjectiveConfig.model_validate({"temperature": T, **values})


def embedded(model: nn.Module, images: Tensor, head: str = "z") -> Views:
    found = getattr(model(images.flatten(0, 1)), head).unflatten(0, images.shape[:2])
    return [list(view) for view in found]


def one_anchor(
    anchor: Tensor, positives: list[Tensor], negatives: list[Tensor], weights: list[float] | None = None
) -> Tensor:
    """-1/W sum_p w_p log( exp(a.p/t) / sum over positives and negatives )."""
    total = sum(((anchor @ each) / T).exp() for each in (*positives, *negatives))
    weights = weights or [1.0] * len(positives)
    terms = [w * (((anchor @ each) / T).exp() / total).log() for w, each in zip(weights, positives, strict=True)]
    return -sum(terms) / sum(weights)


def by_pairs(large: Views, small: Views, ids: list[int], cluster_weight: float = 1.0) -> Tensor:
    """The mean over all anchors."""
    candidates = [(view, image) for view in range(len(large)) for image in range(len(ids))]

    def loss(anchor: Tensor, image: int, others: list[tuple[int, int]]) -> Tensor:
        positives = [(v, i) for v, i in others if ids[i] == ids[image]]
        return one_anchor(
            anchor,
            [large[v][i] for v, i in positives],
            [large[v][i] for v, i in others if ids[i] != ids[image]],
            [1.0 if i == image else cluster_weight for _, i in positives],
        )

    of_large = [loss(large[v][i], i, [each for each in candidates if each != (v, i)]) for v, i in candidates]
    of_small = [loss(anchor, i, candidates) for view in small for i, anchor in enumerate(view)]
    return torch.stack([*of_large, *of_small]).mean()


def gradients(loss: Tensor, model: nn.Module) -> list[Tensor]:
    model.zero_grad()
    loss.backward()
    return [each.grad.clone() for each in model.parameters() if each.grad is not None]


def assert_same(model: nn.Module, loss: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(loss, expected)
    for one, other in zip(gradients(loss, model), gradients(expected, model), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("ids", [IDS, torch.arange(8)[None], torch.zeros(1, 8, dtype=torch.int64)])
def test_small_views_are_anchors_before_the_views_of_their_cluster(ids: Tensor) -> None:
    """By k-means or labels, by instance (InfoNCE), and where all are of one cluster."""
    model, seen, small = Pooled(), views(0), small_views(0)
    value = BatchContrast(settings(), model)(model, seen, INDICES, ids, small)
    large_z, small_z, own = embedded(model, seen), embedded(model, small), ids[0, INDICES].tolist()
    num_large = sum(own[i] == own[j] for i in range(4) for j in range(4)) * 2 - 4
    num_positives = (2 * num_large + 3 * (num_large + 4)) / (5 * 4)
    assert value.num_positives.item() == pytest.approx(num_positives)
    assert_same(model, value.loss, by_pairs(large_z, small_z, own))


@pytest.mark.parametrize("weight", [0.0, 0.3])
def test_small_views_weigh_the_positives_of_other_images(weight: float) -> None:
    model, seen, small = Pooled(), views(0), small_views(0)
    value = BatchContrast(settings(cluster_weight=weight), model)(model, seen, INDICES, IDS, small)
    large_z, small_z = embedded(model, seen), embedded(model, small)
    ids = IDS[0, INDICES].tolist() if weight else [0, 1, 2, 3]
    assert_same(model, value.loss, by_pairs(large_z, small_z, ids, weight))


def test_small_views_have_each_granularity_second_head_and_base_temperature() -> None:
    model, seen, small = Pooled(dual_head=True), views(0), small_views(0)
    ids = torch.cat([IDS, IDS % 2])
    value = BatchContrast(settings(base_temperature=0.1), model)(model, seen, INDICES, ids, small)
    large_z, small_z = embedded(model, seen), embedded(model, small)
    of_heads = [by_pairs(large_z, small_z, each[INDICES].tolist()) for each in ids]
    second = by_pairs(embedded(model, seen, "second"), embedded(model, small, "second"), [0, 1, 2, 3])
    assert_same(model, value.loss, (torch.stack(of_heads).mean() + second) * T / 0.1)


def test_small_views_before_the_cluster_head_meet_one_view_at_a_time() -> None:
    model, seen, small = Pooled(dual_head=True), views(0), small_views(0)
    objective = BatchContrast(settings(dual_head=True, dual_head_clusters="instance-head"), model)
    without, value = (objective(model, seen, INDICES, IDS, each) for each in (None, small))
    ids, second, of_small = IDS[0, INDICES].tolist(), embedded(model, seen, "second"), embedded(model, small, "second")
    instance = by_pairs(embedded(model, seen), embedded(model, small), [0, 1, 2, 3])
    instance_alone = by_pairs(embedded(model, seen), [], [0, 1, 2, 3])
    across = [
        one_anchor(
            anchor,
            [other for other, its in zip(view, ids, strict=True) if its == own],
            [other for other, its in zip(view, ids, strict=True) if its != own],
        )
        for anchors in of_small
        for anchor, own in zip(anchors, ids, strict=True)
        for view in second
    ]
    clusters = (2 * (without.loss - instance_alone) + 3 * torch.stack(across).mean()) / 5
    assert_same(model, value.loss, instance + clusters)


def test_small_views_query_the_keys_and_none_of_them_becomes_one() -> None:
    model, past = Pooled(), []
    objective = QueueContrast(settings(queue_size=6, key_momentum=0.9), model)
    for seed, indices in enumerate(torch.tensor([[0, 2, 3, 5], [1, 4, 6, 7], [0, 1, 2, 3]])):
        seen, small, ids = views(seed), small_views(seed), (IDS[0] + seed) % 3
        value = objective(model, seen, indices, ids[None], small)
        keys = list(objective.key_model(seen[1]).z)
        candidates = [*zip(keys, indices.tolist(), strict=True), *past]
        queries = [embedded(model, seen)[0], *embedded(model, small)]
        losses = [
            one_anchor(
                query,
                [key for key, image in candidates if ids[image] == ids[own]],
                [key for key, image in candidates if ids[image] != ids[own]],
            )
            for view in queries
            for query, own in zip(view, indices.tolist(), strict=True)
        ]
        assert_same(model, value.loss, torch.stack(losses).mean())
        torch.testing.assert_close(value.embeddings, torch.stack(keys))
        past = candidates[:6]


def test_small_views_query_pcls_queue_and_prototypes() -> None:
    model, indices = Pooled(), torch.tensor([5, 2, 3, 0])
    objective = PrototypeContrast(settings(queue_size=8), model)
    first = views(0)
    objective(model, first, torch.tensor([1, 4, 6, 7]), IDS, small_views(0))
    queue = objective.key_model(first[1]).z
    centroids, phis = np.random.default_rng(0).normal(size=(3, 5)).astype(np.float32), np.array([0.1, 0.5, 0.2], "f4")
    objective.take_clusters([centroids], [phis], renamed=True, seed=0)
    seen, small = views(1), small_views(1)
    value = objective(model, seen, indices, IDS, small)
    keys, unit, losses = objective.key_model(seen[1]).z, F.normalize(torch.from_numpy(centroids), dim=1), []
    for view in (embedded(model, seen)[0], *embedded(model, small)):
        for query, key, index in zip(view, keys, indices, strict=True):
            against_queue = torch.cat([key[None], queue]) @ query / T
            against_centroids = unit @ query / torch.from_numpy(phis)
            losses.append(-against_queue.log_softmax(0)[0] - against_centroids.log_softmax(0)[IDS[0, index]])
    assert_same(model, value.loss, torch.stack(losses).mean())


def test_small_views_of_pairs_are_anchors_before_the_other_halves() -> None:
    model, seen, small = Pooled(), views(0, num_views=1), small_views(0)
    value = PairContrast(settings(), model)(model, seen, torch.tensor([0, 1, 2, 4]), IDS, small)

    def pairs(anchors: list[Tensor], others: list[Tensor]) -> Tensor:
        scores = [[((anchor @ other) / T).exp() for other in others] for anchor in anchors]
        return torch.stack([-(row[i] / (sum(row) / len(row))).log() for i, row in enumerate(scores)]).mean()

    (z,) = embedded(model, seen)
    of_small = [(pairs(each[:2], z[2:]) + pairs(each[2:], z[:2])) / 2 for each in embedded(model, small)]
    assert_same(model, value.loss, (pairs(z[:2], z[2:]) + sum(of_small)) / 4)


def test_small_views_are_classified_too() -> None:
    model, seen, small = Pooled(num_classes=3), views(0), small_views(0)
    value = Classification(settings(), model)(model, seen, INDICES, IDS, small)
    logits = [*embedded(model, seen, "second"), *embedded(model, small, "second")]
    losses = [-view[i].log_softmax(0)[IDS[0, INDICES[i]]] for view in logits for i in range(4)]
    assert_same(model, value.loss, torch.stack(losses).mean())


def test_small_views_predict_the_codes_of_the_views() -> None:
    model, seen, small = Pooled(num_classes=3), views(0), small_views(0)
    value = Equipartition(settings(name="swav", num_prototypes=3), model)(model, seen, INDICES, IDS, small)
    of_views, of_small = (model(each.flatten(0, 1)).second.unflatten(0, (-1, 4)) for each in (seen, small))
    codes = [balanced_codes(view, epsilon=0.05, num_iterations=3) for view in of_views]

    def prediction(view: Tensor, code: Tensor) -> Tensor:
        return -(code * (view / T).log_softmax(dim=1)).sum(dim=1).mean()

    by_views = [prediction(of_views[0], codes[1]), prediction(of_views[1], codes[0])]
    by_small = [torch.stack([prediction(view, code) for code in codes]).mean() for view in of_small]
    assert_same(model, value.loss, torch.stack([*by_views, *by_small]).mean())


class Attract(clray.Objective):
    def loss(self, batch: clray.EmbeddedBatch) -> Tensor:
        return -(batch.z[0] * batch.z[1] + batch.h[0].sum() * batch.second[1]).sum(dim=1).mean()


def test_an_objective_of_the_users_sees_each_small_view_in_the_place_of_a_view() -> None:
    """The others pass on no gradient then."""
    model, seen, small = Pooled(dual_head=True), views(0), small_views(0)
    value = Attract(settings(), model)(model, seen, INDICES, IDS, small)
    large_of, small_of = model(seen.flatten(0, 1)), model(small.flatten(0, 1))
    (z, h, second), (sz, sh, ss) = (
        [each.unflatten(0, (-1, 4)) for each in (out.z, out.h, out.second)] for out in (large_of, small_of)
    )

    def attract(z: list[Tensor], h: list[Tensor], second: list[Tensor]) -> Tensor:
        return -(z[0] * z[1] + h[0].sum() * second[1]).sum(dim=1).mean()

    z0, h0, s0 = (each.detach() for each in (z, h, second))
    expected = [
        *[attract(z, h, second)] * 2,
        attract([sz[0], z0[1]], [sh[0], h0[1]], [ss[0], s0[1]]),
        attract([z0[0], sz[1]], [h0[0], sh[1]], [s0[0], ss[1]]),
        attract([sz[2], z0[1]], [sh[2], h0[1]], [ss[2], s0[1]]),
    ]
    torch.testing.assert_close(value.loss, torch.stack(expected).mean())
    weighed = (2 * expected[0] + 2 * sum(expected[2:])) / 5  # each view, small or not, has two of five parts
    for one, other in zip(gradients(value.loss, model), gradients(weighed, model), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


class Classify(clray.Objective):
    def loss(self, batch: clray.EmbeddedBatch) -> Tensor:
        ids = batch.cluster_ids[0].repeat(len(batch.second))
        return F.cross_entropy(batch.second.flatten(0, 1), ids)


@pytest.mark.parametrize("num_views", [1, 2, 3])
def test_a_small_view_of_an_objective_of_the_users_weighs_as_much_as_a_view(num_views: int) -> None:
    """As for clray's own, which takes the mean over all views, small or not."""
    model, seen, small = Pooled(num_classes=3), views(0, num_views=num_views), small_views(0)
    own, ours = (
        gradients(kind(settings(), model)(model, seen, INDICES, IDS, small).loss, model)
        for kind in (Classify, Classification)
    )
    for one, other in zip(own, ours, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("kind", [BatchContrast, QueueContrast, Attract])
def test_what_is_clustered_is_of_the_views_alone(kind: type[Objective]) -> None:
    model, seen = Pooled(dual_head=kind is Attract), views(0)
    without = kind(settings(), model)(model, seen, INDICES, IDS)
    with_small = kind(settings(), model)(model, seen, INDICES, IDS, small_views(0))
    assert torch.equal(without.embeddings, with_small.embeddings)
    assert with_small.loss.item() != without.loss.item()


OBJECTIVES = {
    "cl-infonce": {},
    "dual head": {"dual_head": True},
    "instance head": {"dual_head": True, "dual_head_clusters": "instance-head"},
    "queue": {"negatives": "queue"},
    "pcl": {"name": "pcl"},
    "cluster-prediction": {"name": "cluster-prediction"},
    "infonce": {"name": "infonce"},
    "supcon": {"name": "supcon"},
    "supervised": {"name": "supervised"},
    "pair-sampled": {"form": "pair-sampled"},
    "own": {"name": f"{PLACE}:Again"},
    "own of pairs": {"name": f"{PLACE}:PairsAgain"},
}


@pytest.mark.parametrize("name", OBJECTIVES)
def test_every_objective_trains_and_resumes_with_small_views(
    tiny_config: MakeConfig, tmp_path: Path, name: str
) -> None:
    """And with k-means of its embeddings, by the bank."""
    config = tiny_config(
        allow_user_modules=True,
        objective=OBJECTIVES[name],
        augmentation={"name": "digits", "num_small_views": 2},
        train={"num_epochs": 2},
        recluster={"warmup_epochs": int(name != "cluster-prediction")},
    )
    data = load_dataset(config.data)
    prepare(config, data)
    metrics = train(config, data, tmp_path / "whole")
    assert all(math.isfinite(each["train/loss"]) for each in metrics)
    train(config, data, tmp_path / "cut", stop_after=1)
    train(config, data, tmp_path / "cut")
    first, second = (read_checkpoint(tmp_path / part)["model"] for part in ("whole", "cut"))
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_a_run_on_crops_of_larger_images_embeds_images_at_the_size_of_its_views(
    tiny_config: MakeConfig, tmp_path: Path
) -> None:
    config = tiny_config(augmentation={"name": "digits", "view_size": 6, "num_small_views": 1}, train={"num_epochs": 2})
    data = load_dataset(config.data)
    start = prepare(config, data)
    assert math.isfinite(train(config, data, tmp_path)[-1]["train/loss"])
    kept = read_checkpoint(tmp_path)["config"]["encoder"]
    assert (kept["image_size"], kept["mean"], kept["std"]) == (6, [0.0], [1.0])
    assert start.model is not None
    encoder, images = start.model.eval().encoder, torch.rand(3, 1, 8, 8)
    scaled = F.interpolate(images, (6, 6), mode="bilinear", antialias=True)
    torch.testing.assert_close(encoder(images), encoder(scaled))


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"augmentation": {"view_size": 9}}, "augmentation.view_size=9: the images are 8 pixels wide"),
        (
            {"objective": {"name": f"{PLACE}:StepOfItsOwn"}},
            "augmentation.num_small_views=2, but StepOfItsOwn.__call__ takes no small_views",
        ),
        ({"augmentation": {"small_view_size": 9}}, "augmentation.small_view_size=9: the views are of 8 pixels"),
        (
            {"augmentation": {"blur_probability": [0.1, 0.2, 0.3, 0.4, 0.5]}},
            "augmentation.blur_probability has 5 values, and objective.name=cl-infonce has 4 views of an image",
        ),
        (
            {"encoder": {"name": "vit_s16", "image_size": 16}, "data": {"image_size": 16}},
            "augmentation.num_small_views=2: encoder.name=vit_s16 takes images of one size",
        ),
        (
            {"encoder": {"name": f"{PLACE}:only_8_pixels"}},
            f"encoder.name={PLACE}:only_8_pixels: cannot embed images of 4x4 pixels",
        ),
    ],
)
def test_what_cannot_have_small_views_is_refused_before_training(
    tiny_config: MakeConfig, sections: dict, message: str
) -> None:
    tree = {"augmentation": {}, "data": {}, **sections}
    tree["augmentation"] = {"name": "digits", "num_small_views": 2, **tree["augmentation"]}
    image_size = tree.pop("data").get("image_size")
    config = tiny_config(allow_user_modules=True, **tree)
    data = load_dataset(config.data)
    if image_size is not None:
        data = resized(data, image_size)
    with pytest.raises(UserError) as refused:
        prepare(config, data)
    assert message in str(refused.value)


def resized(data: Dataset, size: int) -> Dataset:
    pixels = np.zeros((len(data.train), 1, size, size), np.uint8)
    return replace(data, train=replace(data.train, images=ArrayImages(pixels)))
