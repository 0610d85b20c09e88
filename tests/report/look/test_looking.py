"""The page of a real run, the runs that are refused, and neighbours."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import clray
from clray.cli.app import app
from clray.errors import UserError
from clray.report.look import page as pages
from clray.report.look.opened import open_run
from tests.report.look.conftest import CLASSES, NUM_CLUSTERS


def tree_of(path: Path) -> dict[str, Any]:
    text = path.read_text(encoding="utf-8")
    found = re.search(r'<script type="application/json" id="look">(.*?)</script>', text)
    assert found
    return json.loads(found[1], parse_constant=pytest.fail)


@pytest.fixture(scope="module")
def page(run_folder: Path, other_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return clray.look(run_folder, tmp_path_factory.mktemp("pages") / "page.html", other=other_folder, method="pca")


def test_the_page_tells_of_every_cluster_and_shows_its_images(page: Path, run_folder: Path) -> None:
    tree, run = tree_of(page), open_run(run_folder)
    sizes = np.bincount(run.ids)
    assert {each["number"]: each["size"] for each in tree["clusters"]} == {n: s for n, s in enumerate(sizes) if s}
    assert sum(map(bool, sizes)) <= NUM_CLUSTERS
    for each in tree["clusters"]:
        for tile in (*each["central"], *each["random"], *each["far"]):
            assert tree["tiles"]["clusters"][tile] == each["number"]
    assert len(tree["map"]["tiles"]) == len(run.ids)
    assert tree["about"]["statistics"]["mutual_information_bits"] == pytest.approx(
        run.history[-1]["clusters/mutual_information_bits"]
    )
    for number, into in tree["versus"]["parts"].items():
        own = [
            int(o) for o, c in zip(tree["tiles"]["others"], tree["tiles"]["clusters"], strict=True) if c == int(number)
        ]
        assert into[0][1] == pytest.approx(own.count(into[0][0]) / len(own), abs=1e-4)


def test_nothing_of_the_data_becomes_markup(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert text.count("<script") == text.count("</script>")
    for name in CLASSES[:2]:
        assert name not in text
    assert not re.search("[\u202a-\u202e\u2066-\u2069\x00-\x08\x1b]", text)
    assert max(map(len, tree_of(page)["labels"])) <= 120


def test_a_page_of_few_images_still_shows_every_cluster(run_folder: Path, tmp_path: Path) -> None:
    tree = tree_of(clray.look(run_folder, tmp_path / "p.html", most_images=20, most_clusters=3))
    assert (tree["about"]["embedded"], tree["about"]["shown"], len(tree["clusters"])) == (20, 3, 3)
    assert all(each["central"] for each in tree["clusters"])


def test_a_run_without_labels_has_a_page(run_folder: Path, tmp_path: Path) -> None:
    run = open_run(run_folder)
    run.data.train.labels[:] = -1
    tree = tree_of(pages.write_clusters_page(run, tmp_path / "p.html", method="pca"))
    assert tree["about"]["statistics"] is None
    assert all(each["purity"] is None and not each["main"] for each in tree["clusters"])


def test_every_image_its_own_cluster_has_a_page(make_run: Callable[..., Path], tmp_path: Path) -> None:
    folder = make_run("instances", clusters__source="instance")
    tree = tree_of(clray.look(folder, tmp_path / "p.html", most_clusters=10))
    assert [each["size"] for each in tree["clusters"]] == [1] * 10


def test_images_that_are_no_longer_those_of_the_run_are_refused(run_folder: Path, photos: Path, tmp_path: Path) -> None:
    lines = photos.read_text(encoding="utf-8").splitlines(keepends=True)
    for name, changed, told in (
        ("fewer", lines[:-8], "its data now hold 54 training images"),
        ("shuffled", [lines[0], *lines[40:], *lines[1:40]], "have changed"),
    ):
        table = photos.with_name(f"{name}.csv")
        table.write_text("".join(changed), encoding="utf-8")
        with pytest.raises(UserError, match=told):
            clray.look(run_folder, tmp_path / "p.html", overrides={"data.train_path": str(table)})
    with pytest.raises(UserError, match=r"have moved: .* with data.train_path"):
        clray.look(run_folder, tmp_path / "p.html", overrides={"data.train_path": "/nowhere.csv"})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("nowhere",), "no such run"),
        (("{run}", "-o", "{run}"), "no place for a page"),
        (("{run}", "--map", "lda"), "expected one of"),
        (("{run}", "nowhere"), "no such run"),
    ],
)
def test_the_command_refuses_what_it_cannot_do(run_folder: Path, arguments: tuple[str, ...], told: str) -> None:
    done = CliRunner().invoke(app, ["look", *(text.format(run=run_folder) for text in arguments)])
    assert isinstance(done.exception, UserError)
    assert told in str(done.exception)


def test_a_sweep_without_an_answer_is_named(tmp_path: Path) -> None:
    (tmp_path / "trials").mkdir()
    (tmp_path / "results.json").write_text('{"best": null}')
    with pytest.raises(UserError, match="no best trial yet"):
        clray.look(tmp_path, tmp_path / "p.html")


def test_the_neighbours_of_an_image_are_those_of_the_encoder(run_folder: Path, photos: Path) -> None:
    found = clray.neighbours(run_folder, photos.parent / "09.png", 6)
    run = open_run(run_folder)
    encoder = clray.load_encoder(run_folder)
    with torch.no_grad():
        h = torch.nn.functional.normalize(encoder(torch.from_numpy(run.data.train.images.pixels).float() / 255))
        own = torch.nn.functional.normalize(encoder(encoder.transform(photos.parent / "09.png")[None]))[0]
    expected = torch.sort(1 - h @ own).values[:6]
    np.testing.assert_allclose([each.distance for each in found], expected, atol=1e-5)
    assert found[0].distance == pytest.approx(float(1 - h[found[0].row] @ own), abs=1e-5)
    assert all(each.cluster == run.ids[each.row] for each in found)


def test_a_training_image_is_not_its_own_neighbour_and_the_command_prints_names(
    run_folder: Path, tmp_path: Path
) -> None:
    command = ["neighbours", str(run_folder), "7", "-n", "3"]
    shown = json.loads(CliRunner().invoke(app, [*command, "--json"]).stdout)
    assert len(shown) == 3
    assert all(each["row"] != 7 for each in shown)
    done = CliRunner().invoke(app, [*command, "-o", str(tmp_path / "n.html")])
    assert done.exit_code == 0
    assert ".png" in done.output
    assert "\x1b" not in done.output
    text = (tmp_path / "n.html").read_text(encoding="utf-8")
    assert text.count("<script") == text.count("</script>")
    with pytest.raises(UserError, match="no image file, and no training image"):
        clray.neighbours(run_folder, "nowhere.png")
