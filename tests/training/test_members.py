"""Which members count, in whole runs in this process."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from clray.config import Config
from clray.data.images.array import ArrayImages
from clray.data.load import load_dataset
from clray.data.samples import Dataset
from clray.kmeans.lloyd import Clustering
from clray.training import members
from clray.training.checkpoint import read_checkpoint
from clray.training.checkpoint_form import Checkpoint, Snapshot
from clray.training.representations import view_pairs
from clray.training.trainer import run
from clray.training.workers.port import Session
from clray.training.workers.process import LocalSession
from tests.training.test_trainer import CPU, cluster_here, train, without_times

MakeConfig = Callable[..., Config]
TREE = "root:\n  small: ['0', '1', '2', '3', '4']\n  large: ['5', '6', '7', '8', '9']\n"


@pytest.fixture
def data(tiny_config: MakeConfig) -> Dataset:
    return load_dataset(tiny_config().data)


def weights(folder: Path) -> list[torch.Tensor]:
    return list(read_checkpoint(folder)["model"].values())


def are_equal(one: list[torch.Tensor], other: list[torch.Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


SOURCES: dict[str, dict[str, Any]] = {
    "kmeans": {},
    "three granularities": {"granularities": [12, 6, 3]},
    "labels": {"source": "labels"},
    "hierarchy": {"source": "hierarchy", "granularities": [0, 1, 2], "tree": "tree.yaml"},
}


@pytest.mark.parametrize("clusters", SOURCES.values(), ids=SOURCES)
def test_without_members_that_count_a_run_is_infonce_to_the_bit(
    clusters: dict[str, Any], tiny_config: MakeConfig, data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("tree.yaml").write_text(TREE, encoding="utf-8")
    train(tiny_config(objective={"name": "infonce"}), data, tmp_path / "infonce")
    found = train(tiny_config(clusters={**clusters, "confidence": 0}), data, tmp_path / "none")
    assert are_equal(weights(tmp_path / "infonce"), weights(tmp_path / "none"))
    assert found[-1]["train/positives_per_anchor"] == 1
    assert found[-1]["clusters/confident_fraction"] == 0


def test_with_all_members_the_choice_is_never_made(
    tiny_config: MakeConfig, data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = train(tiny_config(), data, tmp_path / "plain")
    monkeypatch.setattr(members, "most_confident", None)
    for by in ("margin", "views", "random"):
        found = train(tiny_config(clusters={"confidence": 1, "confidence_by": by}), data, tmp_path / by)
        assert without_times(found) == without_times(plain)


@pytest.mark.parametrize("mode", ["sync", "async"])
@pytest.mark.parametrize("by", ["margin", "views", "random"])
def test_a_run_that_is_cut_continues_with_the_same_members(
    by: str, mode: str, tiny_config: MakeConfig, data: Dataset, tmp_path: Path
) -> None:
    """Within an epoch too; clusters that are two epochs old are not chosen from again."""
    config = tiny_config(
        clusters={"confidence": 0.5, "confidence_by": by, "granularities": [6, 3]},
        recluster={"mode": mode, "every_epochs": 2},
        train={"num_epochs": 4, "checkpoint_every_steps": 2},
    )
    whole = train(config, data, tmp_path / "whole")
    saved: list[Checkpoint] = []

    class Cut(LocalSession):
        def save(self, snapshot: Snapshot) -> None:
            super().save(snapshot)
            saved.append(snapshot.whole())
            if len(saved) == 3:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(config, data, Cut(tmp_path / "cut", cluster_here, lambda _: None, CPU))
    assert saved[-1]["confident"].shape == (2, 96)
    assert 0.4 < saved[-1]["confident"].float().mean() < 0.6
    found = train(config, data, tmp_path / "cut")
    assert without_times(found) == without_times(whole)
    assert are_equal(weights(tmp_path / "whole"), weights(tmp_path / "cut"))


def test_members_of_known_clusters_are_drawn_anew_in_each_epoch(
    tiny_config: MakeConfig, data: Dataset, tmp_path: Path
) -> None:
    drawn = []

    class Watched(LocalSession):
        def report(self, metrics: Any, snapshot: Snapshot | None) -> None:
            super().report(metrics, snapshot)
            drawn.append(snapshot.whole()["confident"].numpy())

    config = tiny_config(clusters={"source": "labels", "confidence": 0.4, "confidence_by": "random"})
    run(config, data, Watched(tmp_path, None, lambda _: None, CPU))
    assert len(drawn) == 3
    assert not np.array_equal(drawn[0], drawn[1])
    for label in range(10):
        of_class = data.train.labels == label
        assert drawn[0][0][of_class].sum() == np.floor(0.4 * of_class.sum() + 0.5)


@pytest.mark.parametrize("by", ["margin", "views"])
def test_the_members_that_count_lie_further_from_the_next_cluster(
    by: str, tiny_config: MakeConfig, data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And a step sees the others as clusters of their own."""
    seen: list[tuple[list[np.ndarray], np.ndarray]] = []

    def choose(config: Config, state: Any, scores: list[np.ndarray] | None, session: Session) -> None:
        members.choose_members(config, state, scores, session)
        ids = members.training_ids(config, state)[0]
        seen.append((scores, state.confident[0], state.assignments[0].ids, ids))

    monkeypatch.setattr("clray.training.recluster.choose_members", choose)
    train(tiny_config(clusters={"confidence": 0.3, "confidence_by": by}), data, tmp_path)
    for (scores,), confident, ids, of_step in seen:
        for cluster in range(6):
            inside = ids == cluster
            if 0 < confident[inside].sum() < inside.sum():
                assert scores[inside & confident].min() >= scores[inside & ~confident].max()
        assert np.array_equal(of_step[confident], ids[confident])
        assert of_step[~confident].tolist() == (6 + np.flatnonzero(~confident)).tolist()


def test_two_views_are_judged_by_the_worse_of_them() -> None:
    centroids, ids = np.array([[0, 0], [4, 0]], np.float32), np.zeros(2, np.int32)
    views = (np.array([[0, 0], [0, 0]], np.float32), np.array([[1, 0], [3, 0]], np.float32))
    (found,) = members.own_margins(views, [Clustering(centroids, ids, 0.0)], CPU)
    np.testing.assert_allclose(found, [1 - 1 / 3, 1 / 3 - 1], atol=1e-6)


def test_views_of_an_image_stay_together_and_leave_the_generator_alone(tiny_config: MakeConfig, data: Dataset) -> None:
    class Mean(torch.nn.Module):
        def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            values = images.flatten(1).mean(1, keepdim=True)
            return values, values

    config = tiny_config()
    # Each image is of one shade, which a view keeps but at its borders.
    shades = np.broadcast_to(np.arange(0, 192, 2, dtype=np.uint8)[:, None, None, None], (96, 1, 8, 8))
    data = replace(data, train=replace(data.train, images=ArrayImages(shades.copy())))
    torch.manual_seed(3)
    before = torch.get_rng_state()
    rows = np.arange(0, 96, 3)
    first, second = view_pairs(config, Mean(), data, rows, CPU, seed=1)
    assert torch.equal(before, torch.get_rng_state())
    assert first.z.shape == (32, 1)
    for views in (first, second):
        np.testing.assert_allclose(views.z[:, 0] * 255, 2 * rows, atol=0.1 * 192)
    assert not np.array_equal(first.z, second.z)


def test_confident_members_and_their_pairs_are_reported(tiny_config: MakeConfig, data: Dataset, tmp_path: Path) -> None:
    config = tiny_config(clusters={"confidence": 0.5})
    found = train(config, data, tmp_path)
    assert "clusters/confident_fraction" not in found[0]  # each image is alone, and none is left out
    checkpoint, last = read_checkpoint(tmp_path), found[-1]
    confident, ids, labels = checkpoint["confident"][0].numpy(), checkpoint["cluster_ids"][0].numpy(), data.train.labels
    assert last["clusters/confident_fraction"] == confident.mean()
    for name, members_ in (("pair_precision", np.ones(96, bool)), ("confident_pair_precision", confident)):
        a, b = np.triu_indices(96, 1)
        pairs = (ids[a] == ids[b]) & members_[a] & members_[b]
        assert last[f"clusters/{name}"] == pytest.approx((labels[a] == labels[b])[pairs].mean())
    assert last["clusters/chance_pair_precision"] == pytest.approx((labels[a] == labels[b]).mean())
