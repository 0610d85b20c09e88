"""Parquet files of public bug reports: parts of a data set, schemas that differ, columns of any type."""

import datetime
from decimal import Decimal
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from clray.clusters.known import known_clusters
from clray.config.sections import ClustersConfig, DataConfig
from clray.data.check import check_data
from clray.data.load import check_files, load_dataset, load_descriptions
from clray.data.loaders import ordered_batches
from clray.data.readers.tables import read_columns
from clray.errors import UserError
from tests.conftest import REPOSITORY, png

CASES = REPOSITORY / "tests" / "cases" / "parquet"


def config(path: Path | str, **changes: object) -> DataConfig:
    return DataConfig(name="parquet", train_path=str(path), **changes)


def write(path: Path, count: int = 8, **columns: object) -> Path:
    table = {"image": [png(i) for i in range(count)], "label": [i % 2 for i in range(count)], **columns}
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(table), path)
    return path


@pytest.mark.parametrize(
    ("paths", "expected"),
    [
        ({"train_path": ""}, (48, 9)),
        ({"train_path": "data"}, (48, 9)),
        ({"train_path": "data/*.parquet"}, (48, 9)),
        ({"train_path": "**/*.parquet"}, (48, 9)),
        ({"train_path": "data/train-0000[01]*", "test_path": "data/test-*"}, (32, 9)),
        ({"train_path": "data", "test_path": "data"}, (48, 9)),
        ({"train_path": "data/train-*", "test_path": "data"}, (48, 9)),
    ],
)
def test_the_layout_of_a_hub_tells_training_from_testing(paths: dict[str, str], expected: tuple[int, int]) -> None:
    chosen = DataConfig(name="parquet", **{key: str(CASES / "hub_layout" / path) for key, path in paths.items()})
    check_files(chosen)
    data = load_dataset(chosen)
    assert (len(data.train), len(data.test)) == expected


def test_validation_files_test_where_there_is_nothing_else_for_testing(tmp_path: Path) -> None:
    for part, count in (("train", 8), ("validation", 4)):
        write(tmp_path / f"{part}-00000-of-00001.parquet", count)
    (tmp_path / "README.md").write_text("about the data")
    (tmp_path / ".cache").mkdir()
    write(tmp_path / ".cache" / "train-00000-of-00001.parquet", 8)
    data = load_dataset(config(tmp_path))
    assert (len(data.train), len(data.test)) == (8, 4)
    write(tmp_path / "test-00000-of-00001.parquet", 6)
    data = load_dataset(config(tmp_path))
    assert data.validation is not None
    assert (len(data.train), len(data.validation), len(data.test)) == (8, 4, 6)
    assert data.notes == ()


def test_files_of_a_part_beside_files_of_none_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "test-0.parquet")
    write(tmp_path / "more.parquet")
    with pytest.raises(UserError, match=r"test-0\.parquet is named as a part .* more\.parquet is not; name the files"):
        load_dataset(config(tmp_path))


@pytest.mark.parametrize("pattern", ["nothing-*.parquet", "[", "*.csv"])
def test_a_pattern_that_nothing_fits_is_refused(tmp_path: Path, pattern: str) -> None:
    with pytest.raises(UserError, match=r"data\.train_path: no such file or folder"):
        check_files(config(tmp_path / pattern))


@pytest.mark.parametrize("on_bad_image", ["error", "skip"])
def test_a_null_label_is_an_unlabelled_image_among_labelled_ones(on_bad_image: str) -> None:
    chosen = config(CASES / "null_label.parquet", on_bad_image=on_bad_image)
    for data in (load_dataset(chosen), load_descriptions(chosen)):
        assert np.sum(np.concatenate([data.train.labels, data.test.labels]) < 0) == 1
        assert (len(data.train) + len(data.test), data.skipped) == (48, ())
    report = check_data(chosen)
    assert report.is_whole
    assert ("images without a label", 1) in [(each.name, each.found) for each in report.findings]


@pytest.mark.parametrize("limit_mib", [1, 100])
def test_shards_that_hold_images_in_different_ways_are_one_data_set(tmp_path: Path, limit_mib: int) -> None:
    size = 100
    blobs = [png(i, size=size) for i in range(48)]
    forms = [
        pa.array([{"bytes": blob, "path": None} for blob in blobs[:10]]),
        pa.array(blobs[10:20]),
        pa.array(blobs[20:30], pa.large_binary()),
        pa.array(blobs[30:40]).dictionary_encode(),
        pa.array([{"path": "x", "bytes": blob} for blob in blobs[40:]]),
    ]
    for number, images in enumerate(forms):
        labels = pa.array([i % 2 for i in range(len(images))], pa.int32() if number else pa.int64())
        pq.write_table(pa.table({"image": images, "label": labels}), tmp_path / f"{number}.parquet", row_group_size=5)
    chosen = config(tmp_path, image_size=size, memory_limit_mib=limit_mib, shuffle_row_groups=2)
    data = load_dataset(chosen.model_copy(update={"test_path": str(tmp_path / "1.parquet")}))
    ((pixels, _),) = ordered_batches(data.train, np.arange(48), batch_size=48, config=chosen)
    for i, blob in enumerate(blobs):
        alone = load_dataset(config(_alone(tmp_path, blob), image_size=size)).train.images.pixels[0]
        np.testing.assert_array_equal(pixels[i].numpy(), alone)


def _alone(folder: Path, blob: bytes) -> Path:
    path = folder / "alone" / "t.pq"
    path.parent.mkdir(exist_ok=True)
    pq.write_table(pa.table({"image": [blob] * 4, "label": [0, 1] * 2}), path)
    return path


def test_the_mixed_shards_of_the_report_are_read() -> None:
    data = load_dataset(config(CASES / "mixed_image_shards"))
    assert len(data.train) + len(data.test) == 48


def test_an_index_that_pandas_left_forms_no_clusters() -> None:
    data = load_dataset(config(CASES / "pandas_index.parquet"))
    assert set(data.train.columns) == {"color", "size"}
    assert "row numbers are no attribute" in data.notes[0]
    described = load_descriptions(config(CASES / "pandas_index.parquet"))
    source = ClustersConfig(source="attributes", num_attributes=2)
    (first,), (second,) = (
        known_clusters(source, labels=each.train.labels, columns=each.train.columns, names=each.names, seed=0)
        for each in (data, described)
    )
    assert first.num_clusters == 6
    np.testing.assert_array_equal(first.ids, second.ids)


def test_a_named_index_of_pandas_is_no_attribute_but_may_be_the_label(tmp_path: Path) -> None:
    frame = pd.DataFrame({"image": [png(i) for i in range(8)], "label": [0, 1] * 4, "id": range(8)})
    frame.set_index("id").to_parquet(tmp_path / "t.parquet")
    assert load_dataset(config(tmp_path / "t.parquet")).train.columns == {}
    frame.drop(columns="id").set_index("label").to_parquet(tmp_path / "t.parquet")
    assert load_dataset(config(tmp_path / "t.parquet")).num_classes == 2


def test_float16_is_read_as_any_float() -> None:
    data = load_dataset(config(CASES / "float16_attribute.parquet"))
    whole = pq.read_table(CASES / "float16_attribute.parquet")["af16"].to_pylist()
    assert len(data.names["af16"]) in (4, len(set(whole)))


@pytest.mark.parametrize(
    ("name", "values", "kind"),
    [
        ("label", [[0.5], [1.5, 2.5]] * 4, "list<element: double>"),
        ("label", [[[0]], [[1], [2]]] * 4, "list<element: list<element: int64>>"),
        ("label", [{"a": 1}, {"a": 2}] * 4, "struct<a: int64>"),
    ],
)
def test_what_is_no_label_is_refused_by_column_and_type(tmp_path: Path, name: str, values: list, kind: str) -> None:
    path = write(tmp_path / "t.parquet", **{name: values})
    with pytest.raises(UserError) as refusal:
        load_dataset(config(path))
    assert f"column 'label' must hold one value a row (text or numbers); it is {kind}" in str(refusal.value)
    with pytest.raises(UserError, match="column 'label' must hold one value a row"):
        read_columns(path, ("label",))


def test_the_list_labels_of_the_report_are_several_an_image() -> None:
    data = load_dataset(config(CASES / "list_label.parquet"))
    assert data.names[None] == ("2", "1", "0")
    assert data.train.flags[None].sum() == len(data.train)


DAY = datetime.date(2024, 2, 28)
COLUMNS = {
    "ids": pa.array([2**53 + i for i in range(7)] + [None], pa.int64()),
    "unsigned": pa.array([2**64 - 1 - i for i in range(8)], pa.uint64()),
    "dates": pa.array([DAY + datetime.timedelta(days=i % 3) for i in range(8)]),
    "times": pa.array([datetime.datetime(2024, 1, 1, i) for i in range(8)], pa.timestamp("us", "Europe/Berlin")),
    "far": pa.array([datetime.datetime(9999, 1, 1 + i) for i in range(8)], pa.timestamp("s")),
    "decimals": pa.array([Decimal(f"{i}.10") for i in range(8)]),
    "flags": pa.array([True, None, False, True] * 2),
    "words": pa.array(["NA", "None", "", "x"] * 2).dictionary_encode(),
    "nothing": pa.nulls(8),
    "half": pa.array(np.arange(8, dtype=np.float16)),
    "tags": pa.array([["a"], ["b", "a"], [], None] * 2),
    "wait": pa.array([datetime.timedelta(seconds=i % 2) for i in range(8)]),
    "view": pa.array(list("abcdefgh"), pa.string_view()),
}
NUM_VALUES = {"ids": 8, "unsigned": 8, "dates": 3, "times": 8, "far": 8, "decimals": 8, "flags": 3, "words": 4,
              "nothing": 1, "half": 8, "wait": 2, "view": 8}  # fmt: skip


@pytest.mark.parametrize("name", COLUMNS)
def test_a_column_of_any_plain_type_is_an_attribute_whose_values_do_not_merge(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / "t.parquet", **{name: COLUMNS[name]})
    data = load_dataset(config(path, test_path=str(path)))
    if name == "tags":
        assert {each: codes.tolist() for each, codes in data.train.columns.items()} == {
            "tags=a": [1, 1, 0, 2] * 2, "tags=b": [0, 1, 0, 2] * 2,
        }  # fmt: skip
        return
    assert len(set(data.train.columns[name].tolist())) == NUM_VALUES[name]


@pytest.mark.parametrize("name", ["ids", "unsigned", "dates", "times", "decimals", "words", "view"])
def test_a_column_of_any_plain_type_may_be_the_label(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / "t.parquet", **{name: COLUMNS[name]})
    chosen = config(path, test_path=str(path), label_column=name, on_bad_image="skip")
    assert load_dataset(chosen).num_classes == NUM_VALUES[name] - (name in ("ids", "words"))  # null, and empty


def test_columns_that_some_files_lack_or_hold_as_another_number_are_one(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", x=pa.array(range(8), pa.int32()), y=list("abababab"))
    write(tmp_path / "b.parquet", x=pa.array(range(8), pa.int64()))
    data = load_dataset(config(tmp_path, test_path=str(tmp_path / "b.parquet")))
    assert len(np.unique(data.train.columns["x"])) == 8
    assert np.bincount(data.train.columns["y"]).tolist() == [4, 4, 8]
    assert "1 of 2 files have no column y" in " ".join(data.notes)
    write(tmp_path / "c.parquet", x=list("abcdefgh"))
    with pytest.raises(UserError, match=r"the types of a column differ between the files: .*x"):
        load_dataset(config(tmp_path))


def test_images_that_are_not_embedded_are_read_from_their_paths_inside_the_root(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    path.write_bytes((CASES / "path_without_bytes.parquet").read_bytes())
    with pytest.raises(UserError, match=r"row \d+: no image \(its bytes are not embedded, and there is no file"):
        load_dataset(config(path))
    (tmp_path / "images").mkdir()
    for i in range(48):
        (tmp_path / "images" / f"{i:03d}.png").write_bytes(png(i))
    data = load_dataset(config(path))
    assert len(data.train) + len(data.test) == 48
    assert "the bytes of 48 images are not embedded" in data.notes[0]
    table = pa.table({"image": [{"bytes": None, "path": "/etc/hostname"}] * 4, "label": [0, 1] * 2})
    pq.write_table(table, path)
    with pytest.raises(UserError, match=r"its path '/etc/hostname' leaves the image root"):
        load_dataset(config(path))
