"""What a sweep leaves behind names the best candidate, whatever the references reach."""

import json
from collections.abc import Callable
from pathlib import Path
from unittest.mock import MagicMock

import pytest

from clray.config import Config, load_config
from clray.data.load import load_dataset
from clray.kmeans.refresh import LocalKMeans
from clray.report.roles import Role
from clray.sweeps.book import TrialBook
from clray.sweeps.search_space import plan_sweep
from clray.sweeps.summary import Conclusion, conclude
from clray.sweeps.trainable import UNTRAINED_FILE, read_untrained
from clray.sweeps.trials import TrialRecord, rank_records
from clray.training.workers.launch import train_in_process

SPACE = [
    {"clusters.num_clusters": {"grid_search": [2, 3]}},
    {"objective.name": {"grid_search": ["supcon", "infonce"]}},
]
Concluded = tuple[Conclusion, list[TrialRecord], MagicMock, Path]


@pytest.fixture
def concluded(tiny_config: Callable[..., Config], tmp_path: Path) -> Concluded:
    """A finished sweep of k-means at 50 and 60 %, SupCon at 95 % and InfoNCE at 40 %; nothing was trained."""
    config = tiny_config(search_space=SPACE, sweep={"metric": "eval/linear_accuracy"})
    records = TrialBook(config, plan_sweep(config), tmp_path).records
    for record, accuracy in zip(records, (0.5, 0.6, 0.95, 0.4), strict=True):
        record.state, record.mlflow = "finished", MagicMock()
        record.metrics = {
            "epoch": 3, "eval/linear_accuracy": accuracy, "eval/knn_accuracy": accuracy,
            "clusters/mutual_information_bits": accuracy, "clusters/conditional_entropy_bits": 1.0,
            "clusters/label_conditional_entropy_bits": 1.0, "clusters/num_clusters": 3.0,
        }  # fmt: skip
    (tmp_path / UNTRAINED_FILE).write_text('{"eval/linear_accuracy": 0.3}')
    parent, ranked = MagicMock(), rank_records(records, config)
    data = load_dataset(config.data)
    return conclude(config, ranked, data, tmp_path, MagicMock(), parent, {}), ranked, parent, tmp_path


def test_everything_that_names_a_best_trial_names_the_best_candidate(concluded: Concluded) -> None:
    found, ranked, parent, folder = concluded
    assert found.best is not None
    assert (found.best.point.name, found.best.role) == ("k=3", Role.CANDIDATE)
    assert load_config(folder / "best.yaml").clusters.num_clusters == 3
    assert (folder / "best.yaml").read_text().startswith("# The best clusters are k=3, 60.0 % linear accuracy")
    assert "The best clusters are k=3" in parent.set_headline.call_args.args[0]
    assert "I(Z;T)" in parent.set_headline.call_args.args[0]
    assert [record.point.name for record in ranked if record.mlflow.set_tags.called] == ["k=3"]
    assert json.loads((folder / "results.json").read_text())["answer"] == list(found.answer)


def test_a_sweep_is_not_lost_over_the_page_of_its_clusters(
    tiny_config: Callable[..., Config], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = tiny_config(search_space=SPACE, tracking={"pages": "best"}, sweep={"metric": "eval/linear_accuracy"})
    (record, *_) = TrialBook(config, plan_sweep(config), tmp_path).records
    record.state, record.mlflow, record.metrics = "finished", MagicMock(), {"eval/linear_accuracy": 0.5}
    data = load_dataset(config.data)
    found = conclude(config, [record], data, tmp_path, MagicMock(), MagicMock(), {})
    assert "could not draw the clusters" in caplog.text
    assert "clusters" not in found.places
    assert "clusters.html" not in found.places["report"].read_text()
    train_in_process(record.point.config, data, record.folder, lambda _: None, LocalKMeans(config.kmeans))
    found = conclude(config, [record], data, tmp_path, MagicMock(), MagicMock(), {})
    assert found.places["clusters"] == tmp_path / "clusters.html"
    assert 'href="clusters.html"' in found.places["report"].read_text()
    assert json.loads(found.places["results"].read_text())["best"] == record.folder.name


def test_the_store_holds_what_a_report_needs(concluded: Concluded) -> None:
    parent = concluded[2]
    tags = {key: value for call in parent.set_tags.call_args_list for key, value in call.kwargs.items()}
    assert (tags["num_test_images"], tags["metric"]) == ("48", "eval/linear_accuracy")
    parent.log_summary.assert_any_call({"untrained/eval/linear_accuracy": 0.3})


def test_the_floor_is_in_the_answer(concluded: Concluded) -> None:
    assert any(sentence.startswith("The untrained encoder reaches 30.0 %") for sentence in concluded[0].answer)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"eval/linear_accuracy": "high"}', "\x00"])
def test_a_damaged_record_of_the_untrained_encoder_counts_as_none(content: str, tmp_path: Path) -> None:
    (tmp_path / UNTRAINED_FILE).write_text(content)
    assert read_untrained(tmp_path) == {}
