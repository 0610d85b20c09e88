from pathlib import Path

import numpy as np
import pytest

from clray.errors import UserError
from clray.training.metrics import METRICS_FILE, append_metrics, is_best, last_metrics, read_metrics, truncate_metrics


def test_a_line_cut_short_by_a_kill_is_left_out(tmp_path: Path) -> None:
    for epoch in (1, 2):
        append_metrics(tmp_path, {"epoch": epoch})
    with (tmp_path / METRICS_FILE).open("a", encoding="utf-8") as file:
        file.write('{"epoch": 3, "train/lo')
    assert [metrics["epoch"] for metrics in read_metrics(tmp_path)] == [1, 2]


def test_epochs_after_the_checkpoint_are_dropped(tmp_path: Path) -> None:
    for epoch in (1, 2, 3):
        append_metrics(tmp_path, {"epoch": epoch})
    truncate_metrics(tmp_path, 1)
    append_metrics(tmp_path, {"epoch": 2})
    assert [metrics["epoch"] for metrics in read_metrics(tmp_path)] == [1, 2]


def test_a_line_that_was_cut_does_not_swallow_the_next(tmp_path: Path) -> None:
    append_metrics(tmp_path, {"epoch": 1})
    with (tmp_path / METRICS_FILE).open("a", encoding="utf-8") as file:
        file.write('{"epoch": 2, "train/lo')
    append_metrics(tmp_path, {"epoch": 2})
    assert [metrics["epoch"] for metrics in read_metrics(tmp_path)] == [1, 2]


def test_two_hundred_damaged_files_give_the_epochs_that_are_whole(tmp_path: Path) -> None:
    for epoch in range(1, 21):
        append_metrics(tmp_path, {"epoch": epoch, "train/loss": 1 / epoch, "eval/linear_accuracy": epoch / 100})
    whole, generator = (tmp_path / METRICS_FILE).read_bytes(), np.random.default_rng(0)
    for case in range(200):
        content = bytearray(whole)
        start = int(generator.integers(len(content)))
        if case % 2:
            content[start : start + int(generator.integers(1, 30))] = generator.bytes(int(generator.integers(30)))
        else:
            del content[start:]
        (tmp_path / METRICS_FILE).write_bytes(content)
        assert len(read_metrics(tmp_path)) >= content.count(b"\n") - 2
        append_metrics(tmp_path, {"epoch": 21, "eval/linear_accuracy": 0.9})
        assert is_best(tmp_path, "eval/linear_accuracy")
        truncate_metrics(tmp_path, 10)
        assert all(metrics["epoch"] <= 10 for metrics in read_metrics(tmp_path))


def test_the_best_epoch_is_that_of_the_metric_and_an_epoch_without_it_is_not(tmp_path: Path) -> None:
    """Measures below zero count as well as accuracies."""
    found = []
    for epoch, (linear, neighbours) in enumerate([(0.5, -3.0), (0.4, -2.0), (0.6, -2.5)]):
        append_metrics(tmp_path, {"epoch": epoch + 1, "eval/linear_accuracy": linear, "eval/other": neighbours})
        found.append((is_best(tmp_path, "eval/linear_accuracy"), is_best(tmp_path, "eval/other")))
    assert found == [(True, True), (False, True), (True, False)]
    append_metrics(tmp_path, {"epoch": 4})
    assert not is_best(tmp_path, "eval/linear_accuracy")


def test_a_run_that_is_over_and_has_lost_its_metrics_says_so(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"metrics\.jsonl: holds no epoch, .* restore the file, or remove"):
        last_metrics(tmp_path)
