from pathlib import Path

import pandas as pd
import pytest

from clray.config.sections import DataConfig
from clray.data.check import check_data
from clray.data.load import load_dataset
from tests.conftest import png
from tests.data.readers.published.layouts import write_cub, write_imagenet, write_wider, write_zappos


@pytest.mark.parametrize(
    ("name", "write", "counts"),
    [
        ("zappos50k", write_zappos, {"images": 5, "classes": 3, "attributes": 4}),
        ("cub200", write_cub, {"images": 6, "training images": 4, "classes": 3, "attributes": 3}),
        ("wider_attribute", write_wider, {"images": 5, "training images": 3, "classes": 2, "attributes": 3}),
        ("imagenet100", write_imagenet, {"images": 9, "test images": 3, "classes": 3, "attributes": 0}),
    ],
)
def test_what_is_found_stands_beside_what_was_published(
    tmp_path: Path, name: str, write: object, counts: dict[str, int]
) -> None:
    root = write(tmp_path)
    classes = str(root / "classes.txt") if name == "imagenet100" else None
    report = check_data(DataConfig(name=name, train_path=str(root), classes_path=classes))
    found = {each.name: each.found for each in report.findings}
    assert counts.items() <= found.items()
    assert report.num_bad == 0
    # The fixtures are smaller than the published sets; of a list of the user's own nothing is published.
    assert report.is_whole == (classes is not None)
    assert (report.obtained is None) == report.is_whole


def test_every_image_is_decoded_and_bad_ones_are_named(tmp_path: Path) -> None:
    root = write_cub(tmp_path)
    files = sorted((root / "CUB_200_2011" / "images").glob("*/*.jpg"))
    files[0].write_bytes(files[0].read_bytes()[:40])
    files[1].unlink()
    seen: list[tuple[int, int]] = []
    config = DataConfig(name="cub200", train_path=str(root))
    report = check_data(config, on_image=lambda done, total: seen.append((done, total)))
    assert report.num_bad == 2
    assert {str(file) in " ".join(report.problems) for file in files[:2]} == {True}
    assert seen[-1] == (6, 6)


def test_lone_classes_and_classes_only_tested_are_noted(tmp_path: Path) -> None:
    for split, labels in (("train", [0, 0, 1, 2, 2]), ("test", [0, 3])):
        names = [f"{split}{i}.png" for i in range(len(labels))]
        for i, name in enumerate(names):
            (tmp_path / name).write_bytes(png(i))
        frame = pd.DataFrame({"path": names, "class": labels, "colour": ["red", None, *["blue"] * (len(labels) - 2)]})
        frame.to_csv(tmp_path / f"{split}.csv", index=False)
    paths = {f"{split}_path": str(tmp_path / f"{split}.csv") for split in ("train", "test")}
    report = check_data(DataConfig(name="csv", **paths))
    assert report.is_whole
    assert report.notes == (
        "1 of 4 classes have test images only; the first: 3",
        "1 of 4 classes have a single training image; the first: 1",
        "1 attributes are missing for some images, most often colour (1); a missing value is a value of its own",
    )


def test_a_file_that_a_table_names_and_that_is_not_there_is_a_bad_image(tmp_path: Path) -> None:
    for i in range(4):
        (tmp_path / f"{i}.png").write_bytes(png(i))
    frame = pd.DataFrame({"path": [f"{i}.png" for i in range(6)], "class": [0, 1] * 3})
    frame.to_csv(tmp_path / "t.csv", index=False)
    report = check_data(DataConfig(name="csv", train_path=str(tmp_path / "t.csv")))
    assert (report.num_bad, report.is_whole, report.notes) == (2, False, ())
    data = load_dataset(DataConfig(name="csv", train_path=str(tmp_path / "t.csv"), on_bad_image="skip"))
    assert len(data.skipped) == 2
