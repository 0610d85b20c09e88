"""clray data and clray clusters as a user calls them."""

import json
import shlex
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import Result
from typer.testing import CliRunner

from clray.cli.app import app
from clray.config import load_config, parse_assignment, parse_config, with_overrides
from clray.config.sections import DataConfig
from clray.data.load import load_dataset
from clray.data.validation import with_validation
from clray.errors import UserError
from clray.training.start import start_clusters
from tests.conftest import png
from tests.data.readers.published.layouts import write_cub, write_wider

Clray = Callable[..., object]


def test_a_check_says_what_is_missing_and_where_it_is_obtained(clray: Clray, tmp_path: Path) -> None:
    root = write_wider(tmp_path)
    (root / "Image" / "train" / "0--Parade" / "0_Parade_1.jpg").unlink()
    done = clray("data", "check", "wider_attribute", "--root", root)
    assert done.returncode == 1
    assert "13,789" in done.stdout
    assert "0_Parade_1.jpg" in done.stdout
    assert "obtained from: the Chinese University of Hong Kong" in done.stdout
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("check", "cub"), "no data set 'cub'; there are: digits,"),
        (("check", "cub200"), "--root is required for cub200"),
        (("check", "cub200", "--root", "nowhere"), "data.train_path: no such file or folder: nowhere"),
        (("check", "digits", "--set", "train.num_epochs=3"), "only data.* keys are used here"),
        (("build", "digits", "-o", "."), "exists and holds no clray build"),
    ],
)
def test_what_cannot_be_meant_is_refused(clray: Clray, arguments: tuple[str, ...], message: str) -> None:
    done = clray("data", *arguments)
    assert done.returncode == 2
    assert message in done.stderr


def test_a_build_is_trained_on_by_the_words_it_ends_with(clray: Clray, tmp_path: Path) -> None:
    root, output = write_cub(tmp_path / "cub"), tmp_path / "out"
    done = clray("data", "build", "cub200", "--root", root, "-o", output, "--set", "data.image_size=8")
    assert done.returncode == 0, done.stderr
    words = done.stdout.split("train on it: ")[1].split()
    assert words[1::2] == [
        "data.name=parquet", f"data.train_path={output / 'train'}", f"data.test_path={output / 'test'}",
    ]  # fmt: skip
    checked = clray("data", "check", output / "train", "--json")
    assert json.loads(checked.stdout)["findings"][0]["found"] == 4


def test_a_build_of_several_label_columns_is_trained_on_with_all_of_them(tmp_path: Path) -> None:
    rows = []
    for i in range(6):
        (tmp_path / f"{i}.png").write_bytes(png(i))
        rows.append({"path": f"{i}.png", "kind": "ab"[i % 2], "colour": "rgb"[i % 3], "note": "x"})
    pd.DataFrame(rows).to_csv(tmp_path / "table.csv", index=False)
    columns = 'data.label_columns=["kind","colour"]'
    done = CliRunner().invoke(
        app, ["data", "build", str(tmp_path / "table.csv"), "-o", str(tmp_path / "out"), "--set", columns]
    )
    assert done.exit_code == 0, done.output
    words = shlex.split(done.output.split("train on it: ")[1].splitlines()[0])
    settings = dict(parse_assignment(word) for word in words[1::2])
    built = load_dataset(parse_config(with_overrides({}, {**settings, "data.image_size": 8})).data)
    assert built.label_columns == (None, "colour")
    assert sorted(built.names[None]) == ["a", "b"]


def test_clusters_of_attributes_tell_their_statistics_and_are_trained_on(clray: Clray, tmp_path: Path) -> None:
    """Two attributes of two equally frequent values, of which `a` is the label: 1 bit each, and together 4 clusters."""
    for i in range(8):
        (tmp_path / f"{i}.png").write_bytes(png(i))
    frame = pd.DataFrame({
        "path": [f"{i}.png" for i in range(8)],
        "class": [0, 1] * 4, "a": list("xy") * 4, "b": list("xxyy") * 2, "rare": [None] * 7 + ["z"],
    })  # fmt: skip
    frame.to_csv(tmp_path / "t.csv", index=False)
    output = tmp_path / "clusters"
    all_train = ("--set", f"data.test_path={tmp_path / 't.csv'}", "--set", "data.validation_fraction=0")
    done = clray("clusters", "build", tmp_path / "t.csv", *all_train, "--top-k", "1,2", "-o", output, "--json")
    assert done.returncode == 0, done.stderr
    first, second = json.loads(done.stdout)
    assert first["attributes"] == [["a", 1.0]]
    assert second["attributes"] == [["a", 1.0], ["b", 1.0]]
    assert (first["clusters/mutual_information_bits"], first["clusters/conditional_entropy_bits"]) == (1.0, 0.0)
    bits = (second["clusters/mutual_information_bits"], second["clusters/conditional_entropy_bits"])
    assert bits == pytest.approx((1.0, 1.0))
    np.testing.assert_array_equal(np.load(output / "k4" / "assignments.npy"), [0, 2, 1, 3] * 2)
    statistics = (
        "statistics",
        output / "clusters.parquet",
        "--clusters",
        "label_gran_2",
        "--labels",
        "label",
        "--json",
    )
    assert json.loads(clray(*statistics).stdout)["clusters/conditional_entropy_bits"] == pytest.approx(1.0)
    refused = clray("clusters", "build", tmp_path / "t.csv", "--top-k", "9", "-o", tmp_path / "other")
    assert refused.returncode == 2
    assert "--top-k: must be between 1 and 3 (the attributes); got [9]" in refused.stderr


def test_clusters_of_a_hierarchy_at_each_level(clray: Clray, tmp_path: Path) -> None:
    (tmp_path / "tree.yaml").write_text("animal: {pet: [cat, dog], wild: [fox]}\nthing: {tool: [saw]}\n")
    for name in "abcd":
        (tmp_path / name).write_bytes(png(0))
    pd.DataFrame({"class": ["cat", "dog", "fox", "saw"], "path": list("abcd")}).to_csv(tmp_path / "t.csv", index=False)
    all_train = ("--set", f"data.test_path={tmp_path / 't.csv'}", "-o", tmp_path / "out")
    arguments = ("--source", "hierarchy", "--tree", tmp_path / "tree.yaml", "--levels", "0,1,2", *all_train)
    done = clray("clusters", "build", tmp_path / "t.csv", *arguments, "--json")
    assert done.returncode == 0, done.stderr
    assert [each["clusters/num_clusters"] for each in json.loads(done.stdout)] == [2, 3, 4]


@pytest.mark.parametrize(
    "sets",
    [
        (),
        ("data.max_train_images=20",),
        ("data.test_fraction=0.4", "data.split_seed=3", "data.validation_fraction=0.3"),
        ("data.on_bad_image=skip", "data.max_train_images=20"),
    ],
)
def test_the_printed_words_give_a_run_the_clusters_that_were_built(tmp_path: Path, sets: tuple[str, ...]) -> None:
    """In a folder whose name a shell and YAML would both take apart."""
    folder = tmp_path / "my data: it's"
    folder.mkdir()
    for i in range(40):
        (folder / f"{i}.png").write_bytes(b"broken" if "skip" in "".join(sets) and i % 9 == 4 else png(i))
    paths = [f"{i}.png" for i in range(40)]
    frame = pd.DataFrame({"path": paths, "class": list("abcd") * 10, "x": [i % 7 for i in range(40)]})
    frame.to_csv(folder / "t.csv", index=False)
    words = ["clusters", "build", str(folder / "t.csv"), "--top-k", "1", "-o", str(folder / "out")]
    done = CliRunner().invoke(app, [*words, *(word for each in sets for word in ("--set", each))])
    assert done.exit_code == 0, done.output
    command = shlex.split(done.output.split("train on it: ")[1].splitlines()[0])
    assert command[:2] == ["clray", "train"]
    printed = shlex.split(done.output.split("or with a config of your own: ")[1])
    by_options = parse_config(with_overrides({}, dict(map(parse_assignment, printed[1::2]))))
    for config in (load_config(command[2]), by_options):
        data = with_validation(load_dataset(config.data), config.data)
        (assignment,) = start_clusters(config, data)
        expected = [int(Path(name.split("(")[1].rstrip(")")).stem) % 7 for name in _names_of(config.data)]
        np.testing.assert_array_equal(assignment.ids, expected)
        assert len(data.train) == len(assignment)


def build(folder: Path, *arguments: str, **columns: list[object]) -> Result:
    """`clray clusters build` of twelve images in a folder."""
    for i in range(12):
        (folder / f"{i}.png").write_bytes(png(i))
    pd.DataFrame({"path": [f"{i}.png" for i in range(12)], **columns}).to_csv(folder / "t.csv", index=False)
    words = ("clusters", "build", str(folder / "t.csv"), "--set", "data.validation_fraction=0")
    return CliRunner().invoke(app, [*words, "-o", str(folder / "out"), *arguments])


COLUMNS: dict[str, list[object]] = {
    "class": list("ab") * 6,
    "number": [f"n{i}" for i in range(12)],
    "half": list("xxxxxxyyyyyy"),
    "third": list("ppqqrr") * 2,
}


@pytest.mark.slow
def test_the_printed_command_trains(clray: Clray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = build(Path(), "--top-k", "1,2", **COLUMNS)
    command = shlex.split(done.output.split("train on it: ")[1].splitlines()[0])
    few = [f"--set={each}" for each in ("train.num_epochs=1", "train.global_batch_size=4", "tracking.models=none",
                                        "tracking.pictures=none", "evaluate.num_neighbors=1")]  # fmt: skip
    trained = clray(*command[1:], "--debug", "--json", *few)
    assert trained.returncode == 0, trained.stderr
    metrics = json.loads(trained.stdout[trained.stdout.index("{") :])["metrics"]
    assert metrics["clusters/num_clusters"] == load_config(command[2]).clusters.num_clusters >= 2


def test_a_column_of_ids_is_left_out_of_the_clusters_with_a_word(tmp_path: Path) -> None:
    done = build(tmp_path, "--top-k", "2", **COLUMNS)
    assert done.exit_code == 0, done.output
    assert "as every image has a value of its own there: number; a column that is named in --attributes" in (
        " ".join(done.output.split())
    )
    summary = json.loads((tmp_path / "out" / "clustering.json").read_text())["granularities"]
    assert set(summary[0]["attributes"]) == {"half", "third"}


@pytest.mark.parametrize(
    ("arguments", "chosen"),
    [
        (("--attributes", "half,number", "--top-k", "1"), ["number"]),
        (("--order", "half, third", "--top-k", "1,2"), ["half", "third"]),
        (("--order", "half, third"), ["half", "third"]),
    ],
)
def test_candidates_and_their_order_can_be_named(tmp_path: Path, arguments: tuple[str, ...], chosen: list[str]) -> None:
    done = build(tmp_path, *arguments, **COLUMNS)
    assert done.exit_code == 0, done.output
    assert "value of its own" not in done.output
    summary = json.loads((tmp_path / "out" / "clustering.json").read_text())["granularities"]
    assert list(summary[-1]["attributes"]) == chosen


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--order", "half,half"), "--order must name each attribute once and repeats half"),
        (("--attributes", "half,halve"), "--attributes: no column halve; the data have:"),
        (("--order", "half", "--attributes", "half"), "--order names the attributes already; leave out --attributes"),
        (("--order", "half", "--top-k", "2"), "--top-k: must be between 1 and 1 (the attributes); got [2]"),
    ],
)
def test_attributes_that_cannot_be_meant_are_refused_by_the_options_name(
    tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    done = build(tmp_path, *arguments, **COLUMNS)
    assert isinstance(done.exception, UserError)
    assert message in str(done.exception)
    assert not (tmp_path / "out").exists()


def test_one_cluster_alone_is_nothing_to_train_on(tmp_path: Path) -> None:
    done = build(tmp_path, "--top-k", "1", **{"class": list("ab") * 6, "same": ["x"] * 12})
    assert done.exit_code == 0, done.output
    assert "there is nothing to train on" in done.output
    assert "clray train" not in done.output


def _names_of(config: DataConfig) -> list[str]:
    """Those of the training images, by a memory limit under which they stay encoded."""
    encoded = config.model_copy(update={"image_size": 512, "memory_limit_mib": 1})
    images = with_validation(load_dataset(encoded), encoded).train.images
    return [images.name(i) for i in range(len(images))]
