"""Pages and pictures draw the same figures: a page is compared with them, a picture is looked at."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from clray.report.charts import granularity_chart, plane_chart
from clray.report.figures import granularity, plane
from clray.report.png import draw_granularity, draw_plane
from clray.report.results import Sweep
from tests.report.sweeps import digits, trial

METRIC = "eval/linear_accuracy"
STRANGE = r"$\frac{1}{0}$ <b>x</b>"


@pytest.mark.parametrize("count", [0, 1, 4, 60])
def test_draws_a_picture_of_any_number_of_trials(tmp_path: Path, count: int) -> None:
    trials = [
        trial(f"k={i}", 0.5 + i / 1000, information=i / count, clusters=i + 2, temperature=0.1 * (1 + i % 3))
        for i in range(count)
    ]
    sweep = Sweep("s", trials, num_images=1024)
    written = [
        draw_plane(plane([sweep], METRIC), tmp_path / "plane.png", "title"),
        draw_granularity(granularity([sweep], METRIC), tmp_path / "granularity.png"),
    ]
    for path in written:
        with Image.open(path) as image:
            assert image.size[0] > 800
            assert (
                count == 0
                or len(np.unique(np.asarray(image.convert("RGB").resize((80, 56))).reshape(-1, 3), axis=0)) > 10
            )
    assert sorted(file.name for file in tmp_path.iterdir()) == ["granularity.png", "plane.png"]


def test_a_name_that_is_a_formula_or_markup_is_drawn_as_it_stands(tmp_path: Path) -> None:
    sweep = Sweep(STRANGE, [trial(STRANGE, 0.5), trial("k=$5", 0.6, clusters=5, **{"data.label": STRANGE})])
    draw_plane(plane([sweep], METRIC), tmp_path / "plane.png", STRANGE)
    draw_granularity(granularity([sweep], METRIC), tmp_path / "granularity.png")


def test_the_page_draws_the_same_lines_and_levels() -> None:
    found = granularity([digits()], METRIC)
    chart = granularity_chart(found)
    drawn = {each["name"]: [(x, y) for x, y, *_ in each["points"]] for each in chart["series"]}
    assert drawn == {line.name: [(m.num_clusters, m.mean) for m in line.marks] for line in found.lines}
    assert [each["y"] for each in chart["levels"]] == [level.mean for level in found.levels]


def test_the_page_draws_the_same_plane() -> None:
    found = plane([digits()], METRIC)
    drawn = [(x, y) for each in plane_chart(found)["series"] for x, y, *_ in each["points"]]
    assert sorted(drawn) == sorted((mark.information, mark.rest) for mark in found.marks)
