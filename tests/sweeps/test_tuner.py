"""How many trials a cluster has room for. Its GPUs are Ray's count of them, which is all that scheduling looks at."""

import logging
from collections.abc import Callable, Iterator

import pytest
import ray

from clray.config import Config
from clray.config.sections import KMeansConfig
from clray.data.load import load_dataset
from clray.errors import UserError
from clray.kmeans.shards.actors import require_gpus
from clray.ray_runtime.held_gpu import hold_gpu
from clray.sweeps.search_space import plan_sweep
from clray.sweeps.tuner import out_of_memory, start_for_sweep

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    ray.init("local", num_cpus=8, num_gpus=2, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


SPACE = [{"objective.temperature": {"grid_search": [0.1, 0.5]}}]


def room(config: Config) -> int:
    return start_for_sweep(config, plan_sweep(config).samples, load_dataset(config.data), verbose=False)


@pytest.mark.parametrize(
    ("train", "kmeans", "expected"),
    [
        ({}, {}, 2),
        ({}, {"num_shards": 1, "gpus_per_shard": 1}, 1),
        ({"num_workers": 2}, {}, 1),
        ({"gpus_per_worker": 1}, {}, 2),
        ({"gpus_per_worker": 0.25}, {}, 8),
        ({"gpus_per_worker": 0.25}, {"num_shards": 1, "gpus_per_shard": 1}, 4),
        ({"gpus_per_worker": 1, "num_workers": 2}, {}, 1),
        ({"gpus_per_worker": 0, "cpus_per_worker": 2}, {"num_shards": 1, "cpus_per_shard": 1}, 3),
    ],
)
def test_gpus_and_their_fractions_bound_how_many_trials_run_at_once(
    tiny_config: Callable[..., Config], train: dict, kmeans: dict, expected: int
) -> None:
    assert room(tiny_config(search_space=SPACE, train=train, kmeans=kmeans)) == expected


def test_more_gpus_than_the_cluster_has_are_refused(tiny_config: Callable[..., Config]) -> None:
    refusal = "needs 4 workers of 0.5 CPUs and 1 GPU beside 2 k-means shards of 0.1 CPUs.*: 1 node of 8 CPUs and 2 GPUs"
    train, kmeans = {"gpus_per_worker": 1, "num_workers": 4}, {"backend": "faiss"}
    with pytest.raises(UserError, match=refusal):
        room(tiny_config(search_space=SPACE, train=train, kmeans=kmeans))


def test_workers_with_gpus_of_their_own_need_no_shards_beside_them(tiny_config: Callable[..., Config]) -> None:
    with pytest.raises(UserError, match=r"needs 4 workers of 0\.5 CPUs and 1 GPU, and does not fit"):
        room(tiny_config(search_space=SPACE, train={"gpus_per_worker": 1, "num_workers": 4}))


def test_gpus_that_nobody_asks_for_are_warned_of(
    tiny_config: Callable[..., Config], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        room(tiny_config(search_space=SPACE, train={"gpus_per_worker": 0}))
        assert "has 2 GPUs, and each run trains on the CPU by 1; set train.gpus_per_worker=1" in caplog.text
        caplog.clear()
        room(tiny_config(search_space=SPACE, train={"gpus_per_worker": 0.5}))
    assert caplog.text == ""


def test_a_run_in_this_process_holds_the_gpu_that_ray_assigns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    first, second = hold_gpu(0.5), hold_gpu(1.0)
    assert {first.index, second.index} == {0, 1}
    with pytest.raises(UserError, match="no GPU of this node is free for it"):
        hold_gpu(1.0, wait_seconds=1.0)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7")
    assert hold_gpu(1.0, wait_seconds=1.0).index == 0, "a job with a GPU of its own"
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    freed = second.index
    del second
    assert hold_gpu(1.0).index == freed


@pytest.mark.long
def test_shards_on_a_node_with_gpus_that_nothing_can_use_are_refused() -> None:
    with pytest.raises(UserError, match=r"gpus_per_shard=1: neither torch nor FAISS sees a GPU"):
        require_gpus(KMeansConfig(gpus_per_shard=1))


def test_trials_that_ray_killed_for_their_memory_are_told_in_a_sentence_with_a_way_out() -> None:
    told = (
        "2 worker(s) were killed due to the node running low on memory. Memory on the node was 22GB used / 23GB limit"
    )
    message = str(out_of_memory(ray.exceptions.OutOfMemoryError(f"{told}\nObject store memory usage: [- bytes: 6018]")))
    assert message.startswith(told)
    assert "sweep.max_concurrent_trials" in message
    assert "6018" not in message
