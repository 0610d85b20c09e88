"""Tables of public bug reports: text stays text, and a row that does not fit is named."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from clray.clusters.statistics import cluster_statistics
from clray.config.sections import DataConfig
from clray.data.attributes import encode_attributes
from clray.data.check import check_data
from clray.data.load import load_dataset
from clray.data.readers.columns import encode_names, encode_values
from clray.data.readers.tables import read_columns
from clray.data.readers.text_tables import read_text_table
from clray.errors import UserError
from tests.conftest import REPOSITORY, png

CASES = REPOSITORY / "tests" / "cases" / "csv"


@pytest.mark.parametrize("name", ["good", "na_values", "leading_zero"])
def test_three_clusters_are_three_whatever_they_are_called(name: str) -> None:
    z, t = (encode_values(column) for column in read_columns(CASES / f"{name}.csv", ("z", "t")))
    statistics = cluster_statistics(z, t)
    assert statistics.num_clusters == 3
    assert statistics.mutual_information_bits == pytest.approx(np.log2(3))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ((CASES / "trailing_comma.csv").read_text(), "line 2 has 3 fields and the header 2"),
        ("z,t\na,b\n\nc,d,e\n", "line 4 has 3 fields and the header 2"),
        ("z,t\na,b\nc\n", "line 3 has 1 fields and the header 2"),
        ('z,t\na,"b\nc,d\n', "unexpected end of data"),
        ("z,z\na,b\n", "two columns are called 'z'"),
        ("z,t\n", "the table has no rows"),
        ("", "the table has no columns"),
        (",Unnamed: 3\na,b\n", "no columns with a name"),
    ],
)
def test_a_table_that_would_shift_or_lose_a_column_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "t.csv").write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=r"t\.csv: .*" + re.escape(message)):
        read_columns(tmp_path / "t.csv", ("z", "t"))


@pytest.mark.parametrize(
    "values",
    [
        ["NA", "None", "null", "n/a", "nan", "NaN", "#N/A", "-", ""],
        ["1", "01", "001", "1.0", "1e0", "+1", " 1"],
        ["007", "7", "7.", "07"],
        ["9007199254740992", "9007199254740993"],
        ["12345678901234567890", "12345678901234567891"],
        ["0.1", "0.10", ".1"],
        ["True", "true", "TRUE"],
        ["2024-01-01", "2024-1-1"],
        ["0", "-0"],
    ],
)
def test_different_texts_are_different_values_with_their_own_names(tmp_path: Path, values: list[str]) -> None:
    (tmp_path / "t.csv").write_text("z,t\n" + "".join(f"{value},t\n" for value in values * 2), encoding="utf-8")
    (z,) = read_columns(tmp_path / "t.csv", ("z",))
    codes, names = encode_names(z)
    assert len(names) == len(values)
    assert [names[code] for code in codes] == [value or "nan" for value in values] * 2


def test_numbers_are_in_the_order_of_numbers_and_missing_ones_last(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("n,f,m\n9,0.5,3\n10,12.25,\n-2,-1.5,20\n", encoding="utf-8")
    codes = [encode_values(column).tolist() for column in read_columns(tmp_path / "t.csv", ("n", "f", "m"))]
    assert codes == [[1, 2, 0], [1, 2, 0], [0, 2, 1]]


def test_row_numbers_of_pandas_are_no_attributes(tmp_path: Path) -> None:
    frame = pd.DataFrame({"path": ["a", "b"], "class": [0, 1]})
    frame.to_csv(tmp_path / "once.csv")
    pd.read_csv(tmp_path / "once.csv").to_csv(tmp_path / "twice.csv")
    frame.assign(__index_level_0__=[7, 3]).to_csv(tmp_path / "level.csv", index=False)
    for name in ("once", "twice", "level"):
        assert list(read_text_table(tmp_path / f"{name}.csv").frame.columns) == ["path", "class"]


@pytest.mark.parametrize("form", ["{}", "{:.2f}", "{:.3e}"])
def test_numbers_that_are_continuous_are_so_in_any_notation(tmp_path: Path, form: str) -> None:
    values = np.random.default_rng(0).lognormal(size=200)
    lines = [form.format(value) for value in values]
    (tmp_path / "t.csv").write_text("x\n" + "\n".join(lines) + "\n", encoding="utf-8")
    (column,) = read_columns(tmp_path / "t.csv", ("x",))
    ((codes, names),) = encode_attributes({"x": column}, DataConfig()).values()
    assert len(names) == 4
    np.testing.assert_allclose(np.bincount(codes), 50, atol=2)


def test_a_row_without_a_path_is_named_or_left_out_and_counted(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    for i in range(24):
        (tmp_path / "images" / f"{i:03d}.png").write_bytes(png(i))
    (tmp_path / "t.csv").write_bytes((CASES / "empty_path.csv").read_bytes())
    config = DataConfig(name="csv", train_path=str(tmp_path / "t.csv"))
    with pytest.raises(UserError, match=r"1 of 24 rows name no usable image: row 4: no path"):
        load_dataset(config)
    data = load_dataset(config.model_copy(update={"on_bad_image": "skip"}))
    assert len(data.train) + len(data.test) == 23
    assert data.skipped == (f"{tmp_path / 't.csv'}: row 4: no path",)
    assert check_data(config).num_bad == 1


def test_a_class_is_the_same_in_both_tables_where_one_of_them_holds_only_numbers(tmp_path: Path) -> None:
    for i in range(6):
        (tmp_path / f"{i}.png").write_bytes(png(i))
    (tmp_path / "train.csv").write_text("path,class\n0.png,1\n1.png,2\n2.png,1\n", encoding="utf-8")
    (tmp_path / "test.csv").write_text("path,class\n3.png,1\n4.png,NA\n5.png,2\n", encoding="utf-8")
    paths = {f"{part}_path": str(tmp_path / f"{part}.csv") for part in ("train", "test")}
    data = load_dataset(DataConfig(name="csv", **paths))
    assert data.names[None] == ("1", "2", "NA")
    assert (data.train.labels.tolist(), data.test.labels.tolist()) == ([0, 1, 0], [0, 2, 1])
