import pickle
from pathlib import Path

import pytest
import torch

from clray.config import UserError
from clray.train.checkpoint import CHECKPOINT_FILE, read_checkpoint, write_checkpoint

CHECKPOINT = {"cluster_ids": torch.arange(4), "epoch": 2}


def test_a_checkpoint_reads_back_from_its_file_and_its_folder(tmp_path: Path) -> None:
    path = write_checkpoint(tmp_path, CHECKPOINT)
    for place in (path, tmp_path):
        assert torch.equal(read_checkpoint(place)["cluster_ids"], torch.arange(4))
    assert [file.name for file in tmp_path.iterdir()] == [CHECKPOINT_FILE]


def test_a_checkpoint_cut_short_is_refused(tmp_path: Path) -> None:
    path = write_checkpoint(tmp_path, CHECKPOINT)
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(UserError, match="not a complete checkpoint"):
        read_checkpoint(path)


class Planted:
    def __reduce__(self) -> tuple:
        return (Path.touch, (Path("planted"),))


def test_code_in_a_checkpoint_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"cluster_ids": Planted()}, tmp_path / "zip.pt")
    (tmp_path / "raw.pt").write_bytes(pickle.dumps(Planted(), protocol=2))
    for name in ("zip.pt", "raw.pt"):
        with pytest.raises(UserError, match="not a complete checkpoint"):
            read_checkpoint(tmp_path / name)
    assert not (tmp_path / "planted").exists()


def test_a_missing_checkpoint_says_what_to_give(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no such checkpoint; give a checkpoint\.pt or the folder of a run"):
        read_checkpoint(tmp_path)
