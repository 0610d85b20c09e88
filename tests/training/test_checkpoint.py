import pickle
import resource
import signal
from pathlib import Path

import pytest
import torch

from clray.errors import UserError
from clray.training.checkpoint import newest_checkpoint, read_checkpoint, write_checkpoint
from clray.training.checkpoint_form import Checkpoint
from clray.training.checkpoint_parts import CHECKPOINT_FILE

CHECKPOINT: Checkpoint = {
    "config": {},
    "num_channels": 1,
    "epoch": 2,
    "step_in_epoch": 0,
    "clustered_step": None,
    "order_ids": None,
    "model": {"weight": torch.zeros(3)},
    "optimizer": {"state": {}, "param_groups": []},
    "schedule": {"last_epoch": 0},
    "objective": {},
    "cluster_ids": torch.arange(4)[None],
    "num_clusters": [4],
    "cluster_source": "labels",
    "centroids": None,
    "meter": {
        "losses": torch.empty(0),
        "positives": torch.empty(0),
        "num_samples": 0,
        "seconds": 0.0,
        "data_wait_seconds": 0.0,
    },
    "bank": None,
    "recluster_metrics": {},
}


def test_a_checkpoint_reads_back_from_its_file_and_its_folder(tmp_path: Path) -> None:
    path = write_checkpoint(tmp_path, CHECKPOINT)
    for place in (path, tmp_path):
        assert torch.equal(read_checkpoint(place)["cluster_ids"], torch.arange(4)[None])
    assert [file.name for file in tmp_path.iterdir()] == [CHECKPOINT_FILE]


def test_a_checkpoint_cut_short_is_refused(tmp_path: Path) -> None:
    path = write_checkpoint(tmp_path, CHECKPOINT)
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(UserError, match="not a complete checkpoint of clray: it is cut short, or another"):
        read_checkpoint(path)


def test_another_kind_of_file_is_refused_in_clrays_own_words(tmp_path: Path) -> None:
    kinds = {"notes.txt": b"hello", "empty.pt": b"", "numbers.npy": b"\x93NUMPY", "digits.zip": b"PK\x03\x04"}
    for name, content in kinds.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError) as refused:
            read_checkpoint(tmp_path / name)
        assert str(refused.value).startswith(f"{tmp_path / name}: not a complete checkpoint of clray: it is cut short")
        assert "weights_only" not in str(refused.value)
    torch.save({"cluster_ids": Planted()}, tmp_path / "code.pt")
    with pytest.raises(UserError, match="it holds more than tensors and plain values, or is damaged"):
        read_checkpoint(tmp_path / "code.pt")


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


def test_the_newest_whole_checkpoint_is_used_and_so_many_are_kept(tmp_path: Path) -> None:
    for epoch in range(4):
        write_checkpoint(tmp_path, {**CHECKPOINT, "epoch": epoch}, num_kept=3)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["checkpoint.1.pt", "checkpoint.2.pt", "checkpoint.pt"]
    for name, epoch in (("checkpoint.pt", 3), ("checkpoint.1.pt", 2), ("checkpoint.2.pt", 1)):
        newest = newest_checkpoint(tmp_path)
        assert newest is not None
        assert newest["epoch"] == epoch
        (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:300])
    with pytest.raises(UserError, match="no checkpoint of the run can be used"):
        newest_checkpoint(tmp_path)


def test_a_full_disk_costs_no_earlier_checkpoint(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, CHECKPOINT, num_kept=2)
    large = {**CHECKPOINT, "epoch": 3, "model": {"weight": torch.zeros(2**18)}}
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        # A file that may not grow answers a write as a full disk does: with an error in the middle.
        resource.setrlimit(resource.RLIMIT_FSIZE, (2**17, limits[1]))
        with pytest.raises(UserError, match=r"cannot be written .* the previous one is intact"):
            write_checkpoint(tmp_path, large, num_kept=2)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, ignored)
    assert [file.name for file in tmp_path.iterdir()] == [CHECKPOINT_FILE]
    assert read_checkpoint(tmp_path)["epoch"] == 2
