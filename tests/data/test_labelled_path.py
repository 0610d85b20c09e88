"""A smaller labelled set beside the images that are trained on."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from clray.config.sections import DataConfig
from clray.data.build import build_parquet
from clray.data.check import check_data
from clray.data.guess import guess
from clray.data.load import check_files, load_descriptions
from clray.data.parts import load_parts
from clray.errors import UserError
from tests.conftest import png

BIG, SMALL = 60, 40


def write(path: Path, first: int, count: int, **columns: list[object]) -> str:
    vectors = np.ones((count, 3)) * np.arange(first, first + count)[:, None]
    pq.write_table(pa.table({"vector": pa.array(vectors.tolist(), pa.list_(pa.float32())), **columns}), path)
    return str(path)


def rows(images: object) -> list[int]:
    return np.round(images.vectors[:, 0]).astype(int).tolist()  # type: ignore[attr-defined]


@pytest.fixture
def config(tmp_path: Path) -> DataConfig:
    """Images 1 to 60 without labels, and 101 to 140 with."""
    species = [("cat", "dog")[i % 2] for i in range(SMALL)]
    return DataConfig(
        name="embeddings",
        train_path=write(tmp_path / "big.parquet", 1, BIG, place=[i % 3 for i in range(BIG)]),
        labelled_path=write(tmp_path / "small.parquet", 101, SMALL, species=species),
        label_column="species",
        validation_fraction=0.2,
    )


def test_all_images_are_trained_on_and_the_labelled_ones_teach_and_judge(config: DataConfig) -> None:
    data = load_parts(config)
    assert rows(data.train.images) == list(range(1, BIG + 1))
    assert len(data.train.labelled) == 0
    assert list(data.train.columns) == ["place"]
    assert data.labelled_set is not None
    assert data.validation is not None
    parts = (data.labelled_set, data.validation, data.test)
    assert [len(part) for part in parts] == [24, 6, 10]
    assert sorted(row for part in parts for row in rows(part.images)) == list(range(101, 101 + SMALL))
    for part in parts:
        assert part.labels.tolist() == [(row - 101) % 2 for row in rows(part.images)]
    assert (data.num_classes, data.names) == (2, {None: ("cat", "dog"), "place": ("0", "1", "2")})
    assert (data.teachers, data.judges) == (data.labelled_set, data.validation)


def test_descriptions_are_those_of_the_same_images(config: DataConfig) -> None:
    assert load_descriptions(config).train.columns["place"].tolist() == [i % 3 for i in range(BIG)]


def test_a_test_set_of_its_own_leaves_the_whole_labelled_set_to_teach(config: DataConfig, tmp_path: Path) -> None:
    test = write(tmp_path / "test.parquet", 201, 10, species=["cat", "dog"] * 5)
    data = load_parts(config.model_copy(update={"test_path": test, "max_train_images": 50, "max_test_images": 8}))
    assert data.labelled_set is not None
    assert data.validation is not None
    assert len(data.train) == 50
    assert len(data.labelled_set) + len(data.validation) == SMALL
    assert len(data.test) == 8
    assert min(rows(data.test.images)) > 200


def test_labels_of_the_images_that_are_trained_on_are_left_out_and_this_is_said(
    config: DataConfig, tmp_path: Path
) -> None:
    big = write(tmp_path / "sorted.parquet", 1, BIG, species=["fish", "bird"] * 30, place=[i % 3 for i in range(BIG)])
    data = load_parts(config.model_copy(update={"train_path": big}))
    assert len(data.train.labelled) == 0
    assert "species" not in data.train.columns
    assert data.names[None] == ("cat", "dog")
    assert "those of data.train_path are left out" in " ".join(data.notes)


def test_codes_of_a_target_agree_where_only_one_of_the_sets_has_it(config: DataConfig) -> None:
    data = load_parts(config, ("place",))
    assert data.num_classes == 2
    assert data.train.targets["place"].tolist() == [i % 3 for i in range(BIG)]
    assert (data.teachers.targets["place"] == -1).all()


def test_a_flat_folder_is_trained_on_beside_a_folder_of_each_class(tmp_path: Path) -> None:
    for number in range(20):
        places = [tmp_path / "photos" / f"{number}.png", tmp_path / "known" / f"class{number % 2}" / f"{number}.png"]
        for place in places:
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(png(number))
    folders = {"train_path": str(tmp_path / "photos"), "labelled_path": str(tmp_path / "known")}
    data = load_parts(DataConfig(name="imagefolder", **folders))
    assert (len(data.train), data.names[None]) == (20, ("class0", "class1"))
    assert len(data.teachers.labelled) + len(data.judges.labelled) == 15
    assert len(data.test.labelled) == 5


def test_images_of_another_size_are_named_for_what_they_are(config: DataConfig, tmp_path: Path) -> None:
    wide = pa.array(np.ones((8, 4)).tolist(), pa.list_(pa.float32()))
    pq.write_table(pa.table({"vector": wide}), tmp_path / "wide.parquet")
    with pytest.raises(UserError, match="the training vectors have 4 dimensions and the labelled vectors 3"):
        load_parts(config.model_copy(update={"train_path": str(tmp_path / "wide.parquet")}))


def test_a_labelled_set_that_is_missing_or_has_no_labels_is_refused(config: DataConfig, tmp_path: Path) -> None:
    bare = write(tmp_path / "bare.parquet", 1, 8)
    with pytest.raises(UserError, match=r"data\.labelled_path: the images of .*bare.parquet have no labels"):
        load_parts(config.model_copy(update={"labelled_path": bare, "label_column": None}))
    described = load_descriptions(config.model_copy(update={"labelled_path": bare, "label_column": None}))
    assert len(described.train) == BIG
    with pytest.raises(UserError, match=r"data\.labelled_path: no such file or folder"):
        check_files(config.model_copy(update={"labelled_path": str(tmp_path / "none.parquet")}))
    with pytest.raises(ValueError, match="labelled_path belongs to images or vectors of your own"):
        DataConfig(name="digits", labelled_path="x.parquet")


@pytest.fixture
def photos(tmp_path: Path) -> DataConfig:
    """12 images without labels, and 8 with, of which the second is damaged."""
    for name, first, count in (("big", 0, 12), ("small", 100, 8)):
        images = [png(np.full((4, 4, 3), first + i)) for i in range(count)]
        columns = {} if name == "big" else {"label": [i % 2 for i in range(count)]}
        if name == "small":
            images[1] = b"no image"
        pq.write_table(pa.table({"image": images, **columns}), tmp_path / f"{name}.parquet")
    small = str(tmp_path / "small.parquet")
    return DataConfig(name="parquet", train_path=str(tmp_path / "big.parquet"), labelled_path=small, test_fraction=0.25)


def test_a_check_counts_and_decodes_the_labelled_images_too(photos: DataConfig) -> None:
    report = check_data(photos)
    found = {each.name: each.found for each in report.findings}
    assert found == {"images": 20, "labelled images": 8, "training images": 12, "classes": 2, "attributes": 0,
                     "images without a label": 12}  # fmt: skip
    assert report.num_bad == 1


def test_a_build_writes_the_labelled_images_apart_and_is_read_back_the_same(photos: DataConfig, tmp_path: Path) -> None:
    built = build_parquet(photos, tmp_path / "built")
    assert (built.num_train, built.num_labelled, built.num_test, built.num_bad) == (12, 5, 2, 1)
    paths = {f"{part}_path": str(tmp_path / "built" / part) for part in ("train", "labelled", "test")}
    before, after = (
        load_parts(config)
        for config in (
            photos.model_copy(update={"on_bad_image": "skip"}),
            photos.model_copy(update=paths),
        )
    )
    for name in ("train", "labelled_set", "test"):
        of_before, of_after = getattr(before, name), getattr(after, name)
        np.testing.assert_array_equal(of_before.images.pixels, of_after.images.pixels)
        np.testing.assert_array_equal(of_before.labels, of_after.labels)


def test_a_first_guess_takes_the_classes_from_the_labelled_images(
    photos: DataConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert photos.train_path is not None
    monkeypatch.chdir(Path(photos.train_path).parent)
    found = guess(Path("big.parquet"), {"labelled_path": "small.parquet"})
    assert (found.num_classes, found.num_train) == (2, 12)
    # So that the config runs from any folder.
    assert (found.data["train_path"], found.data["labelled_path"]) == (photos.train_path, photos.labelled_path)


def test_a_labelled_set_that_the_reader_does_not_take_is_named(tmp_path: Path) -> None:
    (tmp_path / "known").mkdir()
    (tmp_path / "0.png").write_bytes(png(0))
    (tmp_path / "t.csv").write_text("path\n0.png\n", encoding="utf-8")
    config = DataConfig(name="csv", train_path=str(tmp_path / "t.csv"), labelled_path=str(tmp_path / "known"))
    with pytest.raises(UserError, match=r"data\.labelled_path, read as data\.name=csv: .*known: expected a file"):
        load_parts(config)
