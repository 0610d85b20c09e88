"""Clusters as folders: every image once, by a safe name, and nothing overwritten."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from clray.errors import UserError
from clray.report.look.folders import copy_clusters, file_of, safe_name
from clray.report.look.opened import open_run


@pytest.mark.parametrize("as_copies", [False, True])
def test_every_image_lies_in_the_folder_of_its_cluster(run_folder: Path, tmp_path: Path, as_copies: bool) -> None:
    run = open_run(run_folder)
    assert copy_clusters(run, tmp_path / "c", as_copies=as_copies) == len(run.ids)
    for path in (tmp_path / "c").glob("*/*"):
        row, cluster = int(path.name.split("_")[0]), int(path.parent.name.split("_")[1])
        assert run.ids[row] == cluster
        assert path.is_symlink() != as_copies
        file = file_of(run.data.train.images.name(row))
        assert file is not None
        assert path.read_bytes() == file.read_bytes()


def test_a_folder_that_holds_something_is_not_touched(run_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("kept")
    for place in (tmp_path, tmp_path / "mine"):
        with pytest.raises(UserError, match="exists already"):
            copy_clusters(open_run(run_folder), place)
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_images_in_no_file_of_their_own_are_written_as_the_encoder_saw_them(run_folder: Path, tmp_path: Path) -> None:
    run = open_run(run_folder)
    object.__setattr__(run.data.train.images, "rows", ())
    copy_clusters(run, tmp_path / "c")
    path = next((tmp_path / "c").glob("*/0000003_*"))
    np.testing.assert_array_equal(np.asarray(Image.open(path)).transpose(2, 0, 1), run.data.train.images.pixels[3])


@pytest.mark.parametrize(
    "name", ["../../etc/passwd", "a\0b", "-rf", ".hidden", "x" * 400, "\u202egnp.exe", "a/b\nc", ""]
)
def test_no_name_leads_out_of_its_folder(name: str, tmp_path: Path) -> None:
    safe = safe_name(name)
    path = tmp_path / f"0000001_{safe}"
    path.write_bytes(b"")
    assert path.parent == tmp_path
    assert not safe.startswith((".", "-"))
