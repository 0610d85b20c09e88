"""Several columns of labels, and several labels an image."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from clray.config.sections import DataConfig
from clray.config.sections.data import metric_suffix
from clray.data.build import build_parquet
from clray.data.check import check_data
from clray.data.guess import guess
from clray.data.labels import NO_LABEL, read_labels
from clray.data.load import load_dataset, load_images, reading_of
from clray.data.validation import with_validation
from clray.errors import UserError
from tests.conftest import png

SPECIES = [("ant", "bee", "cat")[i % 3] for i in range(24)]
COLOURS = [(0, 1, 1, None)[i % 4] for i in range(24)]
TAGS = [[["red"], ["red", "wet"], [], None][i % 4] for i in range(24)]
COLUMNS = {"species": SPECIES, "colour": COLOURS, "tags": TAGS, "size": [i % 5 for i in range(24)]}


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("table") / "t.parquet"
    pq.write_table(pa.table({"image": [png(i) for i in range(24)], **COLUMNS}), path)
    return path


def parquet(path: Path, *columns: str, **settings: object) -> DataConfig:
    return DataConfig(name="parquet", train_path=str(path), label_columns=columns or None, **settings)


def test_the_first_column_is_the_label_and_the_others_are_told_beside_it(table: Path) -> None:
    data = load_dataset(parquet(table, "species", "colour", "tags"))
    alone = load_dataset(DataConfig(name="parquet", train_path=str(table), label_column="species"))
    for part in ("train", "test"):
        np.testing.assert_array_equal(getattr(data, part).labels, getattr(alone, part).labels)
    assert (data.label_columns, data.targets["colour"]) == ((None, "colour", "tags"), ("0", "1"))
    assert {"colour", "size"} <= alone.train.columns.keys()
    assert data.train.columns.keys() == {"size"}, "a label is no attribute"
    whole = np.concatenate([data.train.targets["colour"], data.test.targets["colour"]])
    assert np.unique(whole, return_counts=True)[1].tolist() == [6, 6, 12]
    assert (data.train.targets["colour"].min(), data.train.flags["tags"].shape) == (-1, (18, 2))
    assert any(note.startswith("colour: ") and "have no label" in note for note in data.notes)


def test_what_is_chosen_of_the_samples_keeps_all_labels(table: Path) -> None:
    data = load_dataset(parquet(table, "species", "colour", "tags"))
    split = with_validation(data, DataConfig(validation_fraction=0.4))
    assert split.validation is not None
    for column in ("colour", "tags"):
        parts = [split.train.judged_by(column), split.validation.judged_by(column)]
        whole = [sorted(map(str, each)) for each in (np.concatenate(parts), data.train.judged_by(column))]
        assert whole[0] == whole[1]
        assert [len(part) for part in parts] == [len(split.train), len(split.validation)]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (("species", "hue"), r"data.label_columns: no column 'hue'; the data have .* colour"),
        (("hue", "species"), r"no column 'hue'"),
    ],
)
def test_an_unknown_column_is_named(table: Path, columns: tuple[str, ...], message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_dataset(parquet(table, *columns))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"label_columns": ("a", "b", "a")}, "each column once.*got a, a"),
        ({"label_columns": ("x", "a:b", "a.b")}, "got a:b, a.b"),
        ({"label_columns": ("a",), "label_column": "b"}, "label_columns and label_column=b are both set"),
        ({"label_columns": ()}, "at least 1 item"),
        ({"label_columns": ("a",), "name": "digits"}, "label_columns belongs to .*it is digits"),
    ],
)
def test_columns_that_cannot_be_meant_are_refused(settings: dict, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        DataConfig(**{"name": "parquet", "train_path": "t.parquet", **settings})


def test_names_of_measures_hold_nothing_that_mlflow_refuses() -> None:
    assert [metric_suffix(name) for name in (None, "colour", "bill::shape (a/b)", "größe")] == [
        "", "/colour", "/bill__shape _a_b_", "/größe",
    ]  # fmt: skip


LISTS = pd.Series([["b", "a"], ["a"], [], None, ["a", "b"], [None], ["-1"], [3, "a"]], dtype=object)
FLAGS = [[0, 1, 1], [0, 1, 0], [0, 0, 0], [-1] * 3, [0, 1, 1], [-1] * 3, [-1] * 3, [1, 1, 0]]


def test_lists_are_sets_of_labels_and_an_empty_one_has_none_of_them() -> None:
    found = read_labels(LISTS, None)
    assert found.flags is not None
    assert (found.labels, found.flags.tolist(), found.flags.dtype) == (("3", "a", "b"), FLAGS, np.int8)
    assert [found.names[code] if code >= 0 else None for code in found.codes] == [
        "a + b", "a", NO_LABEL, None, "a + b", None, None, "3 + a",
    ]  # fmt: skip


def test_a_separator_splits_texts_and_without_one_they_are_classes() -> None:
    texts = pd.Series(["b; a", "a", None, ""], dtype=object)
    found = read_labels(texts, ";")
    assert found.flags is not None
    assert found.flags.tolist() == [[1, 1], [1, 0], [-1, -1], [-1, -1]]
    for separator in (None, "|"):
        found = read_labels(texts, separator)
        assert (found.flags, found.names) == (None, ("a", "b; a"))


def test_of_very_many_labels_the_most_frequent_are_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("clray.data.labels.MAX_LABELS", 2)
    found = read_labels(pd.Series([["z", "a"], ["z", "y"], ["y"], ["a", "z", "y"], ["b"]], dtype=object), None)
    assert found.flags is not None
    assert (found.labels, found.flags.tolist()) == (("y", "z"), [[0, 1], [1, 1], [1, 0], [1, 1], [0, 0]])
    assert found.notes == ("of 4 labels the 2 most frequent are looked at",)


def written(folder: Path, labels: list[object], suffix: str = "jsonl") -> DataConfig:
    """A list of images with a column `label`."""
    for i in range(len(labels)):
        (folder / f"{i}.png").write_bytes(png(i))
    rows = [{"path": f"{i}.png", "label": label} for i, label in enumerate(labels)]
    path = folder / f"t.{suffix}"
    if suffix == "csv":
        pd.DataFrame(rows).to_csv(path, index=False)
    else:
        path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return DataConfig(name="csv", train_path=str(path), list_separator=";")


def test_lists_beside_single_values_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"data.label_column holds lists .* single values .* such as 'ant'"):
        load_dataset(written(tmp_path, [["ant"], "ant", ["bee"], None] * 3))


def test_lists_for_training_and_single_values_for_testing_are_refused(tmp_path: Path) -> None:
    pq.write_table(pa.table({"image": [png(i) for i in range(8)], "label": [i % 2 for i in range(8)]}),
                   tmp_path / "test.parquet")  # fmt: skip
    pq.write_table(pa.table({"image": [png(i) for i in range(8)], "label": [[i % 2] for i in range(8)]}),
                   tmp_path / "train.parquet")  # fmt: skip
    with pytest.raises(UserError, match="lists for some images and single values for others, such as '0'"):
        load_dataset(DataConfig(name="parquet", train_path=str(tmp_path)))


def test_text_and_lists_of_a_list_of_images_mean_the_same(tmp_path: Path) -> None:
    sets = [["ant"], ["ant", "bee"], ["cat"], None] * 6
    texts = [None if each is None else ";".join(each) for each in sets]
    first, second = (load_dataset(written(tmp_path, *each)) for each in ((sets,), (texts, "csv")))
    assert first.names == second.names
    np.testing.assert_array_equal(first.train.flags[None], second.train.flags[None])
    np.testing.assert_array_equal(first.train.labels, second.train.labels)
    assert len(first.train.labelled) == 14
    assert len(load_images(written(tmp_path, sets)).labelled) == 18


def test_images_with_rare_sets_are_held_out_as_others_are(tmp_path: Path) -> None:
    sets = [[f"label {i}", f"label {(7 * i) % 24}"] for i in range(24)]
    data = with_validation(load_dataset(written(tmp_path, sets)), DataConfig(validation_fraction=0.3))
    assert data.validation is not None
    assert len(data.validation) >= 4


def test_whole_numbers_stay_whole_beside_nulls_in_a_list(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table({"image": [png(i) for i in range(8)], "label": [[1, None], [2]] * 4}), path)
    assert load_dataset(DataConfig(name="parquet", train_path=str(path))).names[None] == ("2", "1")


def test_a_build_keeps_all_labels(table: Path, tmp_path: Path) -> None:
    built = build_parquet(parquet(table, "tags", "colour"), tmp_path / "out").folder
    found, given = load_dataset(parquet(built, "label", "colour")), load_dataset(parquet(table, "tags", "colour"))
    for part in ("train", "test"):
        np.testing.assert_array_equal(getattr(found, part).flags[None], getattr(given, part).flags[None])
        np.testing.assert_array_equal(getattr(found, part).targets["colour"], getattr(given, part).targets["colour"])
    renamed = tmp_path / "renamed.parquet"
    pq.write_table(pq.read_table(table).rename_columns(["image", "species", "label", "tags", "size"]), renamed)
    with pytest.raises(UserError, match="a build calls its first columns image and label"):
        build_parquet(parquet(renamed, "species", "label"), tmp_path / "other")


def test_labels_of_a_folder_come_from_its_tables(tmp_path: Path) -> None:
    for i in range(12):
        place = tmp_path / "images" / ("a", "b")[i % 2]
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{i}.png").write_bytes(png(i))
    rows = {"path": [f"{'ab'[i % 2]}/{i}.png" for i in range(12)], "species": SPECIES[:12], "hue": ["r", "g"] * 6}
    pd.DataFrame(rows).to_csv(tmp_path / "t.csv", index=False)
    folder = {"name": "imagefolder", "train_path": str(tmp_path / "images")}
    beside = {**folder, "attributes_path": str(tmp_path / "t.csv")}
    data = load_dataset(DataConfig(**beside, label_columns=("species", "hue")))
    assert (data.names, data.targets) == ({None: ("ant", "bee", "cat")}, {"hue": ("g", "r")})
    for given in (folder, beside):
        with pytest.raises(UserError, match="column 'colour'"):
            load_dataset(DataConfig(**given, label_columns=("colour",)))


def test_other_images_are_embedded_without_the_columns_of_the_run(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "0.png").write_bytes(png(0))
    pq.write_table(pa.table({"image": [png(0)]}), tmp_path / "bare.parquet")
    for settings in ({"label_columns": ("species", "colour")}, {"label_column": "species"}):
        run = DataConfig(name="parquet", train_path="gone.parquet", **settings)
        for path in (tmp_path / "bare.parquet", tmp_path / "photos"):
            assert len(load_images(reading_of(run, path))) == 1


def test_vectors_of_npy_have_no_columns(tmp_path: Path) -> None:
    np.save(tmp_path / "v.npy", np.ones((8, 4), np.float32))
    with pytest.raises(UserError, match=r"data\.label_columns names columns of Parquet"):
        load_dataset(DataConfig(name="embeddings", train_path=str(tmp_path / "v.npy"), label_columns=("a",)))


def test_what_looks_at_data_counts_labels_and_no_label_as_an_attribute(table: Path) -> None:
    findings = {each.name: each.found for each in check_data(parquet(table, "tags", "colour")).findings}
    assert findings == {
        "images": 24, "training images": 24, "labels": 2, "images without a label": 6, "attributes": 2
    }  # fmt: skip
    found = guess(table, {"label_columns": ["tags", "colour"]})
    assert found.num_classes == 2
    assert not any(name.startswith(("tags", "colour")) for name in found.attributes)
