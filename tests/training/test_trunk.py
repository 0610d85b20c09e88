from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch

from clray.config import Config
from clray.config.sections import DataConfig
from clray.data.load import load_dataset
from clray.data.samples import Dataset
from clray.kmeans.lloyd import Clustering
from clray.kmeans.refresh import Done, LocalKMeans
from clray.seeding import derive_seed
from clray.training.checkpoint import BEST_FILE, read_checkpoint
from clray.training.checkpoint_parts import CHECKPOINT_FILE
from clray.training.first_clusterings import FIRST_FILE, FirstClustering, FirstClusterings, Wanted, as_tree
from clray.training.metrics import Metrics, read_metrics
from clray.training.recluster import Reclusterer
from clray.training.start import Start, start_clusters
from clray.training.trunk import Trunk
from clray.training.workers.launch import train_in_process

MakeConfig = Callable[..., Config]
TIMES = ("seconds", "per_second")
STEPS_PER_EPOCH = 3
DIFFERENT = (*TIMES, "network_bytes")


class Counted(LocalKMeans):
    """Counts the passes, and what went through them."""

    calls: ClassVar[list[tuple[int, ...]]] = []

    def __call__(self, vectors: np.ndarray, num_clusters: tuple[int, ...], **settings: Any) -> Done:
        self.calls.append(num_clusters)
        return super().__call__(vectors, num_clusters, **settings)


def train(config: Config, folder: Path, trunk: Trunk | None = None) -> list[Metrics]:
    folder.mkdir(exist_ok=True)
    data = load_dataset(config.data)
    start = Start(start_clusters(config, data))
    if trunk is not None:
        assert trunk.start(folder)
        start = replace(start, first=trunk.first_clustering(config))
    train_in_process(config, data, folder, lambda _: None, LocalKMeans(config.kmeans), start=start)
    return [
        {name: value for name, value in metrics.items() if not name.endswith(DIFFERENT)}
        for metrics in read_metrics(folder)
    ]


def grow(
    trunk: Trunk, config: Config, grower: str = "0000", load: Callable[[DataConfig], Dataset] = load_dataset
) -> None:
    def train_in(own: Config, folder: Path, wanted: tuple[Wanted, ...]) -> None:
        data = load(own.data)
        train_in_process(own, data, folder, lambda _: None, Counted(own.kmeans), wanted=wanted)

    Counted.calls = []
    trunk.grow(config, grower, train_in)


def trunk_of(folder: Path, *configs: Config) -> Trunk:
    clustered = [config for config in configs if config.clusters.source == "kmeans"]
    return Trunk(folder / "trunks" / "key", configs[0].recluster.warmup_epochs, tuple(map(Wanted.of, clustered)))


@pytest.mark.parametrize(
    ("objective", "clusters", "recluster"),
    [
        ({}, {"num_clusters": 4}, {}),
        ({}, {"num_clusters": 4}, {"embeddings": "pass"}),
        ({"dual_head": True}, {"num_clusters": 4}, {}),
        ({"negatives": "queue", "queue_size": 64}, {"granularities": [8, 4]}, {}),
        ({}, {"source": "instance"}, {}),
        ({"name": "infonce"}, {"source": "instance"}, {"embeddings": "pass"}),
    ],
)
def test_a_run_that_starts_from_a_trunk_is_to_the_bit_what_it_would_be_alone(
    objective: dict, clusters: dict, recluster: dict, tiny_config: MakeConfig, tmp_path: Path
) -> None:
    config = tiny_config(
        clusters=clusters,
        objective=objective,
        evaluate={"every_epochs": 1},
        recluster={"warmup_epochs": 2, **recluster},
    )
    others = (
        [tiny_config(**{**config.model_dump(), "clusters": {"source": "kmeans", "num_clusters": k}}) for k in (9, 3)]
        if clusters.get("source") != "instance"
        else []
    )
    trunk = trunk_of(tmp_path, config, *others)
    grow(trunk, config)
    shared, alone = train(config, tmp_path / "shared", trunk), train(config, tmp_path / "alone")
    assert shared == alone
    assert (tmp_path / "shared" / BEST_FILE).exists() == (tmp_path / "alone" / BEST_FILE).exists()
    found, expected = read_checkpoint(tmp_path / "shared"), read_checkpoint(tmp_path / "alone")
    assert found["epoch"] == 3
    torch.testing.assert_close(found["model"], expected["model"], rtol=0, atol=0)
    torch.testing.assert_close(found["bank"], expected["bank"], rtol=0, atol=0)


def test_a_trunk_clusters_in_the_arithmetic_of_its_run(
    tiny_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[bool] = []
    first_for = Reclusterer.first_for

    def heard(self: Reclusterer, wanted: Sequence[Wanted]) -> FirstClusterings:
        found.append(torch.are_deterministic_algorithms_enabled())
        return first_for(self, wanted)

    monkeypatch.setattr(Reclusterer, "first_for", heard)
    for is_deterministic in (True, False):
        config = tiny_config(train={"deterministic": is_deterministic})
        grow(trunk_of(tmp_path / str(is_deterministic), config), config)
    assert found == [True, False]


def test_clusterings_that_nobody_may_write_to_are_kept_without_a_warning() -> None:
    """In a group they lie in Ray's object store, of which numpy gets views for reading alone."""
    vectors, centroids, ids = np.ones((4, 2), np.float32), np.ones((1, 2), np.float32), np.zeros(4, np.int32)
    for each in (vectors, centroids, ids):
        each.flags.writeable = False
    first = FirstClustering(vectors, (Clustering(centroids, ids, 0.0),), seconds=1.0)
    always = torch.is_warn_always_enabled()
    torch.set_warn_always(True)  # else once in a process
    try:
        tree = as_tree({Wanted((1,), False, ""): first})
    finally:
        torch.set_warn_always(always)
    assert tree["vectors"].tolist() == vectors.tolist()


def test_all_numbers_of_clusters_go_through_one_pass_and_come_out_as_alone(
    tiny_config: MakeConfig, tmp_path: Path
) -> None:
    configs = [tiny_config(clusters={"num_clusters": k}) for k in (9, 3, 5)]
    trunk = trunk_of(tmp_path, *configs)
    grow(trunk, configs[0])
    assert Counted.calls == [(3, 5, 9)]
    for config in configs:
        found = trunk.first_clustering(config)
        assert found is not None
        assert found.stability is None, "the labels tell more"
        seed = derive_seed(0, "kmeans", epoch=STEPS_PER_EPOCH) % 2**32
        k = config.clusters.counts
        (alone,) = LocalKMeans(config.kmeans)(found.vectors, k, nested=False, seed=seed, initial=None).result()
        np.testing.assert_array_equal(found.clusterings[0].centroids, alone.centroids)
        np.testing.assert_array_equal(found.clusterings[0].ids, alone.ids)
        assert found.clusterings[0].history == alone.history
    other = tiny_config(clusters={"num_clusters": 9}, kmeans={"num_iterations": 2})
    assert trunk.first_clustering(other) is None, "it would be another clustering"


@pytest.mark.parametrize(("has_prescreen", "calls"), [(True, 2), (False, 1)])
def test_images_without_labels_are_clustered_twice_for_a_prescreen_alone(
    tiny_config: MakeConfig, tmp_path: Path, has_prescreen: bool, calls: int
) -> None:
    def unlabelled(settings: DataConfig) -> Dataset:
        data = load_dataset(settings)
        data.train.labels[:] = -1
        return data

    config = tiny_config(sweep={"prescreen": has_prescreen})
    trunk = trunk_of(tmp_path, config)
    grow(trunk, config, load=unlabelled)
    assert len(Counted.calls) == calls
    found = trunk.first_clustering(config)
    assert found is not None
    assert (found.stability is not None) is has_prescreen


@pytest.mark.parametrize("kept", [0.5, 0])
@pytest.mark.parametrize(
    ("file", "message", "starts"),
    [
        (CHECKPOINT_FILE, "its epochs are trained again", False),
        (FIRST_FILE, "not the clusterings of a trunk", True),
    ],
)
def test_what_is_damaged_of_a_trunk_is_named_and_made_again(
    file: str, message: str, starts: bool, kept: float, tiny_config: MakeConfig, tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    """Without its checkpoint there is no trunk; without its clusterings each run clusters for itself."""
    config = tiny_config(train={"num_epochs": 2})
    trunk = trunk_of(tmp_path, config)
    grow(trunk, config)
    path = trunk.folder / file
    path.write_bytes(path.read_bytes()[: int(kept * path.stat().st_size)])
    (tmp_path / "first").mkdir()
    assert trunk.start(tmp_path / "first") is starts
    assert any((tmp_path / "first").iterdir()) is starts
    assert trunk.is_ready is starts
    assert trunk.first_clustering(config) is None
    assert str(path) in caplog.text
    assert message in caplog.text
    grow(trunk, config)
    assert train(config, tmp_path / "second", trunk) == train(config, tmp_path / "alone")


def test_a_trunk_that_was_interrupted_goes_on_where_it_stood(tiny_config: MakeConfig, tmp_path: Path) -> None:
    config = tiny_config(recluster={"warmup_epochs": 2}, train={"checkpoint_every_epochs": 1})
    trunk = trunk_of(tmp_path, config)
    epochs: list[float] = []

    def train_in(own: Config, folder: Path, wanted: tuple[Wanted, ...]) -> None:
        def on_report(metrics: Metrics) -> None:
            epochs.append(metrics["epoch"])
            if len(epochs) == 1:
                raise KeyboardInterrupt

        train_in_process(own, load_dataset(own.data), folder, on_report, LocalKMeans(own.kmeans), wanted=wanted)

    with pytest.raises(KeyboardInterrupt):
        trunk.grow(config, "0000", train_in)
    assert not trunk.is_ready
    trunk.grow(config, "0000", train_in)
    assert epochs == [1, 2]
    assert [path.name for path in trunk.folder.parent.iterdir()] == ["key"]
    assert train(config, tmp_path / "shared", trunk) == train(config, tmp_path / "alone")


def test_a_run_with_files_of_its_own_keeps_them(tiny_config: MakeConfig, tmp_path: Path) -> None:
    config = tiny_config(train={"num_epochs": 2})
    trunk = trunk_of(tmp_path, config)
    grow(trunk, config)
    train(config, tmp_path / "run")
    before = (tmp_path / "run" / CHECKPOINT_FILE).read_bytes()
    assert not trunk.start(tmp_path / "run")
    assert (tmp_path / "run" / CHECKPOINT_FILE).read_bytes() == before
