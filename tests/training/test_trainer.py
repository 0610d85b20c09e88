"""Whole runs in this process, with k-means shards in this process; no Ray."""

import io
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from clray.clusters.statistics import cluster_statistics
from clray.config import Config
from clray.data.images.decode import PixelRules
from clray.data.images.streamed import RowGroup, StreamedImages
from clray.data.load import load_dataset
from clray.data.samples import Dataset
from clray.errors import TrainingError, UserError
from clray.kmeans.lloyd import Clustering, Level, lloyd
from clray.kmeans.nested import coarsen, coarser_ids
from clray.kmeans.options import KMeansOptions
from clray.kmeans.shards.faiss_shard import FaissShard
from clray.kmeans.shards.together import LocalShards
from clray.kmeans.vectors.source import split_rows
from clray.training import state
from clray.training.accuracy import evaluate_checkpoint
from clray.training.checkpoint import read_checkpoint, write_checkpoint
from clray.training.checkpoint_form import Snapshot
from clray.training.metrics import Metrics, read_metrics
from clray.training.objectives.port import Objective, StepValue
from clray.training.recluster import Reclusterer
from clray.training.start import Start, prepare, start_clusters
from clray.training.trainer import run
from clray.training.workers.process import LocalSession

CPU = torch.device("cpu")
MakeConfig = Callable[..., Config]
TIMES = ("seconds", "per_second")


def cluster_here(
    vectors: np.ndarray,
    num_clusters: tuple[int, ...],
    *,
    nested: bool,
    seed: int,
    initial: list[np.ndarray] | None,
) -> "Done":
    shards = LocalShards([FaissShard(vectors[start:stop]) for start, stop in split_rows(len(vectors), 2)])
    options = KMeansOptions(num_iterations=4, seed=seed)
    if not nested:
        return Done(lloyd(shards, num_clusters, options, initial=initial))
    (finest,) = lloyd(shards, num_clusters[:1], options, initial=initial and initial[:1])
    level = Level(finest.centroids, finest.sizes, finest.inertia)
    coarser, parents = coarsen(level, num_clusters[1:], options, initial=initial and initial[1:])
    ids = coarser_ids(finest.ids, parents)
    return Done([finest, *(each.with_ids(own) for each, own in zip(coarser, ids, strict=True))])


@dataclass
class Done:
    """A clustering that is there at once, or only when it has been asked for `polls` times."""

    clusterings: list[Clustering]
    polls: int = 0

    def ready(self) -> bool:
        self.polls -= 1
        return self.polls < 0

    def result(self) -> list[Clustering]:
        return self.clusterings


class Interrupted(Exception):
    pass


def train(config: Config, data: Dataset, folder: Path, stop_after: int | None = None) -> list[Metrics]:
    def on_report(metrics: Metrics) -> None:
        if metrics["epoch"] == stop_after:
            raise Interrupted

    try:
        run(config, data, LocalSession(folder, cluster_here, on_report, CPU))
    except Interrupted:
        assert stop_after is not None
    return read_metrics(folder)


def without_times(metrics: list[Metrics]) -> list[Metrics]:
    return [{key: value for key, value in epoch.items() if not key.endswith(TIMES)} for epoch in metrics]


def test_a_run_learns_and_reports_every_epoch(tiny_config: MakeConfig, tmp_path: Path) -> None:
    config = tiny_config(train={"num_epochs": 6}, evaluate={"every_epochs": 3})
    metrics = train(config, load_dataset(config.data), tmp_path)
    assert [m["epoch"] for m in metrics] == [1, 2, 3, 4, 5, 6]
    assert ["eval/linear_accuracy" in m for m in metrics] == [False, False, True, False, False, True]
    assert ["recluster/inertia" in m for m in metrics] == [False, True, True, True, True, True]
    assert metrics[0]["clusters/num_clusters"] == 96
    assert metrics[-1]["clusters/num_clusters"] == 6


@pytest.mark.parametrize("name", ["cl-infonce", "pcl", "cluster-prediction"])
def test_clusters_are_saved_as_int32_and_those_of_older_checkpoints_are_read(
    tiny_config: MakeConfig, tmp_path: Path, name: str
) -> None:
    config = tiny_config(objective={"name": name}, train={"sampler": "cluster"}, recluster={"warmup_epochs": 0})
    data = load_dataset(config.data)
    whole = train(config, data, tmp_path / "whole")
    train(config, data, tmp_path / "cut", stop_after=2)
    checkpoint = read_checkpoint(tmp_path / "cut")
    assert (checkpoint["cluster_ids"].dtype, checkpoint["order_ids"].dtype) == (torch.int32, torch.int32)
    older = {key: checkpoint[key].long() for key in ("cluster_ids", "order_ids")}
    write_checkpoint(tmp_path / "cut", checkpoint | older)
    assert without_times(train(config, data, tmp_path / "cut")) == without_times(whole)
    assert read_checkpoint(tmp_path / "cut")["cluster_ids"].dtype == torch.int32


def test_training_lowers_the_loss_and_raises_the_accuracy(tiny_config: MakeConfig, tmp_path: Path) -> None:
    """Beside a run whose steps are next to nothing: an untrained network is no bad encoder of digits."""
    data = load_dataset(tiny_config(data={"max_train_images": 300, "max_test_images": 300}).data)
    last = {}
    for rate in (1e-9, 1e-2):
        settings = {"num_epochs": 20, "learning_rate": rate, "global_batch_size": 50}
        config = tiny_config(clusters={"source": "labels"}, train=settings)
        last[rate] = train(config, data, tmp_path / str(rate))[-1]
    assert last[1e-2]["train/loss"] < last[1e-9]["train/loss"] - 0.2
    assert last[1e-2]["eval/knn_accuracy"] > last[1e-9]["eval/knn_accuracy"] + 0.05


def test_the_learning_rate_has_fallen_to_zero_at_the_end(tiny_config: MakeConfig, tmp_path: Path) -> None:
    config = tiny_config(clusters={"source": "labels"}, train={"num_epochs": 3, "accumulate_batches": 2})
    train(config, load_dataset(config.data), tmp_path)
    (group,) = read_checkpoint(tmp_path)["optimizer"]["param_groups"]
    assert group["lr"] == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("stop_after", [1, 2, 4])
def test_stopped_and_resumed_equals_uninterrupted(tiny_config: MakeConfig, tmp_path: Path, stop_after: int) -> None:
    config = tiny_config(train={"num_epochs": 5, "checkpoint_every_epochs": 2})
    data = load_dataset(config.data)
    whole = train(config, data, tmp_path / "whole")
    train(config, data, tmp_path / "cut", stop_after=stop_after)
    resumed = train(config, data, tmp_path / "cut")
    assert without_times(resumed) == without_times(whole)
    kept, other = (read_checkpoint(tmp_path / name) for name in ("whole", "cut"))
    assert torch.equal(kept["cluster_ids"], other["cluster_ids"])
    for name, value in kept["model"].items():
        assert torch.equal(value, other["model"][name]), name


QUEUE = {"negatives": "queue", "queue_size": 40}
OBJECTIVES = {
    "infonce": {"objective": {"name": "infonce"}},
    "supcon": {"objective": {"name": "supcon"}, "train": {"sampler": "cluster"}},
    "granularities": {"clusters": {"granularities": [12, 6, 2]}},
    "pairs": {"objective": {"form": "pair-sampled"}},
    "dual head": {"objective": {"dual_head": True}},
    "the authors' dual head": {
        "objective": {"dual_head": True, "dual_head_clusters": "instance-head"},
        "head": {"num_layers": 3, "norm": "batch"},
        "train": {"learning_rate_warmup_fraction": 0.2},
    },
    "queue": {"objective": QUEUE},
    "pcl": {"objective": {"name": "pcl", "queue_size": 40}, "clusters": {"granularities": [4, 12]}},
    "cluster prediction": {"objective": {"name": "cluster-prediction"}, "recluster": {"warmup_epochs": 0}},
    "swav": {"objective": {"name": "swav", "num_prototypes": 12}},
    "supervised": {"objective": {"name": "supervised"}},
    "synthetic": {"clusters": {"source": "synthetic", "num_merged": 4, "permuted_fraction": 0.2}},
}


@pytest.mark.parametrize("name", OBJECTIVES)
def test_every_objective_trains_and_resumes(tiny_config: MakeConfig, tmp_path: Path, name: str) -> None:
    sections = {key: dict(values) for key, values in OBJECTIVES[name].items()}
    sections["train"] = {**sections.get("train", {}), "num_epochs": 5, "checkpoint_every_epochs": 1}
    config = tiny_config(**sections)
    data = load_dataset(config.data)
    prepare(config, data)
    whole = train(config, data, tmp_path / "whole")
    assert_every_weight_moved(config, data, tmp_path / "whole")
    train(config, data, tmp_path / "cut", stop_after=3)
    assert without_times(train(config, data, tmp_path / "cut")) == without_times(whole)
    evaluated = evaluate_checkpoint(read_checkpoint(tmp_path / "whole"), config, data)
    assert evaluated["eval/knn_accuracy"] == pytest.approx(whole[-1]["eval/knn_accuracy"])


def fresh_state(config: Config, data: Dataset) -> state.TrainState:
    return state.create_state(
        config,
        num_channels=data.num_channels,
        steps_per_epoch=3,
        start=Start(start_clusters(config, data)),
        device=CPU,
        shard=np.arange(len(data.train)),
    )


def assert_every_weight_moved(config: Config, data: Dataset, folder: Path) -> None:
    """By at least a step of the learning rate, in a checkpoint of some epochs with AdamW."""
    fresh = fresh_state(config, data)
    trained = read_checkpoint(folder)["model"]
    for name, before in fresh.model.named_parameters():
        assert (trained[name] - before).abs().mean() > config.train.learning_rate / 2, name


def test_the_cluster_sampler_yields_more_positives(tiny_config: MakeConfig, tmp_path: Path) -> None:
    data = load_dataset(tiny_config().data)
    counts = {}
    for sampler in ("uniform", "cluster"):
        config = tiny_config(clusters={"num_clusters": 30}, train={"sampler": sampler})
        counts[sampler] = train(config, data, tmp_path / sampler)[-1]["train/positives_per_anchor"]
    assert counts["cluster"] > 1.5 * counts["uniform"]


def test_nothing_can_be_predicted_of_one_cluster(tiny_config: MakeConfig) -> None:
    clusters = {"source": "synthetic", "num_merged": 1}
    config = tiny_config(objective={"name": "cluster-prediction"}, clusters=clusters)
    with pytest.raises(UserError, match="all 96 training images are in one cluster"):
        prepare(config, load_dataset(config.data))


def test_the_run_seed_decides_everything(tiny_config: MakeConfig, tmp_path: Path) -> None:
    data = load_dataset(tiny_config().data)
    first, again, other = (
        without_times(train(tiny_config(seed=seed), data, tmp_path / name))
        for seed, name in ((0, "a"), (0, "b"), (1, "c"))
    )
    assert first == again
    assert first != other


def test_reclusters_as_often_as_it_is_told(tiny_config: MakeConfig, tmp_path: Path) -> None:
    config = tiny_config(train={"num_epochs": 6}, recluster={"warmup_epochs": 2, "every_epochs": 3})
    metrics = train(config, load_dataset(config.data), tmp_path)
    assert [m["epoch"] for m in metrics if "recluster/inertia" in m] == [3, 6]
    assert [m["recluster/age_epochs"] for m in metrics][2:] == [0, 1, 2, 0]


def test_warm_started_clusters_keep_their_ids(tiny_config: MakeConfig, tmp_path: Path) -> None:
    data = load_dataset(tiny_config().data)
    moved = {}
    for warm_start in (True, False):
        config = tiny_config(
            train={"num_epochs": 16, "learning_rate": 1e-5},
            kmeans={"warm_start": warm_start},
            clusters={"num_clusters": 8},
            recluster={"embeddings": "pass"},
        )
        metrics = train(config, data, tmp_path / str(warm_start))
        moved[warm_start] = np.mean([m["recluster/moved_fraction"] for m in metrics[-5:]])
    assert moved[True] < 0.2 < moved[False]


def test_a_learning_rate_that_explodes_stops_with_the_place(tiny_config: MakeConfig, tmp_path: Path) -> None:
    config = tiny_config(train={"learning_rate": 1e30})
    with pytest.raises(TrainingError, match=r"the loss is nan in epoch 1, worker 0, step \d "):
        train(config, load_dataset(config.data), tmp_path)


def test_a_checkpoint_evaluates_to_what_the_run_reported(tiny_config: MakeConfig, tmp_path: Path) -> None:
    config = tiny_config()
    data = load_dataset(config.data)
    last = train(config, data, tmp_path)[-1]
    checkpoint = read_checkpoint(tmp_path)
    metrics = evaluate_checkpoint(checkpoint, config, data)
    for name in ("eval/linear_accuracy", "eval/knn_accuracy", "clusters/mutual_information_bits"):
        assert metrics[name] == pytest.approx(last[name])
    statistics = cluster_statistics(checkpoint["cluster_ids"][0].numpy(), data.train.labels, 6)
    assert metrics["clusters/conditional_entropy_bits"] == pytest.approx(statistics.conditional_entropy_bits)


def test_more_clusters_than_training_images_are_refused(tiny_config: MakeConfig) -> None:
    config = tiny_config(clusters={"num_clusters": 97})
    with pytest.raises(UserError, match=r"clusters\.num_clusters must be at most 96 .* got 97"):
        prepare(config, load_dataset(config.data))


def test_a_checkpoint_of_other_data_is_refused(tiny_config: MakeConfig, tmp_path: Path) -> None:
    config = tiny_config()
    train(config, load_dataset(config.data), tmp_path, stop_after=1)
    other = tiny_config(data={"max_train_images": 80})
    with pytest.raises(UserError, match="assigns 96 training images, the data hold 80"):
        train(other, load_dataset(other.data), tmp_path)


def test_mid_epoch_checkpoints_lose_no_step(tiny_config: MakeConfig, tmp_path: Path) -> None:
    config = tiny_config(
        train={"num_epochs": 4, "checkpoint_every_steps": 2, "checkpoint_every_epochs": 4, "sampler": "cluster"},
        recluster={"every_steps": 2},
    )
    data = load_dataset(config.data)
    whole = train(config, data, tmp_path / "whole")

    class Cut(LocalSession):
        def save(self, snapshot: Snapshot) -> None:
            super().save(snapshot)
            if (snapshot.whole()["epoch"], snapshot.whole()["step_in_epoch"]) == (2, 2):
                raise Interrupted

    with pytest.raises(Interrupted):
        run(config, data, Cut(tmp_path / "cut", cluster_here, lambda _: None, CPU))
    resumed = train(config, data, tmp_path / "cut")
    assert without_times(resumed) == without_times(whole)
    kept, other = (read_checkpoint(tmp_path / name) for name in ("whole", "cut"))
    for name, value in kept["model"].items():
        assert torch.equal(value, other["model"][name]), name
    assert torch.equal(kept["bank"]["vectors"], other["bank"]["vectors"])


@pytest.mark.parametrize("embeddings", ["bank", "pass"])
def test_async_clusters_are_taken_over_later_and_age(tiny_config: MakeConfig, tmp_path: Path, embeddings: str) -> None:
    config = tiny_config(train={"num_epochs": 6}, recluster={"mode": "async", "embeddings": embeddings})
    data = load_dataset(config.data)

    def late(*args: object, **kwargs: object) -> Done:
        return replace(cluster_here(*args, **kwargs), polls=5)

    run(config, data, LocalSession(tmp_path, late, lambda _: None, CPU))
    metrics = read_metrics(tmp_path)
    assert [m["clusters/num_clusters"] for m in metrics] == [96, 6, 6, 6, 6, 6]
    # Three steps an epoch: a clustering asked for at the start of one is there in the next.
    assert max(m["recluster/age_epochs"] for m in metrics) > 0
    assert sum("recluster/inertia" in m for m in metrics) >= 3


def test_the_bank_clusters_without_a_pass_over_the_images(
    tiny_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny_config(train={"num_epochs": 3})
    passed: list[int] = []
    embed = Reclusterer._embed
    monkeypatch.setattr(Reclusterer, "_embed", lambda self, rows: passed.append(len(rows)) or embed(self, rows))
    train(config, load_dataset(config.data), tmp_path)
    assert sum(passed) < 96


class SumOfWeights(Objective):
    """A loss whose gradient is 1 for every weight, whatever the batch."""

    def __call__(self, model: torch.nn.Module, views: torch.Tensor, *_: torch.Tensor) -> StepValue:
        loss = sum(parameter.sum() for parameter in model.parameters())
        return StepValue(loss, loss.new_zeros(()), views.new_zeros(views.shape[1], 8))


@pytest.mark.parametrize(("accumulate", "num_steps"), [(1, 3), (2, 2), (3, 1), (5, 1)])
def test_accumulated_batches_make_one_step_by_their_mean_however_many_are_left(
    tiny_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, accumulate: int, num_steps: int
) -> None:
    """Three batches an epoch."""
    config = tiny_config(clusters={"source": "labels"}, train={"num_epochs": 2, "accumulate_batches": accumulate})
    gradients: list[float] = []
    step = torch.optim.AdamW.step

    def spy(self: torch.optim.AdamW, *arguments: object) -> object:
        gradients.append(self.param_groups[0]["params"][0].grad.mean().item())
        return step(self, *arguments)

    monkeypatch.setattr(torch.optim.AdamW, "step", spy)
    monkeypatch.setattr(state, "build_objective", SumOfWeights)
    train(config, load_dataset(config.data), tmp_path)
    assert gradients == pytest.approx([1.0] * 2 * num_steps)


@pytest.mark.parametrize("warm_start", [True, False])
def test_a_classifier_drawn_anew_forgets_its_moments(
    tiny_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, warm_start: bool
) -> None:
    config = tiny_config(
        objective={"name": "cluster-prediction"}, recluster={"warmup_epochs": 0}, kmeans={"warm_start": warm_start}
    )
    counts: list[tuple[float, float]] = []
    step = torch.optim.AdamW.step

    def spy(self: torch.optim.AdamW, *arguments: object) -> None:
        step(self, *arguments)
        first, *_, last = self.param_groups[0]["params"]
        counts.append((self.state[first]["step"].item(), self.state[last]["step"].item()))

    monkeypatch.setattr(torch.optim.AdamW, "step", spy)
    train(config, load_dataset(config.data), tmp_path)
    encoder, classifier = zip(*counts, strict=True)
    assert encoder == tuple(range(1, 10))
    assert classifier == (encoder if warm_start else (1, 2, 3) * 3)


@pytest.mark.parametrize("form", ["multi-positive", "pair-sampled"])
def test_every_image_of_an_epoch_counts_once_in_the_throughput(
    tiny_config: MakeConfig, tmp_path: Path, form: str
) -> None:
    config = tiny_config(objective={"form": form})
    (*_, last) = train(config, load_dataset(config.data), tmp_path)
    assert last["train/samples_per_second"] * last["train/seconds"] == pytest.approx(96)


def test_a_resumed_run_takes_decay_and_momentum_from_its_config(tiny_config: MakeConfig, tmp_path: Path) -> None:
    """As population-based training changes them; only moments and position are the checkpoint's."""
    settings = {"optimizer": "sgd", "num_epochs": 2, "checkpoint_every_epochs": 1}
    config = tiny_config(train=settings)
    data = load_dataset(config.data)
    train(config, data, tmp_path)
    changed = tiny_config(train={**settings, "weight_decay": 0.5, "momentum": 0.1, "learning_rate": 7.0})
    resumed = fresh_state(changed, data)
    resumed.load_checkpoint(read_checkpoint(tmp_path))
    (group,) = resumed.optimizer.param_groups
    assert (group["weight_decay"], group["momentum"], group["initial_lr"]) == (0.5, 0.1, 7.0)
    assert all(torch.any(each["momentum_buffer"] != 0) for each in resumed.optimizer.state.values())


def test_a_checkpoint_cut_in_half_is_left_for_the_one_before(
    tiny_config: MakeConfig, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = tiny_config(train={"num_epochs": 5})
    data = load_dataset(config.data)
    whole = train(config, data, tmp_path / "whole")
    train(config, data, tmp_path / "cut", stop_after=4)
    path = tmp_path / "cut" / "checkpoint.pt"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    resumed = train(config, data, tmp_path / "cut")
    assert without_times(resumed) == without_times(whole)
    assert "not a complete checkpoint" in caplog.text
    assert "resuming from" in caplog.text


def test_images_read_by_row_groups_train_and_resume_like_any_other(tiny_config: MakeConfig, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (60, 24, 24, 3), dtype=np.uint8)
    blobs = []
    for image in pixels:
        Image.fromarray(image).save(buffer := io.BytesIO(), "PNG")
        blobs.append({"bytes": buffer.getvalue() + bytes(30_000), "path": None})  # padding, to exceed the limit
    table = pa.table({"image": blobs, "label": [i % 3 for i in range(60)]})
    pq.write_table(table, tmp_path / "t.parquet", row_group_size=6, compression="none", use_dictionary=False)
    files = {"name": "parquet", "train_path": str(tmp_path / "t.parquet"), "image_size": 24}
    config = tiny_config(
        data={**files, "memory_limit_mib": 1, "shuffle_row_groups": 3},
        augmentation={"name": "simclr"},
        train={"num_epochs": 3, "global_batch_size": 8, "checkpoint_every_steps": 2},
    )
    data = load_dataset(config.data)
    assert isinstance(data.train.images, StreamedImages)
    prepare(config, data)
    whole = train(config, data, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run(config, data, LocalSession(tmp_path / "cut", cluster_here, lambda _: None, CPU, on_step=stop_at_step(8)))
    assert without_times(train(config, data, tmp_path / "cut")) == without_times(whole)


def stop_at_step(number: int) -> Callable[[int, int], None]:
    def on_step(step: int, _: int) -> None:
        if step == number:
            raise KeyboardInterrupt

    return on_step


@pytest.mark.parametrize(
    "change",
    [{"train": {"sampler": "cluster"}}, {"objective": {"form": "pair-sampled"}}, {"train": {"num_workers": 4}}],
)
def test_what_needs_images_from_anywhere_is_refused_for_streamed_data(tiny_config: MakeConfig, change: dict) -> None:
    config = tiny_config(**change, data={"image_size": 8})
    data = load_dataset(config.data)
    groups = tuple(RowGroup(Path("t.parquet"), i, start, 48, 1, "image") for i, start in enumerate((0, 48)))
    images = StreamedImages(groups, np.arange(96), PixelRules(8))
    with pytest.raises(UserError, match="row groups"):
        prepare(config, replace(data, train=replace(data.train, images=images)))


def test_a_vision_transformer_is_refused_images_of_another_size(tiny_config: MakeConfig) -> None:
    config = tiny_config(encoder={"name": "vit_s16", "image_size": 32})
    with pytest.raises(UserError, match=r"encoder\.image_size=32, but the images are 8x8 pixels; set data\.image_size"):
        prepare(config, load_dataset(config.data))
