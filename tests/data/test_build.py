import csv
import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from clray.config.sections import DataConfig
from clray.data import build
from clray.data.build import MANIFEST_FILE, build_parquet
from clray.data.load import load_dataset
from clray.errors import UserError
from tests.data.readers.published.layouts import write_cub, write_imagenet, write_wider, write_zappos

WRITERS = {
    "zappos50k": write_zappos,
    "cub200": write_cub,
    "wider_attribute": write_wider,
    "imagenet100": write_imagenet,
}


def published(name: str, root: Path, **changes: object) -> DataConfig:
    WRITERS[name](root)
    classes = str(root / "classes.txt") if name == "imagenet100" else None
    return DataConfig(name=name, train_path=str(root), classes_path=classes, **changes)


def as_parquet(folder: Path) -> DataConfig:
    return DataConfig(name="parquet", train_path=str(folder / "train"), test_path=str(folder / "test"), image_size=8)


@pytest.mark.parametrize("name", WRITERS)
def test_what_is_built_reads_as_what_it_was_built_from(tmp_path: Path, name: str) -> None:
    config = published(name, tmp_path / "root", image_size=8, test_fraction=0.4)
    built = build_parquet(config.model_copy(update={"image_size": None}), tmp_path / "out")
    source, copy = load_dataset(config), load_dataset(as_parquet(tmp_path / "out"))
    assert (built.num_train, built.num_test, built.num_bad) == (len(source.train), len(source.test), 0)
    for first, second in ((source.train, copy.train), (source.test, copy.test)):
        np.testing.assert_array_equal(first.images.pixels, second.images.pixels)
        np.testing.assert_array_equal(first.labels, second.labels)
    assert source.names == copy.names
    for attribute, codes in source.train.columns.items():
        np.testing.assert_array_equal(codes, copy.train.columns[attribute])


def test_resized_images_are_written_small(tmp_path: Path) -> None:
    build_parquet(published("wider_attribute", tmp_path / "root", image_size=8), tmp_path / "out")
    data = load_dataset(as_parquet(tmp_path / "out").model_copy(update={"image_size": None}))
    assert data.train.images.pixels.shape == (3, 3, 8, 8)


def test_bad_images_are_left_out_and_listed_with_the_reason(tmp_path: Path) -> None:
    config = published("cub200", tmp_path / "root")
    bad = next((tmp_path / "root").glob("CUB_200_2011/images/001*/*.jpg"))
    bad.write_text("<html>404</html>")
    built = build_parquet(config, tmp_path / "out")
    assert (built.num_train + built.num_test, built.num_bad) == (5, 1)
    with (tmp_path / "out" / "bad_images.csv").open() as file:
        ((split, image, reason),) = list(csv.reader(file))[1:]
    assert (split, image) == ("train", str(bad))
    assert "cannot identify the image" in reason


def test_a_build_goes_on_where_it_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "ROWS_PER_FILE", 2)
    config = published("cub200", tmp_path / "root")
    write_part, calls = build._write_part, []

    def stop_at_the_third(*arguments: object, **named: object) -> None:
        calls.append(arguments)
        if len(calls) == 3:
            raise KeyboardInterrupt
        write_part(*arguments, **named)

    monkeypatch.setattr(build, "_write_part", stop_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        build_parquet(config, tmp_path / "out")
    first = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.parquet")}
    assert len(first) == 2
    built = build_parquet(config, tmp_path / "out")
    assert (built.num_train, built.num_test, built.num_files_kept) == (4, 2, 2)
    assert {path: path.stat().st_mtime_ns for path in first} == first
    assert build_parquet(config, tmp_path / "out").num_files_kept == 3
    assert sum(pq.read_metadata(path).num_rows for path in (tmp_path / "out").rglob("*.parquet")) == 6


def test_a_folder_with_other_things_is_left_alone(tmp_path: Path) -> None:
    config = published("cub200", tmp_path / "root")
    with pytest.raises(UserError, match="exists and holds no clray build"):
        build_parquet(config, tmp_path / "root")
    build_parquet(config, tmp_path / "out")
    with pytest.raises(UserError, match="holds a build of other data or settings"):
        build_parquet(config.model_copy(update={"min_certainty": 3}), tmp_path / "out")


def test_arrays_are_written_without_loss(tmp_path: Path) -> None:
    source = DataConfig(name="digits")
    build_parquet(source, tmp_path / "out")
    data, copy = load_dataset(source), load_dataset(as_parquet(tmp_path / "out"))
    np.testing.assert_array_equal(np.repeat(data.train.images.pixels, 3, axis=1), copy.train.images.pixels)


def test_a_build_from_before_a_key_existed_is_continued(tmp_path: Path) -> None:
    config = published("cub200", tmp_path / "root")
    built = build_parquet(config, tmp_path / "out")
    manifest = tmp_path / "out" / MANIFEST_FILE
    made_from = json.loads(manifest.read_text())
    settings = json.loads(made_from["settings"])
    del settings["background"]
    manifest.write_text(json.dumps({**made_from, "settings": json.dumps(settings)}))
    assert build_parquet(config, tmp_path / "out").num_files_kept > built.num_files_kept == 0
    with pytest.raises(UserError, match="holds a build of other data or settings"):
        build_parquet(config.model_copy(update={"background": "black"}), tmp_path / "out")
