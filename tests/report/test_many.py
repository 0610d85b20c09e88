"""Pages and pictures of sweeps with thousands of trials."""

import random
import re
import time
from pathlib import Path
from typing import Any

import pytest

from clray.report import png
from clray.report.charts import granularity_chart, plane_chart
from clray.report.correlation import correlations
from clray.report.figures import granularity, plane
from clray.report.many import MAX_MARKS, NUM_BANDS, bands
from clray.report.page import MAX_ROWS, write_page
from clray.report.png import draw_granularity, draw_plane
from clray.report.results import Sweep
from clray.report.summary import summarize
from tests.report.sweeps import trial

METRIC = "eval/linear_accuracy"


def drawn_sweep(count: int) -> Sweep:
    """Points as a random search draws them: no two share a temperature or, mostly, a number of clusters."""
    draw = random.Random(0)
    trials = []
    for number in range(count):
        place = {"information": draw.uniform(0, 3), "rest": draw.uniform(0, 5), "temperature": draw.uniform(0.05, 1)}
        trials.append(trial(f"point {number}", draw.random(), clusters=draw.randrange(2, 5000), **place))
    return Sweep("drawn", trials, num_images=10_000, num_test_images=1000)


@pytest.fixture(scope="module")
def sweep() -> Sweep:
    return drawn_sweep(3000)


def test_few_temperatures_keep_their_names_and_many_share_ranges() -> None:
    assert bands([0.5, None, 0.1, 0.5]) == {0.1: (0, "t=0.1"), 0.5: (1, "t=0.5"), None: (2, "")}
    found = bands(number / 100 for number in range(1, 101))
    assert {number for number, name in found.values() if name} == set(range(NUM_BANDS))
    assert (found[0.01], found[1.0]) == ((0, "t=0.01 to 0.17"), (5, "t=0.86 to 1"))


def test_more_trials_than_a_chart_can_hold_are_drawn_as_means(sweep: Sweep) -> None:
    found = plane([sweep], METRIC)
    assert len(found.groups) == NUM_BANDS
    assert len(found.marks) <= MAX_MARKS
    sizes = [int(size[1]) if (size := re.match(r"(\d+) trials, ", mark.trial)) else 1 for mark in found.marks]
    assert sum(sizes) == 3000
    for name, key in (("accuracy", METRIC), ("information", "clusters/mutual_information_bits")):
        mean = sum(getattr(mark, name) * size for mark, size in zip(found.marks, sizes, strict=True)) / 3000
        expected = sum(each.metrics[key] for each in sweep.trials) / 3000
        assert mean == pytest.approx(expected * (100 if name == "accuracy" else 1))
    best = max(sweep.trials, key=lambda each: each.metrics[METRIC])
    assert any(best.name in mark.trial for mark in found.marks)


def test_as_many_trials_as_a_chart_holds_are_drawn_one_by_one() -> None:
    sweep = drawn_sweep(500)
    assert {mark.trial for mark in plane([sweep], METRIC).marks} == {each.name for each in sweep.trials}


def test_points_at_close_numbers_of_clusters_are_one_mark_of_many(sweep: Sweep) -> None:
    (line,) = granularity([sweep], METRIC).lines
    assert len(line.marks) <= 40
    assert sum(int(mark.point.split()[0]) for mark in line.marks if mark.point.endswith(" points")) > 2900
    assert all(2 <= mark.num_clusters < 5000 for mark in line.marks)


def test_infonce_at_very_many_temperatures_is_one_level_the_best() -> None:
    draw = random.Random(1)
    trials = [
        trial(f"instance {number}", number / 100, source="instance", temperature=draw.uniform(0.05, 1))
        for number in range(60)
    ]
    (level,) = granularity([Sweep("references", trials)], METRIC).levels
    assert level.mean == pytest.approx(59)


def test_the_charts_of_very_many_trials_have_few_traces(sweep: Sweep) -> None:
    assert len(plane_chart(plane([sweep], METRIC))["series"]) <= NUM_BANDS
    assert len(granularity_chart(granularity([sweep], METRIC))["series"]) <= 5


def test_the_page_of_very_many_trials_is_small_and_soon_written(sweep: Sweep, tmp_path: Path) -> None:
    start = time.process_time()
    page = write_page([sweep], tmp_path / "page.html").read_text(encoding="utf-8")
    draw_plane(plane([sweep], METRIC), tmp_path / "plane.png", "drawn")
    assert time.process_time() - start < 10
    assert len(page) < 1e6
    assert page.count("<tr") <= MAX_ROWS + 2
    assert f"and {3000 - MAX_ROWS:,} more points, in the sweep's results.json" in page


def test_temperatures_of_fewer_points_than_a_correlation_takes_cost_nothing(sweep: Sweep) -> None:
    summaries = summarize(sweep.trials, METRIC)
    start = time.process_time()
    assert {each.among for each in correlations(summaries, METRIC)} == {"all points"}
    assert time.process_time() - start < 2


@pytest.mark.parametrize(
    ("num_lines", "num_names", "last"),
    [(100, NUM_BANDS, "kmeans, t=0.135 to kmeans, t=0.149"), (13, 5, "kmeans, t=0.062")],
)
def test_the_legend_of_very_many_lines_leaves_room_for_them(
    num_lines: int, num_names: int, last: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a grid of temperatures, each of which is a line."""
    drawn: list[Any] = []
    monkeypatch.setattr(png, "save_figure", lambda figure, path: drawn.append(figure) or path)
    trials = [
        trial(f"point {number} {clusters}", 0.5, clusters=clusters, temperature=0.05 + number / 1000)
        for number in range(num_lines)
        for clusters in (10, 100)
    ]
    found = granularity([Sweep("grid", trials)], METRIC)
    assert len(found.lines) == num_lines
    draw_granularity(found, tmp_path / "granularity.png")
    names = [text.get_text() for text in drawn[0].legends[0].get_texts()]
    assert len(names) == num_names
    assert names[0].startswith("kmeans, t=0.05 to kmeans, t=0.0")
    assert names[-1] == last
