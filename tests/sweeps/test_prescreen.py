import json
import re
from collections.abc import Callable
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from clray.cli import advise
from clray.clusters.worth import Look
from clray.config import Config
from clray.data.load import load_dataset
from clray.data.samples import Dataset
from clray.errors import UserError
from clray.kmeans.refresh import LocalKMeans
from clray.sweeps import prescreen as module
from clray.sweeps.book import TrialBook
from clray.sweeps.check import check_points
from clray.sweeps.prescreen import PRESCREEN_FILE, Prescreen, prescreen, read_prescreen
from clray.sweeps.search_space import SweepPlan, plan_sweep
from clray.sweeps.trials import read_outcome, write_outcome
from clray.training.first_clusterings import Wanted
from clray.training.trunk import Trunk
from clray.training.workers.launch import train_in_process

MakeConfig = Callable[..., Config]
OF_K = {"clusters.num_clusters": {"grid_search": [4, 8, 40]}, "objective.temperature": {"grid_search": [0.1, 0.5]}}


def grow_here(growers: dict[Trunk, Config], data: Dataset, *_: object) -> None:
    """As the module does in processes of Ray."""

    def train(own: Config, folder: Path, wanted: tuple[Wanted, ...]) -> None:
        train_in_process(own, data, folder, lambda _: None, LocalKMeans(own.kmeans), wanted=wanted)

    for trunk, config in growers.items():
        trunk.grow(config, "prescreen", train)


def look(config: Config, folder: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Prescreen, SweepPlan]:
    monkeypatch.setattr(module, "_grow_all", grow_here)
    data, plan = load_dataset(config.data), plan_sweep(config)
    known, _ = check_points(plan.points, data)
    found = prescreen(config, plan, data, folder, clusters=known, service=None, num_gpus=0.0, num_at_once=1)
    return found, plan


def test_points_are_compared_within_their_temperature_and_over_their_seeds(
    tiny_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    space = [OF_K, {"clusters.source": {"grid_search": ["instance", "labels"]}}]
    config = tiny_config(search_space=space, sweep={"prescreen": True, "prescreen_keep": 0.4, "seeds": 2})
    found, plan = look(config, tmp_path, monkeypatch)
    assert [each.name for each in found.looks] == [f"k={k} t={t}" for t in (0.1, 0.5) for k in (4, 8, 40)]
    assert found.num_epochs == 4, "an epoch for each temperature and seed"
    for temperature in (0.1, 0.5):
        group = [each for each in found.looks if each.name.endswith(f"t={temperature}")]
        assert sum(each.reason is None for each in group) <= 2
        for each in group:
            assert each.reason is None or "t=" not in each.reason or f"t={temperature}" in each.reason
    book = TrialBook(config, plan, tmp_path)
    skipped = book.leave_out(found.left_out)
    assert {record.point.repeated_name for record in skipped} == set(found.left_out)
    assert all(record.state == "skipped" and record.reason for record in skipped)
    assert len(skipped) == 2 * len(found.left_out), "each seed of a point, and no reference"
    write_outcome(skipped[0])
    again = TrialBook(config, plan, tmp_path).records[skipped[0].point.index]
    read_outcome(again)
    assert (again.state, again.reason, again.is_open) == ("skipped", skipped[0].reason, False)


def test_what_was_seen_is_read_after_an_interruption_and_looked_at_again_where_it_is_damaged(
    tiny_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    config = tiny_config(search_space=OF_K, sweep={"prescreen": True})
    found, _ = look(config, tmp_path, monkeypatch)
    assert read_prescreen(tmp_path) == found
    monkeypatch.setattr(module, "find_trunks", lambda *_: pytest.fail("it was looked at again"))
    assert look(config, tmp_path, monkeypatch)[0] == found
    tree = json.loads((tmp_path / PRESCREEN_FILE).read_text(encoding="utf-8"))
    del tree["unseen"]  # as earlier versions kept it
    (tmp_path / PRESCREEN_FILE).write_text(json.dumps(tree), encoding="utf-8")
    assert look(config, tmp_path, monkeypatch)[0] == found
    monkeypatch.undo()
    (tmp_path / PRESCREEN_FILE).write_text('{"looks": [', encoding="utf-8")
    assert look(config, tmp_path, monkeypatch)[0] == found
    assert f"{tmp_path / PRESCREEN_FILE} is damaged" in caplog.text


def test_known_clusters_need_no_trunk(tiny_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree = tmp_path / "tree.yaml"
    tree.write_text("{all: {even: {'0': , '2': , '4': , '6': , '8': }, odd: {'1': , '3': , '5': , '7': , '9': }}}")
    space = {"clusters.level": {"grid_search": [0, 1, 2]}}
    config = tiny_config(
        clusters={"source": "hierarchy", "tree": str(tree)}, search_space=space, sweep={"prescreen": True}
    )
    found, _ = look(config, tmp_path, monkeypatch)
    assert found.num_epochs == 0
    # The lowest level is the labels, a reference; the root tells nothing.
    assert [each.name for each in found.looks] == ["level=0", "level=1"]
    assert found.looks[0].reason is not None
    assert found.looks[0].reason.startswith("empty of information: I(Z;T) above chance 0.000, below")
    assert found.looks[1].reason is None


def test_swav_has_no_clusters_to_look_at_and_is_trained(
    tiny_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every image its own cluster, as the config says, would be empty of information."""
    tree = tmp_path / "tree.yaml"
    tree.write_text("{all: {even: {'0': , '2': , '4': , '6': , '8': }, odd: {'1': , '3': , '5': , '7': , '9': }}}")
    space = [{"clusters.level": {"grid_search": [1]}}, {"objective.name": {"grid_search": ["swav"]}}]
    config = tiny_config(
        clusters={"source": "hierarchy", "tree": str(tree)}, search_space=space, sweep={"prescreen": True}
    )
    found, _ = look(config, tmp_path, monkeypatch)
    assert found.unseen == ("swav",)
    assert [each.name for each in found.looks] == ["level=1"]
    assert read_prescreen(tmp_path) == found
    text = StringIO()
    Console(file=text, width=120).print(advise._table(found))
    assert re.search(r"swav .*trained: no clusters before", text.getvalue())


def test_where_all_would_be_left_out_none_is_and_it_is_said(
    tiny_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def judge(looks: list[Look], **_: object) -> list[Look]:
        return [Look(each.name, each.figures, "empty of information") for each in looks]

    monkeypatch.setattr(module, "judge", judge)
    config = tiny_config(search_space={"clusters.num_clusters": {"grid_search": [4, 8]}}, sweep={"prescreen": True})
    found, _ = look(config, tmp_path, monkeypatch)
    assert not found.left_out
    assert found.sentence == (
        "all 2 candidates would be left out, and so none is: k=4 is empty of information"
    )  # fmt: skip


def test_without_labels_points_are_judged_by_stability_and_silhouette(
    tiny_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import clray.data.load

    def unlabelled(settings: object) -> Dataset:
        data = clray.data.load.load_dataset(settings)
        data.train.labels[:] = -1
        return data

    monkeypatch.setitem(globals(), "load_dataset", unlabelled)
    config = tiny_config(search_space={"clusters.num_clusters": {"grid_search": [4, 8]}}, sweep={"prescreen": True})
    found, _ = look(config, tmp_path, monkeypatch)
    for each in found.looks:
        assert {"clusters/first_stability", "clusters/first_silhouette"} <= each.figures.keys()
        assert "clusters/mutual_information_bits" not in each.figures
        assert np.isfinite(list(each.figures.values())).all()


@pytest.mark.parametrize(
    ("sweep", "words"),
    [
        ({"prescreen": True, "searcher": "optuna"}, "set sweep.searcher=grid or random"),
        ({"prescreen": True, "share_warmup": False}, "sweep.share_warmup=false shares none"),
        ({"prescreen_keep": 0.5}, "set sweep.prescreen=true"),
        ({"prescreen": True, "prescreen_keep": 0}, "prescreen_keep"),
    ],
)
def test_a_prescreen_that_cannot_be_is_refused(sweep: dict, words: str, tiny_config: MakeConfig) -> None:
    with pytest.raises(UserError, match=words):
        tiny_config(sweep=sweep)
