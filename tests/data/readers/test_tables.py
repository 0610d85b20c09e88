from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from clray.config.sections import DataConfig
from clray.data.readers.columns import encode_values
from clray.data.readers.lists import read_list
from clray.data.readers.parquet_tables import read_parquet
from clray.data.readers.tables import read_columns
from clray.errors import UserError
from tests.conftest import CIFAR10, png

AUTHORS_TABLE = """,path,class,label_gran_3,label_gran_5
0,a/0.png,4,0,1
1,a/1.png,9,0,2
2,a/2.png,4,1,0
-1,,2,2,3
"""


@pytest.fixture
def authors_csv(tmp_path: Path) -> Path:
    (tmp_path / "a").mkdir()
    for i in range(3):
        (tmp_path / "a" / f"{i}.png").write_bytes(png(i))
    path = tmp_path / "meta.csv"
    path.write_text(AUTHORS_TABLE, encoding="utf-8")
    return path


def csv_config(path: Path, **changes: object) -> DataConfig:
    return DataConfig(name="csv", train_path=str(path), **changes)


def test_the_row_of_counts_in_the_authors_tables_is_dropped(authors_csv: Path) -> None:
    table = read_list(authors_csv, csv_config(authors_csv))
    assert table.labels.tolist() == [4, 9, 4]
    assert sorted(table.columns) == ["label_gran_3", "label_gran_5"]
    assert table.images.decode(1).shape == (3, 8, 8)


def test_paths_that_leave_the_image_root_are_refused(authors_csv: Path) -> None:
    text = AUTHORS_TABLE.replace("a/1.png", "../../etc/passwd").replace("a/2.png", "/etc/passwd")
    authors_csv.write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=r"2 of 3 rows .*row 1: '\.\./\.\./etc/passwd' leaves the image root"):
        read_list(authors_csv, csv_config(authors_csv))


def test_missing_image_files_are_named_with_their_rows(authors_csv: Path) -> None:
    (authors_csv.parent / "a" / "2.png").unlink()
    with pytest.raises(UserError, match=r"1 of 3 rows .*row 2: no file .*a/2\.png"):
        read_list(authors_csv, csv_config(authors_csv))


def test_a_missing_column_lists_those_there_are(authors_csv: Path) -> None:
    config = csv_config(authors_csv, label_column="klass")
    with pytest.raises(UserError, match="no column 'klass'; the table has: path, class, label_gran_3"):
        read_list(authors_csv, config)


def test_a_ragged_csv_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "bad.csv"
    path.write_text("path,class\na,1\nb,2,3,4\n", encoding="utf-8")
    with pytest.raises(UserError, match="not readable as CSV"):
        read_list(path, csv_config(path))


@pytest.mark.parametrize("as_struct", [True, False])
def test_parquet_takes_images_as_struct_or_plain_binary(tmp_path: Path, as_struct: bool) -> None:
    blobs = [png(i) for i in range(4)]
    images = [{"bytes": blob, "path": None} for blob in blobs] if as_struct else blobs
    pq.write_table(pa.table({"image": images, "label": [0, 1, 0, 1], "colour": list("rgrb")}), tmp_path / "t.parquet")
    table = read_parquet(tmp_path / "t.parquet", DataConfig(name="parquet", train_path="t"))
    assert len(table.images) == 4
    assert list(table.columns) == ["colour"]
    assert table.images.decode(2).shape == (3, 8, 8)


def test_an_image_column_of_another_type_is_refused(tmp_path: Path) -> None:
    pq.write_table(pa.table({"image": [1, 2], "label": [0, 1]}), tmp_path / "t.parquet")
    with pytest.raises(UserError, match=r"must hold encoded images .* it is int64"):
        read_parquet(tmp_path / "t.parquet", DataConfig(name="parquet", train_path="t"))


def test_a_broken_parquet_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "t.parquet").write_bytes(b"PAR1 no table here")
    with pytest.raises(UserError, match="not readable as Parquet"):
        read_parquet(tmp_path / "t.parquet", DataConfig(name="parquet", train_path="t"))


def test_values_become_codes_in_sorted_order_and_missing_ones_a_code_of_their_own() -> None:
    assert encode_values(pd.Series(["b", "a", None, "b"])).tolist() == [1, 0, 2, 1]


@pytest.mark.skipif(not CIFAR10.exists(), reason=f"the CIFAR-10 Parquet files are not at {CIFAR10}")
def test_cifar10_is_read_as_it_stands() -> None:
    table = read_parquet(CIFAR10 / "test.parquet", DataConfig(name="parquet", train_path="t"))
    assert table.labels.value_counts().tolist() == [1000] * 10
    assert table.images.decode(0).shape == (3, 32, 32)


def test_columns_are_read_from_csv_and_parquet_alike(tmp_path: Path) -> None:
    frame = pd.DataFrame({"z": [0, 1, 1], "t": [0, 0, 1]})
    frame.to_csv(tmp_path / "t.csv", index=False)
    frame.to_parquet(tmp_path / "t.parquet")
    for name in ("t.csv", "t.parquet"):
        z, t = read_columns(tmp_path / name, ("z", "t"))
        assert (z.tolist(), t.tolist()) == ([0, 1, 1], [0, 0, 1])
        with pytest.raises(UserError, match="no column 'zz'; the table has: z, t"):
            read_columns(tmp_path / name, ("zz", "t"))


def test_the_authors_paths_carry_an_escaped_dot(authors_csv: Path) -> None:
    folder = authors_csv.parent / "a" / "L.B. Evans"
    folder.mkdir()
    (authors_csv.parent / "a" / "1.png").rename(folder / "1.png")
    text = AUTHORS_TABLE.replace("a/1.png", "a/L%2EB%2E Evans/1.png")
    authors_csv.write_text(text, encoding="utf-8")
    assert read_list(authors_csv, csv_config(authors_csv)).images.payload(1) == (folder / "1.png").resolve()


def test_rows_without_an_image_are_counted_where_they_may_be_skipped(authors_csv: Path) -> None:
    (authors_csv.parent / "a" / "2.png").unlink()
    text = AUTHORS_TABLE.replace("a/1.png", "a/0.png")
    authors_csv.write_text(text, encoding="utf-8")
    table = read_list(authors_csv, csv_config(authors_csv, on_bad_image="skip"))
    assert table.labels.tolist() == [4]
    assert [reason.split(": ", 1)[1] for reason in table.skipped] == [
        "row 1: the path 'a/0.png' occurs in an earlier row",
        f"row 2: no file {authors_csv.parent / 'a' / '2.png'}",
    ]
