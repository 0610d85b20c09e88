"""A first config that is guessed from images runs as it stands, whatever lies there and however it is called."""

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

import clray
from clray.cli.app import app
from clray.config import Config, load_config
from clray.data.first_config import write_first_config
from clray.data.guess import guess
from clray.data.load import load_dataset
from clray.data.validation import with_validation
from clray.errors import UserError
from clray.sweeps.search_space import plan_sweep
from clray.training.start import prepare
from tests.conftest import REPOSITORY, png


def write_folder(root: Path, *, classes: tuple[str, ...] = ("a", "b", "c"), each: int = 8, size: int = 16) -> Path:
    for name in classes:
        (root / name).mkdir(parents=True)
        for i in range(each):
            (root / name / f"{i}.png").write_bytes(png(i, size))
    return root


def write_csv(folder: Path, *, num_rows: int = 24, **columns: list) -> Path:
    (folder / "pictures").mkdir(parents=True)
    for i in range(num_rows):
        (folder / "pictures" / f"{i}.png").write_bytes(png(i, 12))
    table = {
        "id": [f"u{i:03}" for i in range(num_rows)],
        "File": [f"{i}.png" for i in range(num_rows)],
        "Species": [("cat", "dog")[i % 2] for i in range(num_rows)],
        "colour": [("red", "green", "blue")[i % 3] for i in range(num_rows)],
        "weight": np.random.default_rng(0).random(num_rows),
    }
    pd.DataFrame({**table, **columns}).to_csv(folder / "t.csv", index=False)
    return folder / "t.csv"


def runs(path: Path) -> Config:
    """The config, after all that a run checks of it before it trains."""
    config = load_config(path)
    data = with_validation(load_dataset(config.data), config.data)
    for point in plan_sweep(config).points:
        prepare(point.config, data)
    prepare(config, data)
    return config


@pytest.mark.parametrize("name", ["photos", "my photos [2024]", "it's: #1 {x} é", "a\nb\x7fc", "%s {0} 'q' \"d\""])
def test_a_folder_of_class_folders_of_any_name(tmp_path: Path, name: str) -> None:
    root = write_folder(tmp_path / name)
    path, found = write_first_config(root, tmp_path / "first.yaml")
    config = runs(path)
    assert config.data.name == "imagefolder"
    assert config.data.train_path == str(root)
    assert config.data.image_size == 16
    assert (found.num_images, found.num_classes) == (24, 3)


def test_images_of_several_sizes_come_to_one_that_is_quick_to_train_on(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "photos", size=90)
    (root / "a" / "wide.png").write_bytes(png(1, 120))
    path, _ = write_first_config(root, tmp_path / "first.yaml")
    assert runs(path).data.image_size in (64, 90)
    assert "90x90 to 120x120" in path.read_text(encoding="utf-8")


def test_columns_of_a_csv_are_told_by_what_they_hold(tmp_path: Path) -> None:
    table = write_csv(tmp_path / "data")
    path, found = write_first_config(table, tmp_path / "first.yaml")
    data = runs(path).data
    assert (data.path_column, data.label_column) == ("File", "Species")
    assert data.image_root == str(table.parent / "pictures")
    assert found.attributes == ("colour", "weight")
    assert found.row_names == ("id",)
    assert "its own value: id" in path.read_text(encoding="utf-8")


def test_the_clusters_of_attributes_that_are_commented_out_run_too(tmp_path: Path) -> None:
    path, _ = write_first_config(write_csv(tmp_path / "data"), tmp_path / "first.yaml")
    text = path.read_text(encoding="utf-8")
    path.write_text(re.sub(r"^  # (- |  )clusters", r"  \1clusters", text, flags=re.MULTILINE), encoding="utf-8")
    config = runs(path)
    assert any(space.get("clusters.attribute_columns") == ["colour", "weight"] for space in config.search_space)


def test_absolute_paths_in_a_csv_have_the_root_they_share(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    table = write_csv(folder, File=[str(folder / "pictures" / f"{i}.png") for i in range(24)])
    (tmp_path / "tables").mkdir()
    path, _ = write_first_config(table.rename(tmp_path / "tables" / "t.csv"), tmp_path / "first.yaml")
    assert runs(path).data.image_root == str(folder / "pictures")


def test_what_is_known_is_not_guessed(tmp_path: Path) -> None:
    settings = {"data.label_column": "colour", "data.image_size": 8}
    path, found = write_first_config(write_csv(tmp_path / "data"), tmp_path / "first.yaml", settings)
    data = runs(path).data
    assert (data.label_column, data.image_size, found.num_classes) == ("colour", 8, 3)


@pytest.mark.parametrize("is_folder", [False, True])
def test_parquet_with_its_columns(tmp_path: Path, is_folder: bool) -> None:
    rows = {"img": [png(i, 10) for i in range(20)], "fine_label": [i % 2 for i in range(20)], "hue": list("ab") * 10}
    place = tmp_path / "t.parquet" if not is_folder else tmp_path / "t" / "train-0.parquet"
    place.parent.mkdir(exist_ok=True)
    pq.write_table(pa.table(rows), place)
    path, found = write_first_config(place.parent if is_folder else place, tmp_path / "first.yaml")
    assert runs(path).data.name == "parquet"
    assert (found.num_classes, found.attributes) == (2, ("hue",))


def test_images_that_cannot_be_used_are_left_out_and_told(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "photos")
    (root / "a" / "broken.png").write_bytes(b"no image")
    path, found = write_first_config(root, tmp_path / "first.yaml")
    assert runs(path).data.on_bad_image == "skip"
    assert "broken.png" in found.notes[0]
    assert "broken.png" in path.read_text(encoding="utf-8")
    table = write_csv(tmp_path / "data")
    (table.parent / "pictures" / "3.png").unlink()
    assert guess(table, {}).data["on_bad_image"] == "skip"


def test_images_without_labels_are_compared_without_them(tmp_path: Path) -> None:
    root = tmp_path / "photos"
    root.mkdir()
    for i in range(30):
        (root / f"{i}.png").write_bytes(png(i, 16))
    path, found = write_first_config(root, tmp_path / "first.yaml")
    assert found.num_classes == 0
    assert runs(path).search_space[1]["clusters.source"] == {"grid_search": ["instance"]}
    assert "without labels" in path.read_text(encoding="utf-8")


def test_two_images_are_enough(tmp_path: Path) -> None:
    path, _ = write_first_config(write_folder(tmp_path / "d", classes=("a", "b"), each=2), tmp_path / "first.yaml")
    assert runs(path).clusters.num_clusters == 2


def test_vectors_and_nothing_and_what_is_no_image_are_refused(tmp_path: Path) -> None:
    vectors = tmp_path / "v.parquet"
    pq.write_table(pa.table({"id": [1, 2], "vector": [[0.1, 0.2], [0.3, 0.4]]}), vectors)
    (tmp_path / "empty").mkdir()
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.txt").write_text("x")
    (tmp_path / "x.txt").write_text("x")
    (tmp_path / "t.csv").write_text("id,name\n1,a\n2,b\n")
    (tmp_path / "headers.csv").write_text("path,class\n")
    for name, message in {
        "v.parquet": "holds vectors and no images. Train on them as they are with data.name=embeddings",
        "empty": "expected",
        "texts": "expected",
        "x.txt": "expected a",
        "nowhere": "no such file or folder",
        "t.csv": "no column names image files below .*; the table has: id, name",
        "headers.csv": "has no rows",
    }.items():
        with pytest.raises(UserError, match=message):
            write_first_config(tmp_path / name, tmp_path / "first.yaml")
    assert not (tmp_path / "first.yaml").exists()


def test_no_file_is_ever_overwritten(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "photos")
    for name in ("file", "folder", "link"):
        target = tmp_path / name
        {"file": target.touch, "folder": target.mkdir, "link": lambda at=target: at.symlink_to("nowhere")}[name]()
        with pytest.raises(UserError, match="exists; choose another file"):
            write_first_config(root, target)
    with pytest.raises(UserError, match="cannot be written: No such file"):
        write_first_config(root, tmp_path / "nowhere" / "x.yaml")
    assert (tmp_path / "file").read_text() == ""
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"data.imagesize": 3}, "Did you mean 'data.image_size'"),
        ({"train.num_epochs": 3}, r"only data\.\* keys"),
        ({"data.image_size": 1}, r"data\.image_size must be"),
    ],
)
def test_settings_that_are_none_are_refused(tmp_path: Path, settings: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        write_first_config(write_folder(tmp_path / "photos"), tmp_path / "first.yaml", settings)


def test_the_command_writes_here_and_says_what_is_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_folder(tmp_path / "my photos")
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, ["init", "my photos"], catch_exceptions=False)
    assert done.exit_code == 0
    assert done.output.endswith("config: my_photos.yaml\nnext: clray train my_photos.yaml\n")
    runs(tmp_path / "my_photos.yaml")


def test_an_editor_finds_the_schema_where_there_is_one(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "photos")
    path, _ = write_first_config(root, tmp_path / "first.yaml")
    assert "$schema" not in path.read_text(encoding="utf-8")
    (tmp_path / "tune_configs").mkdir()
    schema = tmp_path / "tune_configs" / "schema.json"
    schema.write_bytes((REPOSITORY / "tune_configs" / "schema.json").read_bytes())
    (tmp_path / "mine").mkdir()
    path, _ = write_first_config(root, tmp_path / "mine" / "second.yaml")
    first = path.read_text(encoding="utf-8").split("\n", 1)[0]
    assert first == "# yaml-language-server: $schema=../tune_configs/schema.json"


@pytest.mark.slow
def test_a_first_config_trains(tmp_path: Path) -> None:
    path, _ = write_first_config(write_csv(tmp_path / "data"), tmp_path / "first.yaml")
    shorter = {"train.num_epochs": 4, "evaluate.probe_epochs": 2, "output": str(tmp_path / "out")}
    without = {"tracking.pictures": "none", "tracking.models": "none"}
    run = clray.train(path, {**shorter, **without}, debug=True)
    assert "test/linear_accuracy" in run.metrics
    assert run.metrics["clusters/num_clusters"] == load_config(path).clusters.num_clusters


@pytest.mark.parametrize("labels", [["a"] * 24, [None, *"abc" * 7, "a", "b"]])
def test_labels_that_some_lack_or_all_share_are_no_clusters_to_compare_with(tmp_path: Path, labels: list) -> None:
    table = write_csv(tmp_path / "data", Species=labels)
    path, found = write_first_config(table, tmp_path / "first.yaml")
    assert runs(path).search_space[1]["clusters.source"] == {"grid_search": ["instance"]}
    assert found.num_classes == len({*labels} - {None}) - (len({*labels}) == 1)
    assert any("label" in note for note in found.notes)


def test_images_that_are_all_equal_are_told(tmp_path: Path) -> None:
    root = tmp_path / "photos"
    root.mkdir()
    for i in range(6):
        (root / f"{i}.png").write_bytes(png(0, 16))
    assert any("are equal" in note for note in guess(root, {}).notes)


def test_a_list_of_several_labels_an_image_needs_no_words(tmp_path: Path) -> None:
    write_csv(tmp_path)
    rows = [{"label": [["a"], ["a", "b"], []][i % 3], "file_name": f"pictures/{i}.png"} for i in range(24)]
    (tmp_path / "t.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    found = guess(tmp_path / "t.jsonl", {})
    assert (found.data["path_column"], found.data["label_column"], found.num_classes) == ("file_name", "label", 2)
