"""The benchmarks run, at a small size; what they measure is not looked at."""

import os
import runpy
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from scipy import stats

from tests.conftest import REPOSITORY, png

FOLDER = REPOSITORY / "scripts" / "benchmarks"
RunHere = Callable[..., str]
WORKERS = ["--part", "workers", "--batch", 16, "--turns", 1, "--epochs", 2]
HAS_COMPILER = any(map(shutil.which, ("g++", "clang++")))
SMALL = ["--encoder", "small_cnn", "--width", "4", "--images", "32"]


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random images of two classes, as CIFAR-10's Parquet files."""
    path = tmp_path_factory.mktemp("data") / "images.parquet"
    pixels = [{"bytes": png(i, 32), "path": f"{i}.png"} for i in range(64)]
    pq.write_table(pa.table({"image": pixels, "label": [i % 2 for i in range(64)]}), path)
    return path


@pytest.fixture
def run_here(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> RunHere:
    """Runs a benchmark in this process and gives what it printed."""
    monkeypatch.syspath_prepend(str(FOLDER))
    num_threads = torch.get_num_threads()

    def run(name: str, *arguments: object) -> str:
        monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
        try:
            runpy.run_path(str(FOLDER / f"{name}.py"), run_name="__main__")
        except SystemExit as ended:
            if ended.code not in (0, None):
                raise RuntimeError(capsys.readouterr()) from ended
        finally:
            torch.set_num_threads(num_threads)
        return capsys.readouterr().out

    return run


def run_alone(name: str, *arguments: object) -> str:
    """As a user does, for what starts processes of its own."""
    command = [sys.executable, str(FOLDER / f"{name}.py"), *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    ended = subprocess.run(command, capture_output=True, text=True, timeout=500, env=environment)
    assert ended.returncode == 0, ended.stderr[-2000:]
    return ended.stdout


def test_a_step_is_measured_beside_the_network_alone(run_here: RunHere, images: Path) -> None:
    out = run_here("training", images, *SMALL, "--batch", 8, "--steps", 1, "--turns", 1, "--threads", 1)
    assert "network alone" in out
    assert "loss and the rest" in out


@pytest.mark.parametrize(
    ("name", "arguments", "found"),
    [
        ("views", ["--batch", 4, "--repeats", 1, "--threads", 1], "step of the digits demo"),
        ("evaluation", ["--samples", 200, "--test", 40, "--dim", 4, "--threads", 1], "same neighbours as faiss"),
    ],
)
def test_a_comparison_runs(run_here: RunHere, name: str, arguments: list[object], found: str) -> None:
    assert found in run_here(name, *arguments)


def test_what_is_measured_on_gpus_runs_on_a_cpu_and_says_so(run_here: RunHere, images: Path, tmp_path: Path) -> None:
    page = tmp_path / "gpu.md"
    run_here(
        "gpu", images, images, "-o", page, "--only", "correctness", "refusals", "steps", "k_means", "refresh", "losses"
    )
    text = page.read_text(encoding="utf-8")
    assert "a run on a CPU" in text
    assert "torch " in text
    assert "FAILED" not in text
    for section in ("## Correctness", "## Refusals", "## Steps", "## K-means", "## Refresh", "## Loss"):
        assert section in text


@pytest.mark.skipif(torch.cuda.is_available(), reason="has a GPU")
def test_figures_of_a_cpu_never_replace_the_page_of_gpus(run_here: RunHere, images: Path) -> None:
    before = (REPOSITORY / "docs" / "gpu.md").read_text(encoding="utf-8")
    with pytest.raises(RuntimeError, match="name a page with --output"):
        run_here("gpu", images, images)
    assert (REPOSITORY / "docs" / "gpu.md").read_text(encoding="utf-8") == before


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "arguments", "found"),
    [
        # Two starts of Ray take most of a minute.
        pytest.param("training", ["IMAGES", *SMALL, *WORKERS], "2 workers over 1", marks=pytest.mark.long),
        pytest.param(
            "recluster_tax",
            ["IMAGES", "IMAGES", *SMALL, "--clusters", 4, "--epochs", 2, "--seeds", 1],
            "noise: two equal runs",
            marks=pytest.mark.long,
        ),
        # The compiler takes most of a minute.
        pytest.param(
            "compiling",
            ["--only", "digits", "--parts", "loss", "--turns", 1],
            "| digits | loss | float32 |",
            marks=[pytest.mark.long, pytest.mark.skipif(not HAS_COMPILER, reason="there is no C++ compiler")],
        ),
        pytest.param("objectives", ["--sizes", 64, "--pairs", 1], "clray", marks=pytest.mark.long),
        ("decoding", ["--images", 8, "--decoders", 1, "--sizes", 32, "--repeats", 1], "with small_cnn"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_comparison_with_processes_of_its_own_runs(
    images: Path, name: str, arguments: list[object], found: str
) -> None:
    assert found in run_alone(name, *(images if each == "IMAGES" else each for each in arguments))


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", sorted(path.stem for path in FOLDER.glob("*.py") if "argparse" in path.read_text(encoding="utf-8"))
)
def test_a_benchmark_says_what_it_takes(run_here: RunHere, name: str) -> None:
    assert "usage" in run_here(name, "--help")


def test_systems_are_compared_by_the_t_interval_of_their_differences_in_pairs_of_a_seed() -> None:
    claims = runpy.run_path(str(FOLDER / "claims.py"))
    gains = [0.010, 0.014, 0.018, 0.016, 0.012]
    low, high = stats.t.interval(0.95, 4, np.mean(gains), stats.sem(gains))
    assert claims["interval"](pd.Series(gains)) == f"+1.4 ({100 * low:+.1f} to {100 * high:+.1f})"


@pytest.mark.long
def test_each_seed_of_a_comparison_starts_from_its_own_warm_up(images: Path, tmp_path: Path) -> None:
    config = tmp_path / "systems.yaml"
    config.write_text(
        "data: {name: parquet}\nencoder: {name: small_cnn, width: 4}\nrecluster: {warmup_epochs: 0}\n"
        "train: {num_epochs: 1, global_batch_size: 16, cpus_per_worker: 0.9}\n"
        "kmeans: {num_shards: 1, cpus_per_shard: 0.1}\n"
        "search_space:\n  - objective.name: infonce\n  - clusters.num_clusters: {grid_search: [2, 4]}\n"
    )
    arguments = (images, images, "--sweep", config, "--seeds", 1, 2, "--output", tmp_path / "out")
    shown = run_alone("claims", *arguments)
    assert "| k=4 | 2 |" in shown
    assert run_alone("claims", *arguments) == shown
    assert {each.name for each in (tmp_path / "out").glob("warmup-*")} == {"warmup-1", "warmup-2"}
