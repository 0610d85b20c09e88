"""Lists of images in every form in which people and programs write them."""

import json
import time
import unicodedata
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from clray.config.sections import DataConfig
from clray.data.load import load_dataset
from clray.data.readers.image_paths import ImagePaths
from clray.data.readers.lists import read_list
from clray.data.readers.split import Split
from clray.data.readers.text_tables import read_text_table
from clray.errors import UserError
from tests.conftest import png

ROWS = [{"path": f"a b/{i}.v1.png", "class": "ant" if i % 2 else "NA", "id": "007", "size": 1.5 * i} for i in range(6)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "a b").mkdir()
    for i in range(6):
        (tmp_path / "a b" / f"{i}.v1.png").write_bytes(png(i))
    return tmp_path


def separated(separator: str, end: str = "\n", **changes: Callable[[str], str]) -> str:
    lines = [separator.join(ROWS[0])]
    for row in ROWS:
        written = {**row, **{name: change(str(row[name])) for name, change in changes.items()}}
        lines.append(separator.join(map(str, written.values())))
    return end.join(lines) + end


def as_json(**changes: Callable[[str], str]) -> str:
    rows = [{**row, **{name: change(str(row[name])) for name, change in changes.items()}} for row in ROWS]
    return "".join(json.dumps(row) + "\n" for row in rows)


def read(path: Path, **changes: object) -> Split:
    return read_list(path, DataConfig(name="csv", train_path=str(path), **changes))


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("t.csv", separated(",").encode()),
        ("t.csv", separated(",", "\r\n").encode("utf-8-sig")),
        ("t.csv", separated(",", "\r").encode()),
        ("t.csv", separated(";").encode()),
        ("t.csv", separated("\t").encode("utf-16")),
        ("t.TSV", separated("\t", "\r\n").encode()),
        ("t.csv", separated(",", path=lambda path: f'"{path}"').encode()),
        ("t.csv", (separated(",") + "\n\n").encode()),
        ("t.jsonl", as_json().encode()),
        ("t.jsonl", as_json().replace("\n", "\r\n\r\n").encode("utf-8-sig")),
        ("t.ndjson", as_json().encode()),
        ("t.csv", separated(",", path=lambda path: "./" + path).encode()),
        ("t.csv", separated(",", path=lambda path: path.replace("/", "\\")).encode()),
        ("t.csv", separated(",", path=lambda path: path.replace(".v1", "%2Ev1").replace(" ", "%20")).encode()),
        ("t.csv", separated(",", path=lambda path: f" {path}  ").encode()),
        ("t.jsonl", as_json(path=lambda path: "x/../" + path.replace("/", "\\")).encode()),
    ],
)
def test_a_list_is_the_same_in_every_form(folder: Path, name: str, data: bytes) -> None:
    (folder / "x").mkdir()
    (folder / name).write_bytes(data)
    split = read(folder / name)
    assert split.labels.tolist() == [row["class"] for row in ROWS]
    assert split.columns["id"].tolist() == ["007"] * 6
    np.testing.assert_allclose(split.columns["size"].astype(float), [row["size"] for row in ROWS])
    assert [split.images.payload(i) for i in range(6)] == [folder / str(row["path"]) for row in ROWS]


def test_absolute_paths_are_read_inside_the_root_and_refused_outside(folder: Path) -> None:
    (folder / "lists").mkdir()
    path = folder / "lists" / "t.csv"
    path.write_text(separated(",", path=lambda name: str(folder / name)), encoding="utf-8")
    with pytest.raises(UserError, match=r"6 of 6 rows .* leaves the image root .*; name .* with data\.image_root"):
        read(path)
    assert len(read(path, image_root=str(folder)).labels) == 6
    # Where a link in the path leads out, it is out.
    (folder / "lists" / "link").symlink_to(folder)
    path.write_text("path,class\nlink/a b/0.v1.png,1\n", encoding="utf-8")
    with pytest.raises(UserError, match="leaves the image root"):
        read(path)


@pytest.mark.parametrize(("written", "stored"), [("NFC", "NFD"), ("NFD", "NFC")])
def test_accents_are_the_same_however_they_are_put_together(tmp_path: Path, written: str, stored: str) -> None:
    name = "größe é.png"
    (tmp_path / unicodedata.normalize(stored, name)).write_bytes(png(0))
    assert ImagePaths(tmp_path).find(unicodedata.normalize(written, name)) is not None


@pytest.mark.parametrize("column", ["path", "file_name", "filename", "image_path"])
@pytest.mark.parametrize("label", ["class", "label", "labels", "target"])
def test_usual_names_of_columns_are_found(folder: Path, column: str, label: str) -> None:
    (folder / "t.csv").write_text(separated(",").replace("path,class", f"{column},{label}"), encoding="utf-8")
    split = read(folder / "t.csv")
    assert split.labels.tolist() == [row["class"] for row in ROWS]
    assert set(split.columns) == {"id", "size"}


def test_a_table_without_a_header_is_told_so(folder: Path) -> None:
    (folder / "t.csv").write_text("a b/0.v1.png,1\na b/1.v1.png,2\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"no column 'path'; the table has: a b/0\.v1\.png, 1\. Its first line must"):
        read(folder / "t.csv")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"path": "x"}\n{"path": \n', "line 2: Expecting value"),
        ('{"path": "x"}\n\n["x"]\n', "line 3 holds no object"),
        ("1\n", "line 1 holds no object"),
        ('{"path": "\\ud800"}\n', "line 1 holds half a character"),
        ("\n\n", "the table has no rows"),
        ("{}\n{}\n", "the table has no columns of plain values"),
        ('{"a": {"b": 1}}\n', "the table has no columns of plain values"),
        ("[" * 100_000 + "\n", "line 1: "),
    ],
)
def test_json_that_is_no_table_is_refused_with_its_line(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "t.jsonl").write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=r"t\.jsonl: .*" + message):
        read_text_table(tmp_path / "t.jsonl")


def test_a_byte_that_is_no_utf_8_is_named_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes("path,class\na,1\nb,größe\n".encode("latin-1"))
    with pytest.raises(UserError, match=r"line 3 holds the byte 0xf6\. Save the table in UTF-8"):
        read_text_table(tmp_path / "t.csv")


def test_values_of_json_stay_what_they_are(tmp_path: Path) -> None:
    columns = {
        "whole": [1, 2, None, 3],
        "huge": [12345678901234567890, 12345678901234567891, 1, 2],
        "fraction": [0.5, 1, None, 2.5],
        "truth": [True, False, None, True],
        "text": ["007", "NA", "", None],
        "mixed": ["1", True, 2.5, None],
        "lists": [["a", "b"], [], None, "c"],
        "nested": [{"a": 1}, None, None, None],
    }
    lines = [json.dumps({name: values[i] for name, values in columns.items()}) for i in range(4)]
    (tmp_path / "t.jsonl").write_text("\n".join(lines), encoding="utf-8")
    table = read_text_table(tmp_path / "t.jsonl")
    assert table.notes == (f"{tmp_path / 't.jsonl'}: left out 1 columns that hold objects; the first: nested",)
    found = {name: [None if np.ndim(v) == 0 and v != v else v for v in table.frame[name].astype(object).where(
        table.frame[name].notna(), None)] for name in table.frame}  # fmt: skip
    assert found == {
        "whole": [1, 2, None, 3],
        "huge": ["12345678901234567890", "12345678901234567891", "1", "2"],
        "fraction": [0.5, 1, None, 2.5],
        "truth": [True, False, None, True],
        "text": ["007", "NA", "", None],
        "mixed": ["1", "true", "2.5", None],
        "lists": [["a", "b"], [], None, "c"],
    }


def test_a_key_that_comes_late_in_json_is_missing_before(folder: Path) -> None:
    rows = [{"path": row["path"], "class": row["class"]} for row in ROWS]
    rows[4]["late"], rows[5]["late"] = 4, 5
    (folder / "t.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    data = load_dataset(DataConfig(name="csv", train_path=str(folder / "t.jsonl"), test_path=str(folder / "t.jsonl")))
    assert data.names["late"] == ("4", "5", "nan")


def test_a_list_of_many_files_is_read_fast(tmp_path: Path) -> None:
    """Two system calls a file; resolving each path anew took ten."""
    (tmp_path / "deep" / "folder").mkdir(parents=True)
    (tmp_path / "deep" / "folder" / "0.png").write_bytes(png(0))
    paths = ImagePaths(tmp_path)
    start = time.process_time()
    for _ in range(20_000):
        assert paths.find("deep/folder/0.png")
    assert time.process_time() - start < 3
