"""What is known of every image is held once a node: a run reads what its session shares, and keeps no copy."""

import logging
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import ray
import torch

from clray.config import Config
from clray.data.load import load_dataset
from clray.data.loaders import shard_indices
from clray.data.transfer import view as to_view
from clray.kmeans.refresh import LocalKMeans
from clray.training import recluster
from clray.training.checkpoint_form import Snapshot
from clray.training.recluster import _of_all_workers
from clray.training.start import Start, start_clusters
from clray.training.trainer import _Run
from clray.training.workers import shared
from clray.training.workers.process import LocalSession
from clray.training.workers.shared import share_on_nodes
from tests.training.own_objectives import mapping_of

MakeConfig = Callable[..., Config]


class Sharing(LocalSession):
    """Shares read-only arrays, as the object store does."""

    def share(self, make: Callable[[], np.ndarray]) -> np.ndarray:
        values = make().copy()
        values.flags.writeable = False
        given.append(values)
        return values


class Interrupted(Exception):
    pass


class Cut(Sharing):
    def save(self, snapshot: Snapshot) -> None:
        super().save(snapshot)
        self.close()
        raise Interrupted


given: list[np.ndarray] = []


def is_given(values: Any) -> bool:
    return any(np.shares_memory(np.asarray(values), each) for each in given)


@pytest.mark.parametrize("clusters", [{}, {"granularities": [6, 3]}, {"confidence": 0.5, "confidence_by": "random"}])
def test_a_run_holds_no_copy_of_what_its_session_shares(
    clusters: dict, tiny_config: MakeConfig, tmp_path: Path
) -> None:
    config = tiny_config(
        clusters=clusters,
        recluster={"warmup_epochs": 0},
        train={"num_epochs": 2, "checkpoint_every_steps": 1, "sampler": "cluster"},
    )
    data, cluster = load_dataset(config.data), LocalKMeans(config.kmeans)

    def run_of(session: type[LocalSession]) -> _Run:
        place = session(tmp_path, cluster, lambda _: None, torch.device("cpu"))
        return _Run(config, data, place, Start(start_clusters(config, data)))

    with pytest.raises(Interrupted):
        run_of(Cut).train_until(1)
    resumed = run_of(Sharing)
    for num_epochs in (0, 2):  # as it is read from the checkpoint, and as it is clustered anew
        resumed.train_until(num_epochs)
        state = resumed.state
        held = [*(each.ids for each in state.assignments), resumed.cluster_ids, state.order_ids]
        held += [] if state.confident is None else [state.confident]
        assert all(map(is_given, held))
        given.clear()


def test_a_worker_that_hangs_is_not_waited_for_in_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray's broadcast has no limit; the group's own collectives have train.timeout_seconds."""

    def timed_out(flag: bool, _: Any) -> bool:
        assert flag, "rank 0 alone can say that there is no room"
        raise RuntimeError("Timed out waiting for recv")

    monkeypatch.setattr(shared, "agree", timed_out)
    monkeypatch.setattr("ray.train.collective.broadcast_from_rank_zero", lambda _: pytest.fail("waits for ever"))
    session: Any = SimpleNamespace(rank=1, world_size=2)
    with pytest.raises(RuntimeError, match="Timed out"):
        share_on_nodes(lambda: pytest.fail("rank 0 makes it"), session, frozenset())


def test_what_is_known_of_all_images_meets_on_the_host(
    tiny_config: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A device that holds nothing stands for a GPU that the model fills."""
    data = load_dataset(tiny_config().data).train
    own = shard_indices(data, 2)
    monkeypatch.setattr(recluster, "rows_on_leader", lambda rows, counts: [rows[:count] for count in counts])
    session: Any = SimpleNamespace(rank=0, world_size=2, device=torch.device("meta"), share=lambda make: make())
    values = np.arange(max(map(len, own)), dtype=np.int32)
    values.flags.writeable = False
    found = _of_all_workers(values, data, session)
    for each in own:
        np.testing.assert_array_equal(found[each], values[: len(each)])


@pytest.mark.slow
def test_what_rank_0_makes_lies_in_the_object_store_where_that_has_room(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False, object_store_memory=80 * 1024**2)
    monkeypatch.setattr("ray.train.collective.broadcast_from_rank_zero", lambda data: data)
    session = LocalSession(tmp_path, None, lambda _: None, torch.device("cpu"))
    here = frozenset([ray.get_runtime_context().get_node_id()])
    ids = np.arange(1_000_000, dtype=np.int32)
    view = share_on_nodes(lambda: ids, session, here)
    assert not view.flags.writeable
    assert np.array_equal(view, ids)
    assert not np.shares_memory(view, ids)
    assert "do not fit" not in caplog.text
    with caplog.at_level(logging.WARNING):
        many = np.zeros(11 * 1024**2, np.int32)  # 44 MiB: two of them do not fit
        assert share_on_nodes(lambda: many, session, here) is many
    assert "do not fit into the smallest object store" in caplog.text
    ray.put(np.full(15 * 1024**2, -1, np.int32))  # takes what is free
    assert np.array_equal(view, ids), "it stays, though its reference is gone"
    assert "plasma" in mapping_of(to_view(view))
