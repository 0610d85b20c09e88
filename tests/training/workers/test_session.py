from pathlib import Path

from clray.training.workers.session import METRICS_FILE, append_metrics, read_metrics, truncate_metrics


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
