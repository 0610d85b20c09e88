"""Labels are optional: none, or none for some images."""

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from clray.config.sections import DataConfig
from clray.data.build import build_parquet
from clray.data.load import kind_of, load_dataset, load_images
from clray.data.readers.columns import encode_labels
from tests.conftest import png


def written(path: Path, labels: pa.Array | None) -> DataConfig:
    """Twenty images as Parquet, with a column `label` or without."""
    columns = {"image": [{"bytes": png(i), "path": None} for i in range(20)]}
    pq.write_table(pa.table(columns | ({} if labels is None else {"label": labels})), path)
    return DataConfig(name="parquet", train_path=str(path))


def test_a_table_without_the_usual_column_has_no_labels(tmp_path: Path) -> None:
    for each in range(20):
        (tmp_path / f"{each}.png").write_bytes(png(each))
    pd.DataFrame({"path": [f"{i}.png" for i in range(20)]}).to_csv(tmp_path / "t.csv", index=False)
    configs = [written(tmp_path / "t.parquet", None), DataConfig(name="csv", train_path=str(tmp_path / "t.csv"))]
    for config in configs:
        data = load_dataset(config)
        assert (len(data.train), len(data.test), data.num_classes, data.names) == (15, 5, 0, {None: ()})
        assert len(data.train.labelled) == len(data.test.labelled) == 0
        assert "no labels" in data.notes[0]
        assert len(load_images(config)) == 20


@pytest.mark.parametrize(
    ("values", "codes", "names"),
    [
        (pd.Series([2, -1, 0, 2]), [1, -1, 0, 1], ("0", "2")),
        (pd.Series([2.0, np.nan, -1.0]), [0, -1, -1], ("2.0",)),
        (pd.Series([3, None, 1], dtype="Int64"), [1, -1, 0], ("1", "3")),
        (pd.Series(["b", "", None, "-1", "a"], dtype=object), [1, -1, -1, -1, 0], ("a", "b")),
        (pd.Series([-1, 1, 1]), [0, 1, 1], ("-1", "1")),
        (pd.Series([-1, 1, 0]), [-1, 1, 0], ("0", "1")),
        (pd.Series([-1, -1]), [-1, -1], ()),
        (pd.Series([None, None], dtype=object), [-1, -1], ()),
    ],
)
def test_a_label_that_is_null_empty_or_minus_one_is_none(
    values: pd.Series, codes: list[int], names: tuple[str, ...]
) -> None:
    found, known = encode_labels(values)
    assert (found.tolist(), known) == (codes, names)


def test_unlabelled_images_are_divided_as_those_of_a_class(tmp_path: Path) -> None:
    labels = pa.array([0, 1, None, None] * 5)
    data = load_dataset(written(tmp_path / "t.parquet", labels).model_copy(update={"test_fraction": 0.4}))
    for part, count in ((data.train, 12), (data.test, 8)):
        assert np.unique(part.labels, return_counts=True)[1].tolist() == [count // 2, count // 4, count // 4]
    assert "6 of 12 training images have no label" in data.notes


def test_a_build_of_images_without_labels_has_none(tmp_path: Path) -> None:
    built = build_parquet(written(tmp_path / "t.parquet", pa.nulls(20)), tmp_path / "out")
    assert "label" not in pq.read_schema(built.folder / "train" / "00000.parquet").names
    assert load_dataset(DataConfig(name="parquet", train_path=str(built.folder))).num_classes == 0


def test_a_flat_folder_is_read_as_images(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png(0))
    assert kind_of(tmp_path) == "imagefolder"
