"""Columns and names of classes found in Parquet files as Hugging Face's `datasets` writes them."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from clray.config.sections import DataConfig
from clray.data.load import load_dataset
from clray.data.readers.hub_columns import class_names
from clray.data.readers.tables import read_columns
from clray.errors import UserError
from tests.conftest import png

FINE = {"_type": "ClassLabel", "names": ["wolf", "ant", "bee"]}
COARSE = {"_type": "ClassLabel", "names": ["mammal", "insect"]}
CODES = [0, 1, 2, 2, 1, 0, 1, 2]


def write(path: Path, features: dict[str, Any] | None = None, **columns: object) -> Path:
    table = pa.table(columns)
    if features is not None:
        metadata = {"huggingface": json.dumps({"info": {"features": features}})}
        table = table.replace_schema_metadata(metadata)
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path)
    return path


def images(count: int = 8) -> list[dict[str, object]]:
    return [{"bytes": png(i), "path": None} for i in range(count)]


def config(path: Path, **changes: object) -> DataConfig:
    return DataConfig(name="parquet", train_path=str(path), test_path=str(path), **changes)


def test_cifar100_of_a_hub_is_read_without_being_told(tmp_path: Path) -> None:
    features = {"img": {"_type": "Image"}, "fine_label": FINE, "coarse_label": COARSE}
    path = write(
        tmp_path / "train-00000-of-00001.parquet", features,
        img=images(), fine_label=CODES, coarse_label=[int(code > 0) for code in CODES],
    )  # fmt: skip
    data = load_dataset(config(path))
    assert data.names[None] == ("ant", "bee", "wolf")
    assert [data.names[None][code] for code in data.train.labels] == [FINE["names"][code] for code in CODES]
    assert data.names["coarse_label"] == ("insect", "mammal")
    assert "images are read from column img, and labels from fine_label" in " ".join(data.notes)
    coarse = load_dataset(config(path, label_column="coarse_label"))
    assert coarse.names[None] == ("insect", "mammal")
    assert set(coarse.train.columns) == {"fine_label"}


@pytest.mark.parametrize(
    ("label", "features"),
    [("labels", None), ("target", None), ("species", {"species": FINE}), ("label", {"other": COARSE})],
)
def test_a_label_column_is_found_by_its_name_or_its_classes(tmp_path: Path, label: str, features: Any) -> None:
    path = write(tmp_path / "t.parquet", features, photo=images(), other=[0, 1] * 4, **{label: CODES})
    assert load_dataset(config(path)).num_classes == 3


def test_several_columns_of_images_are_not_chosen_between(tmp_path: Path) -> None:
    path = write(tmp_path / "t.parquet", front=images(), back=images(), label=CODES)
    with pytest.raises(UserError, match=r"several may hold images: front, back.* with data\.image_column"):
        load_dataset(config(path))
    assert len(load_dataset(config(path, image_column="back")).train) == 8


def test_a_table_without_images_says_so(tmp_path: Path) -> None:
    path = write(tmp_path / "t.parquet", photo=list("abcdefgh"), label=CODES)
    with pytest.raises(UserError, match=r"none holds encoded images; the table has: photo, label"):
        load_dataset(config(path))


def test_shards_with_and_without_names_of_classes_agree(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", {"label": FINE}, image=images(), label=CODES)
    write(tmp_path / "b.parquet", image=images(), label=pa.array(CODES, pa.int8()).dictionary_encode())
    write(tmp_path / "c.parquet", image=images(), label=pa.array(["wolf", "ant"] * 4, pa.large_string()))
    (labels,) = read_columns(tmp_path, ["label"])
    assert labels.tolist() == 2 * [FINE["names"][code] for code in CODES] + ["wolf", "ant"] * 4


def test_the_codes_of_a_shard_mean_what_its_own_metadata_say(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", {"label": FINE}, image=images(), label=CODES)
    other = {"_type": "ClassLabel", "names": ["bee", "wolf", "ant"]}
    write(tmp_path / "b.parquet", {"label": other}, image=images(), label=[(code + 1) % 3 for code in CODES])
    (labels,) = read_columns(tmp_path, ["label"])
    assert labels.tolist() == 2 * [FINE["names"][code] for code in CODES]
    write(tmp_path / "c.parquet", image=images(), label=CODES)
    with pytest.raises(UserError, match="the types of a column differ between the files"):
        read_columns(tmp_path, ["label"])


def test_the_test_set_of_a_hub_may_have_no_labels(tmp_path: Path) -> None:
    path = write(tmp_path / "t.parquet", {"label": FINE}, image=images(), label=[0, -1, *CODES[2:]])
    (labels,) = read_columns(path, ["label"])
    assert labels.isna().tolist() == [False, True] + [False] * 6


def test_a_code_without_a_name_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "t.parquet", {"label": FINE}, image=images(), label=[0, 7, *CODES[2:]])
    with pytest.raises(UserError, match=r"column 'label' holds the class 7, and its metadata name the classes 0 to 2"):
        load_dataset(config(path))


@pytest.mark.parametrize("form", [{"_type": "Sequence", "feature": FINE}, {"_type": "List", "feature": FINE}, [FINE]])
def test_lists_of_classes_have_names_too(tmp_path: Path, form: Any) -> None:
    lists = [[0], [1, 2], [], None, [2], [0], [0], [1]]
    path = write(tmp_path / "t.parquet", {"tags": form}, image=images(), label=CODES, tags=lists)
    assert set(load_dataset(config(path)).train.columns) == {"tags=ant", "tags=bee", "tags=wolf"}


@pytest.mark.parametrize(
    "metadata",
    [b"", b"{", b"[]", b"1", b"\xff", b'{"info": 1}', b'{"info": {"features": []}}', b"[" * 100_000,
     b'{"info": {"features": {"label": {"_type": "ClassLabel", "names": [1, 2]}}}}',
     b'{"info": {"features": {"label": {"_type": "ClassLabel", "names": ["a", "a"]}}}}'],
)  # fmt: skip
def test_metadata_of_another_form_name_no_classes(metadata: bytes) -> None:
    assert class_names(pa.schema([("label", pa.int64())], {b"huggingface": metadata})) == {}
