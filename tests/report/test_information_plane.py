from pathlib import Path

import pytest
from PIL import Image

from clray.report.information_plane import Point, draw_information_plane


@pytest.mark.parametrize("count", [1, 4, 60])
def test_draws_a_picture_of_any_number_of_trials(tmp_path: Path, count: int) -> None:
    points = [Point(i / count, 1.0, 0.5 + i / 1000, f"k={i}", f"t={i % 3}", i + 2) for i in range(count)]
    path = draw_information_plane(
        points, tmp_path / "plane.png", label_entropy_bits=3.3, instance_entropy_bits=10.0, title="t", metric="accuracy"
    )
    with Image.open(path) as image:
        assert image.size[0] > 800
        assert len(set(image.convert("RGB").resize((80, 56)).getdata())) > 10
    assert [file.name for file in tmp_path.iterdir()] == ["plane.png"]
