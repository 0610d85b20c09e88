"""What a run asks for is compared with each node of the cluster, before anything waits for room."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import ray

from clray.config import Config
from clray.data.images.decode import PixelRules
from clray.data.images.encoded import EncodedImages
from clray.data.load import load_dataset
from clray.data.samples import Dataset
from clray.errors import UserError
from clray.ray_runtime import cluster
from clray.ray_runtime.room import Bundle
from clray.sweeps import tuner
from clray.sweeps.search_space import plan_sweep
from clray.training.workers import opening
from clray.training.workers.resources import worker_group

SPACE = [{"objective.temperature": {"grid_search": [0.1, 0.5]}}]


@pytest.fixture
def nodes(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Lets a cluster of such nodes answer in place of Ray's."""

    def answer(*resources: dict[str, float]) -> None:
        found = [
            {"NodeID": f"{number:056x}", "Alive": True, "Resources": each, "Labels": {"pool": f"p{number}"}}
            for number, each in enumerate(resources)
        ]
        total = {name: sum(each.get(name, 0.0) for each in resources) for name in ("CPU", "GPU")}
        monkeypatch.setattr(ray, "nodes", lambda: found)
        monkeypatch.setattr(ray, "cluster_resources", lambda: total)
        for module in (tuner, opening, cluster):
            monkeypatch.setattr(module, "start_ray", lambda **_: None)

    return answer


def sweep_room(config: Config, data: Dataset | None = None) -> int:
    return tuner.start_for_sweep(config, plan_sweep(config).samples, data or load_dataset(config.data), verbose=False)


def decoded_while_training(data: Dataset) -> Dataset:
    count = len(data.train)
    images = EncodedImages.of_files([f"{number}.png" for number in range(count)], PixelRules(8))
    return replace(data, train=replace(data.train, images=images))


@pytest.mark.parametrize("is_sweep", [True, False], ids=["sweep", "run"])
def test_a_worker_as_large_as_two_nodes_is_refused(
    tiny_config: Callable[..., Config], nodes: Callable[..., None], is_sweep: bool
) -> None:
    nodes({"CPU": 1.0, "GPU": 1.0}, {"CPU": 1.0, "GPU": 1.0})
    config = tiny_config(
        search_space=SPACE,
        clusters={"source": "instance"},
        kmeans={"backend": "faiss"},
        train={"cpus_per_worker": 2, "gpus_per_worker": 2},
    )
    groups = tiny_config(search_space=SPACE, clusters={"source": "instance"}, train={"num_workers": 4})
    refusal = "1 worker of 2 CPUs and 2 GPUs, and does not fit .*: 2 nodes of 1 CPU and 1 GPU. Lower train.num_workers"
    if is_sweep:
        with pytest.raises(UserError, match=f"a trial needs {refusal}"):
            sweep_room(config)
        assert sweep_room(groups) == 1, "four halves of a CPU on two nodes"
        return
    config = config.model_copy(update={"clusters": config.clusters.model_copy(update={"source": "kmeans"})})
    with pytest.raises(UserError, match=r"the run needs 1 worker of 2 CPUs and 2 GPUs beside 2 k-means shards of 0\.1"):
        opening.start_for_run(config, load_dataset(config.data))


def test_shards_on_every_node_that_a_worker_needs_whole_are_refused_unless_kept_apart(
    tiny_config: Callable[..., Config], nodes: Callable[..., None]
) -> None:
    nodes({"CPU": 8.0}, {"CPU": 8.0}, {"CPU": 1.0})
    train = {"cpus_per_worker": 8, "num_workers": 2}
    with pytest.raises(UserError, match=r"2 k-means shards of 0\.1 CPUs, which Ray spreads.*kmeans\.node_labels"):
        sweep_room(tiny_config(search_space=SPACE, train=train))
    assert sweep_room(tiny_config(search_space=SPACE, train=train, kmeans={"node_labels": {"pool": "p2"}})) == 1


def test_trials_of_other_shapes_each_need_room_of_their_own(
    tiny_config: Callable[..., Config], nodes: Callable[..., None]
) -> None:
    nodes({"CPU": 4.0}, {"CPU": 4.0})
    space = [
        {"train.num_workers": 2, "train.cpus_per_worker": 4},
        {"train.num_workers": 8, "train.cpus_per_worker": 1},
    ]
    assert sweep_room(tiny_config(search_space=space, clusters={"source": "instance"})) == 1
    space[1]["train.cpus_per_worker"] = 2
    with pytest.raises(UserError, match="a trial needs 8 workers of 2 CPUs"):
        sweep_room(tiny_config(search_space=space, clusters={"source": "instance"}))


def test_decoders_are_counted_where_images_are_decoded_while_training(
    tiny_config: Callable[..., Config], nodes: Callable[..., None]
) -> None:
    nodes({"CPU": 8.0})
    sections = {"clusters": {"source": "instance"}, "train": {"cpus_per_worker": 1}}
    config = tiny_config(search_space=SPACE, data={"num_decoders": 3}, **sections)
    held = load_dataset(config.data)
    decoded = decoded_while_training(held)
    assert sweep_room(config, held) == 8
    assert sweep_room(config, decoded) == 2
    assert worker_group(config, decoded).bundle == Bundle(4)
    more = tiny_config(search_space=SPACE, data={"num_decoders": 8}, **sections)
    with pytest.raises(UserError, match=r"1 worker of 9 CPUs.*data\.num_decoders"):
        sweep_room(more, decoded)


def test_the_process_of_a_trial_takes_no_cpu_from_the_workers_it_waits_for(
    tiny_config: Callable[..., Config], nodes: Callable[..., None]
) -> None:
    nodes({"CPU": 2.0})
    train = {"num_workers": 2, "cpus_per_worker": 1}
    config = tiny_config(search_space=SPACE, clusters={"source": "instance"}, train=train)
    data = load_dataset(config.data)
    assert sweep_room(config, data) == 1
    assert "CPU" not in tuner.trial_resources(plan_sweep(config).samples, data, 0.0)


def test_one_gpu_and_a_half_is_refused(tiny_config: Callable[..., Config], nodes: Callable[..., None]) -> None:
    nodes({"CPU": 8.0, "GPU": 4.0})
    with pytest.raises(UserError, match=r"1\.5 GPUs; Ray gives whole GPUs, or a fraction of one"):
        sweep_room(tiny_config(search_space=SPACE, train={"gpus_per_worker": 1.5}))


@pytest.mark.parametrize("is_sweep", [True, False], ids=["sweep", "run"])
def test_a_group_of_changing_size_needs_room_for_its_fewest_workers(
    tiny_config: Callable[..., Config], nodes: Callable[..., None], is_sweep: bool
) -> None:
    nodes({"CPU": 1.0}, {"CPU": 1.0})

    def start(**sections: dict) -> object:
        config = tiny_config(search_space=SPACE, **sections)
        return sweep_room(config) if is_sweep else opening.start_for_run(config, load_dataset(config.data))

    train = {"num_workers": [2, 8], "cpus_per_worker": 1, "gpus_per_worker": 0, "global_batch_size": 32}
    start(train=train, clusters={"source": "labels"})
    with pytest.raises(UserError, match="needs 3 workers of 1 CPU, and does not fit"):
        start(train=train | {"num_workers": [3, 8]}, clusters={"source": "labels"})
    with pytest.raises(UserError, match=r"needs 2 workers of 1 CPU.* does not fit"):
        start(train=train, kmeans={"backend": "faiss"})
    start(train=train, kmeans={"backend": "torch"})
    if is_sweep:  # a run would start them
        nodes(*({"CPU": 1.0} for _ in range(4)))
        start(train=train, kmeans={"backend": "faiss"})
