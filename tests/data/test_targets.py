"""Attributes in the place of labels, and beside them."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from clray.config import parse_config
from clray.config.sections import DataConfig
from clray.data.load import load_dataset
from clray.data.parts import load_parts
from clray.errors import UserError

N = 80
MATERIAL = [None if i % 8 == 7 else ("wood", "steel")[i % 2] for i in range(N)]
COLOURS = [["red"] if i % 3 else ["red", "blue"] if i % 2 else ["blue"] for i in range(N)]


def written(path: Path, **columns: object) -> DataConfig:
    """Vectors as Parquet, with a column that tells each row's number."""
    vectors = np.ones((N, 3)) * np.arange(1, N + 1)[:, None]
    table = {"vector": pa.array(vectors.tolist(), pa.list_(pa.float32())), **columns}
    pq.write_table(pa.table(table), path)
    return DataConfig(name="embeddings", train_path=str(path), validation_fraction=0.25)


def rows(images: object) -> np.ndarray:
    return np.round(images.vectors[:, 0]).astype(int) - 1  # type: ignore[attr-defined]


def test_without_labels_the_first_target_takes_their_place(tmp_path: Path) -> None:
    config = written(tmp_path / "t.parquet", material=MATERIAL, colour=COLOURS)
    data = load_parts(config, ("material", "colour=blue"))
    assert (data.num_classes, data.names[None]) == (2, ("steel", "wood"))
    assert data.targets == {"colour=blue": ("no", "yes")}
    assert data.validation is not None
    for part in (data.train, data.validation, data.test):
        wanted = [-1 if MATERIAL[row] is None else ("steel", "wood").index(MATERIAL[row]) for row in rows(part.images)]
        assert part.labels.tolist() == wanted
        assert part.targets["colour=blue"].tolist() == ["blue" in COLOURS[row] for row in rows(part.images)]
    assert "material takes their place" in " ".join(data.notes)
    assert "left out" not in " ".join(data.notes)


def test_targets_change_neither_the_images_of_a_part_nor_the_attributes(tmp_path: Path) -> None:
    config = written(tmp_path / "t.parquet", material=MATERIAL, colour=COLOURS)
    plain, aimed = load_parts(config), load_parts(config, ("material",))
    for part in ("train", "validation", "test"):
        assert np.array_equal(rows(getattr(plain, part).images), rows(getattr(aimed, part).images))
    for name, codes in plain.train.columns.items():
        assert np.array_equal(codes, aimed.train.columns[name])
    assert plain.names[None] == ()


def test_beside_labels_targets_leave_the_headline_as_it_is(tmp_path: Path) -> None:
    config = written(tmp_path / "t.parquet", label=[i % 4 for i in range(N)], material=MATERIAL)
    plain, aimed = load_parts(config), load_parts(config, ("material",))
    assert (aimed.num_classes, aimed.names) == (4, plain.names)
    assert np.array_equal(aimed.train.labels, plain.train.labels)
    assert aimed.targets == {"material": ("steel", "wood")}
    few = aimed.train.select(np.arange(5))
    assert few.targets["material"].tolist() == aimed.train.targets["material"][:5].tolist()


def test_a_continuous_target_is_cut_into_bins(tmp_path: Path) -> None:
    config = written(tmp_path / "t.parquet", weight=[None if i == 3 else i + 0.5 for i in range(N)])
    data = load_dataset(config, ("weight",))
    assert len(data.targets["weight"]) == config.num_bins
    known = np.concatenate([data.train.targets["weight"], data.test.targets["weight"]])
    assert sorted(np.bincount(known + 1).tolist()) == [1, 19, 20, 20, 20]
    order = np.argsort(rows(data.train.images))
    binned = data.train.targets["weight"][order]
    assert (np.diff(binned[binned >= 0]) >= 0).all()


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        (("materiel",), "no attribute materiel; they have: material, colour, same"),
        (("colour",), "name one value, as in colour=red"),
        (("same",), "same tells no images apart"),
    ],
)
def test_a_target_that_cannot_be_measured_is_refused_by_name(
    tmp_path: Path, targets: tuple[str, ...], message: str
) -> None:
    config = written(tmp_path / "t.parquet", material=MATERIAL, colour=COLOURS, same=["x"] * N)
    with pytest.raises(UserError, match=r"evaluate\.targets: ") as caught:
        load_parts(config, targets)
    assert message in str(caught.value)


def test_a_target_is_named_once() -> None:
    with pytest.raises(UserError, match=r"name each attribute once, .* got material, material"):
        parse_config({"evaluate": {"targets": ["material", "colour", "material"]}})
