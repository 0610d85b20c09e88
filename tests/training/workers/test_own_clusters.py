"""Who clusters a run's embeddings: its own workers where they train, or the shards."""

from collections.abc import Callable
from pathlib import Path

import pytest

from clray.config import Config
from clray.data.load import load_dataset
from clray.kmeans.in_training import TrainingKMeans
from clray.training.metrics import read_metrics
from clray.training.workers import launch as launching
from clray.training.workers.launch import launch
from clray.training.workers.resources import needs_ray, needs_shards

MakeConfig = Callable[..., Config]


@pytest.mark.parametrize(
    ("sections", "expected"),
    [
        ({}, True),
        ({"train": {"gpus_per_worker": 1}}, False),
        ({"train": {"gpus_per_worker": 0.5}}, False),
        ({"train": {"gpus_per_worker": 1}, "kmeans": {"backend": "faiss"}}, True),
        ({"train": {"gpus_per_worker": 1}, "kmeans": {"gpus_per_shard": 1}}, True),
        ({"train": {"gpus_per_worker": 1}, "kmeans": {"node_labels": {"pool": "cpu"}}}, True),
        ({"train": {"gpus_per_worker": 1}, "recluster": {"mode": "async"}}, True),
        ({"kmeans": {"backend": "torch"}}, False),
        ({"clusters": {"source": "labels"}}, False),
    ],
)
def test_workers_search_what_lies_on_their_own_gpus(sections: dict, expected: bool, tiny_config: MakeConfig) -> None:
    config = tiny_config(**{"train": {"gpus_per_worker": 0}} | sections)
    assert needs_shards(config) is needs_ray(config) is expected


@pytest.mark.parametrize("objective", ["cl-infonce", "pcl"])
@pytest.mark.parametrize("embeddings", ["bank", "pass"])
def test_a_run_that_clusters_where_it_trains_learns_what_one_with_faiss_does(
    objective: str, embeddings: str, tiny_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[type] = []
    call = TrainingKMeans.__call__

    def watched(self: TrainingKMeans, vectors: object, *args: object, **kwargs: object) -> object:
        given.append(type(vectors))
        return call(self, vectors, *args, **kwargs)

    monkeypatch.setattr(launching.TrainingKMeans, "__call__", watched)
    found = {}
    for backend in ("torch", "faiss"):
        config = tiny_config(
            kmeans={"backend": backend}, objective={"name": objective}, recluster={"embeddings": embeddings}
        )
        data = load_dataset(config.data)
        launch(config, data, tmp_path / backend, service=None, on_report=lambda _: None, debug=backend == "faiss")
        found[backend] = read_metrics(tmp_path / backend)
    assert [each.__name__ for each in given] == ["TensorRows" if embeddings == "bank" else "ndarray"] * 2
    # Until the second clustering: embeddings that barely differ yet part where one rounding does.
    for ours, theirs in zip(found["torch"][:2], found["faiss"][:2], strict=True):
        assert ours["train/loss"] == pytest.approx(theirs["train/loss"], rel=1e-5)
    inertia = [found[backend][1]["recluster/inertia"] for backend in ("torch", "faiss")]
    assert inertia[0] == pytest.approx(inertia[1], rel=1e-6)
    assert "recluster/inertia" in found["torch"][2]
