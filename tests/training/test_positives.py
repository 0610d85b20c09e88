"""How many positives are expected, against those that are met, and what the warning proposes."""

import re
from collections.abc import Callable

import numpy as np
import pytest
import torch

from clray.clusters.confidence import most_confident, with_loners
from clray.config import Config, override
from clray.objective.contrastive import cl_infonce
from clray.training.positives import expected_positives, positives_notes

MakeConfig = Callable[..., Config]


@pytest.mark.parametrize(("confidence", "weight"), [(1.0, 1.0), (0.5, 1.0), (1.0, 0.25), (0.5, 0.25)])
def test_what_is_expected_is_met_on_average(tiny_config: MakeConfig, confidence: float, weight: float) -> None:
    config = tiny_config(clusters={"confidence": confidence}, objective={"cluster_weight": weight})
    generator, ids = np.random.default_rng(0), np.arange(960) % 6
    training = with_loners(ids, 6, most_confident(ids, generator.random(960), confidence))
    met = []
    for _ in range(300):
        batch = generator.choice(960, 32, replace=False)
        clusters, images = (torch.from_numpy(each) for each in (training[batch], batch))
        z = torch.ones(2, 32, 1)
        met.append(cl_infonce(z, clusters, temperature=1.0, cluster_weight=weight, images=images).num_positives.item())
    assert expected_positives(config, 960) == pytest.approx(np.mean(met), rel=0.02)


def test_the_authors_have_little_more_than_the_own_view(tiny_config: MakeConfig) -> None:
    config = tiny_config(clusters={"num_clusters": 2500}, train={"global_batch_size": 128})
    assert expected_positives(config, 120_000) == pytest.approx(1.1, abs=0.005)
    assert positives_notes([config], 120_000) == ()


def test_each_proposal_is_enough(tiny_config: MakeConfig) -> None:
    config = tiny_config(train={"global_batch_size": 256}, clusters={"num_clusters": 100})
    (note,) = positives_notes([config], 50_000)
    assert "clusters.num_clusters=100 gives an anchor about 6.1 positives in a batch of 256" in note
    proposals = re.findall(r"([a-z_]+\.[a-z_]+)=([0-9.]+)", note.partition("Enough")[2])
    assert [key for key, _ in proposals] == [
        "clusters.num_clusters", "clusters.confidence", "objective.cluster_weight",
    ]  # fmt: skip
    for key, value in proposals:
        changed = override(config, {key: float(value) if "." in value else int(value)})
        assert 1.9 < expected_positives(changed, 50_000) <= 2
        assert positives_notes([changed], 50_000) == ()


def test_more_clusters_than_images_are_not_proposed(tiny_config: MakeConfig) -> None:
    (note,) = positives_notes([tiny_config(train={"global_batch_size": 90})], 96)
    assert "Enough would be clusters.confidence=" in note


def test_a_sweep_is_warned_once_with_all_its_numbers(tiny_config: MakeConfig) -> None:
    configs = [tiny_config(clusters={"num_clusters": k}) for k in (5, 50, 10, 500, 10)]
    (note,) = positives_notes([*configs, tiny_config(objective={"name": "infonce"})], 1000)
    assert "clusters.num_clusters=5, 10 and 50 gives an anchor up to about 13.4 positives" in note
    assert "clusters.num_clusters=62" in note


@pytest.mark.parametrize(
    "other",
    [
        {"objective.name": "supcon"},
        {"objective.name": "pcl"},
        {"objective.form": "pair-sampled"},
        {"clusters.source": "labels"},
        {"clusters.confidence": 0},
        {"objective.cluster_weight": 0},
    ],
)
def test_other_objectives_and_clusters_are_not_judged(tiny_config: MakeConfig, other: dict[str, object]) -> None:
    assert positives_notes([override(tiny_config(), other)], 96) == ()


def test_a_queue_and_a_sampler_by_clusters_bring_more(tiny_config: MakeConfig) -> None:
    queue = tiny_config(objective={"negatives": "queue", "queue_size": 569})
    assert expected_positives(queue, 1000) == pytest.approx(1 + (31 + 569) / 6)
    sampler = tiny_config(train={"sampler": "cluster", "members_per_cluster": 8}, clusters={"num_clusters": 900})
    assert expected_positives(sampler, 1000) == 15
    assert "num_clusters=" not in positives_notes([sampler], 1000)[0].partition("Enough")[2]
    head = tiny_config(objective={"dual_head": True, "dual_head_clusters": "instance-head"})
    assert expected_positives(head, 1000) == pytest.approx(1 + 31 / 6)
