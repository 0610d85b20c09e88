"""A run's encoder in one's own code."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import clray
from tests.conftest import TINY, png
from tests.data.test_load import write_parquet

SECTIONS = {
    **TINY,
    "augmentation": {"name": "simclr"},
    "train": {**TINY["train"], "num_epochs": 1},
    "clusters": {"source": "labels"},
    "recluster": {},
}


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    for i in range(24):
        place = folder / ("ant", "bee")[i % 2]
        place.mkdir(exist_ok=True)
        (place / f"{i:02d}.png").write_bytes(png(i))
    return folder


@pytest.fixture(scope="module")
def run(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> clray.Run:
    tree = {**SECTIONS, "data": {"name": "imagefolder", "train_path": str(photos), "image_size": 8}}
    return clray.train(tree, {"output": str(tmp_path_factory.mktemp("out"))}, debug=True)


def test_an_image_alone_embeds_as_it_does_among_all(run: clray.Run, photos: Path) -> None:
    encoder = clray.load_encoder(run)
    assert not encoder.training
    h = clray.embed(encoder, photos)
    assert h.shape == (24, encoder.representation_dim)
    assert len(h.names) == 24
    for row in (0, 7, 23):
        with torch.no_grad():
            alone = encoder(encoder.transform(h.names[row])[None])[0]
        np.testing.assert_allclose(h[row], alone, rtol=1e-4, atol=1e-5)


def test_a_transform_takes_files_bytes_pillow_images_and_pixels_alike(run: clray.Run, photos: Path) -> None:
    encoder = clray.load_encoder(str(run.folder))
    file = photos / "ant" / "00.png"
    image = Image.open(file)
    expected = torch.from_numpy(np.asarray(image).transpose(2, 0, 1) / 255).float()
    for given in (file, str(file), file.read_bytes(), image, np.asarray(image)):
        torch.testing.assert_close(encoder.transform(given), expected)


def test_embeddings_of_pixels_equal_those_of_their_files_and_slices_forget_the_names(
    run: clray.Run, photos: Path
) -> None:
    encoder = clray.load_encoder(run.folder / "checkpoint.pt")
    from_files = clray.embed(encoder, str(photos), layer="z")
    pixels = np.stack([np.asarray(Image.open(name)).transpose(2, 0, 1) for name in from_files.names])
    np.testing.assert_allclose(clray.embed(encoder, pixels, layer="z"), from_files, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(from_files, axis=1), 1, rtol=1e-5)
    assert from_files[:3].names == ()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (np.zeros((2, 1, 8, 8), np.uint8), r"expected images as uint8 \[N, 3, H, W\]; got uint8 \[2, 1, 8, 8\]"),
        (np.zeros((2, 3, 8, 8), np.float32), "got float32"),
        (np.zeros((0, 3, 8, 8), np.uint8), "expected images"),
        ("nowhere", "expected a .parquet file"),
        ("nowhere.parquet", "no such file or folder"),
    ],
)
def test_what_cannot_be_embedded_is_refused(run: clray.Run, data: object, message: str) -> None:
    with pytest.raises(clray.UserError, match=message):
        clray.embed(clray.load_encoder(run), data)


def test_what_is_no_run_or_image_is_refused(run: clray.Run, tmp_path: Path) -> None:
    with pytest.raises(clray.UserError, match="no such checkpoint"):
        clray.load_encoder(tmp_path / "nowhere")
    encoder = clray.load_encoder(run)
    (tmp_path / "text.png").write_text("no image")
    for given in (tmp_path / "text.png", b"", "nowhere.png", np.zeros((2, 2, 2, 2), np.uint8)):
        with pytest.raises(clray.UserError, match="image: cannot be read"):
            encoder.transform(given)


def test_images_of_other_channels_are_refused(photos: Path, tmp_path: Path) -> None:
    grey = clray.train(SECTIONS, {"output": str(tmp_path), "augmentation.name": "digits"}, debug=True)
    encoder = clray.load_encoder(grey)
    with pytest.raises(clray.UserError, match="3 channels, the encoder was trained on 1"):
        clray.embed(encoder, photos)
    assert encoder.transform(Image.new("L", (8, 8), 255)).shape == (1, 8, 8)


def test_all_images_of_other_data_are_embedded_however_few_the_run_was_trained_on(photos: Path, tmp_path: Path) -> None:
    data = {"name": "imagefolder", "train_path": str(photos), "image_size": 8, "max_train_images": 12}
    few = clray.train({**SECTIONS, "data": data}, {"output": str(tmp_path)}, debug=True)
    assert len(clray.embed(clray.load_encoder(few), photos)) == 24
    (tmp_path / "parts").mkdir()
    write_parquet(tmp_path / "parts" / "a.parquet", [png(i) for i in range(24)], [i % 2 for i in range(24)])
    assert len(clray.embed(clray.load_encoder(few), tmp_path / "parts")) == 24
