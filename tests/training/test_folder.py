import itertools
from pathlib import Path

import pytest

from clray.config import Config, override
from clray.errors import UserError
from clray.training.folder import claim_folder, write_config
from clray.training.metrics import append_metrics

CONFIG_NAME = "quick"


def config_in(folder: Path) -> Config:
    return Config(output=str(folder))


def test_a_folder_that_holds_another_run_is_never_taken(tmp_path: Path) -> None:
    write_config(config_in(tmp_path), tmp_path / "mine")
    with pytest.raises(UserError, match="holds another run; resume it with `resume`, or choose another `name`"):
        claim_folder(config_in(tmp_path), CONFIG_NAME, "mine", resume=False)


def test_by_default_the_folder_is_named_by_config_and_time(tmp_path: Path) -> None:
    folder = claim_folder(config_in(tmp_path), CONFIG_NAME, None, resume=False)
    assert folder.is_absolute()
    assert folder.name.startswith("quick-")
    assert not folder.exists()


def test_resuming_takes_the_folder_of_the_same_config(tmp_path: Path) -> None:
    config = config_in(tmp_path)
    write_config(config, tmp_path / "mine")
    assert claim_folder(config, CONFIG_NAME, "mine", resume=True) == (tmp_path / "mine").resolve()
    changed = override(config, {"train.num_epochs": 77})
    with pytest.raises(UserError, match=r"differs .* in train\.num_epochs .*is 77, was 10"):
        claim_folder(changed, CONFIG_NAME, "mine", resume=True)
    counts: tuple[object, ...] = (1, 8, [2, 8], [1, 3])
    for before, now in itertools.product(counts, counts):
        write_config(override(config, {"train.num_workers": before}), tmp_path / "mine")
        more = override(config, {"train.num_workers": now})
        assert claim_folder(more, CONFIG_NAME, "mine", resume=True) == (tmp_path / "mine").resolve()


def test_a_run_and_a_sweep_never_resume_in_the_folder_of_the_other(tmp_path: Path) -> None:
    run = config_in(tmp_path)
    swept = override(run, {"search_space": [{"clusters.num_clusters": {"grid_search": [2, 3]}}]})
    write_config(run, tmp_path / "run")
    write_config(swept, tmp_path / "sweep")
    with pytest.raises(UserError, match=r"sweep/config\.yaml is of a sweep; resume it with `clray sweep`, or give the"):
        claim_folder(run, CONFIG_NAME, "sweep", resume=True)
    with pytest.raises(UserError, match=r"run/config\.yaml is of a run; resume it with `clray train`, or give the"):
        claim_folder(swept, CONFIG_NAME, "run", resume=True)
    write_config(swept, tmp_path / "earlier")  # runs kept their file's search space
    append_metrics(tmp_path / "earlier", {"epoch": 1})
    for config, name in ((run, "run"), (swept, "sweep"), (run, "earlier")):
        assert claim_folder(config, CONFIG_NAME, name, resume=True) == (tmp_path / name).resolve()


def test_there_is_nothing_to_resume_in_an_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no run to resume"):
        claim_folder(config_in(tmp_path), CONFIG_NAME, "mine", resume=True)
    with pytest.raises(UserError, match="resume: give the `name` of the run"):
        claim_folder(config_in(tmp_path), CONFIG_NAME, None, resume=True)
