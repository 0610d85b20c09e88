"""A finished sweep as someone sees it who only opens the MLflow UI, in a real browser."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml
from mlflow import MlflowClient
from selenium import webdriver
from selenium.common.exceptions import StaleElementReferenceException, WebDriverException
from selenium.webdriver.common.by import By

from tests import commands
from tests.browser import chromium, needs_browser
from tests.conftest import ALL_ARTIFACTS, TINY

SCREENSHOTS = os.environ.get("CLRAY_SCREENSHOTS")
"""A folder for pictures of what the test sees; without it none are kept."""
pytestmark = [pytest.mark.slow, needs_browser]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The MLflow store of a sweep of four trials, or of one that was made before (CLRAY_STORE)."""
    if "CLRAY_STORE" in os.environ:
        return os.environ["CLRAY_STORE"]
    folder = tmp_path_factory.mktemp("seen")
    space = {"clusters.num_clusters": {"grid_search": [4, 8]}, "objective.temperature": {"grid_search": [0.1, 0.5]}}
    (folder / "tiny.yaml").write_text(yaml.safe_dump(TINY | ALL_ARTIFACTS | {"search_space": space}), encoding="utf-8")
    done = commands.run(["sweep", "tiny.yaml", "-o", "out", "--name", "seen"], folder=folder)
    assert done.returncode == 0, done.stderr
    return f"sqlite:///{folder / 'out' / 'mlflow.db'}"


@pytest.fixture(scope="module")
def address(store: str) -> Iterator[str]:
    """`mlflow ui` on that store."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [
        sys.executable, "-m", "mlflow", "ui", "--backend-store-uri", store, "--port", str(port), "--workers", "1",
    ]  # fmt: skip
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 180
    while time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                break
        time.sleep(0.2)
    yield f"http://127.0.0.1:{port}"
    server.terminate()
    server.wait(20)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    with chromium(tmp_path_factory.mktemp("profile")) as browser:
        yield browser


@pytest.fixture
def see(browser: webdriver.Chrome, address: str) -> Callable[..., str]:
    """Opens a page and waits until it shows all the given texts; returns all that it shows."""

    def wait_for(path: str, *texts: str, picture: str | None = None, css: str | None = None) -> str:
        browser.get("about:blank")
        browser.get(f"{address}/{path}")
        deadline = time.monotonic() + 180
        shown = ""
        while time.monotonic() < deadline:
            time.sleep(0.3)
            try:
                close_assistant(browser)
                shown = browser.find_element(By.TAG_NAME, "body").text
                if all(text in shown for text in texts) and (
                    css is None or browser.find_elements(By.CSS_SELECTOR, css)
                ):
                    break
            except (StaleElementReferenceException, WebDriverException):
                continue
        else:
            raise AssertionError(f"{path} does not show {texts}, {css}; it shows: {shown}")
        if SCREENSHOTS is not None and picture is not None:
            time.sleep(3)  # what is drawn last is drawn by then
            browser.save_screenshot(str(Path(SCREENSHOTS) / picture))
        return shown

    return wait_for


def close_assistant(browser: webdriver.Chrome) -> None:
    """MLflow 3.17 opens its assistant over a third of the page the first time."""
    for button in browser.find_elements(By.CSS_SELECTOR, "button[aria-label='Close']"):
        button.click()


def sweep_run(store: str) -> tuple[str, str, str]:
    """Experiment, run of the sweep, and run of its best trial."""
    client = MlflowClient(store)
    experiment = client.get_experiment_by_name("clray").experiment_id
    runs = client.search_runs([experiment])
    (parent,) = [run for run in runs if run.data.tags["clray.kind"] == "sweep"]
    (best,) = [run for run in runs if run.data.tags.get("clray.best") == "true"]
    return experiment, parent.info.run_id, best.info.run_id


def test_the_first_page_answers_which_clusters_and_temperature_are_best(see: Callable[..., str], store: str) -> None:
    experiment, _, best = sweep_run(store)
    name = MlflowClient(store).get_run(best).info.run_name
    see(
        f"#/experiments/{experiment}/runs?workflowType=machine_learning",
        f"The best clusters are {name}", "I(Z;T)", "Its report", "All trials, best first", "matching runs",
        picture="mlflow_experiment.png",
    )  # fmt: skip


def test_one_click_from_there_shows_the_report(see: Callable[..., str], browser: webdriver.Chrome, store: str) -> None:
    experiment, _, _ = sweep_run(store)
    see(f"#/experiments/{experiment}/runs?workflowType=machine_learning", "Its report")
    link = next(each for each in browser.find_elements(By.TAG_NAME, "a") if each.text == "Its report")
    see(link.get_attribute("href").split("/", 3)[3], "report.html", css="iframe")


def test_one_click_from_there_shows_the_clusters_of_the_best_trial(
    see: Callable[..., str], browser: webdriver.Chrome, store: str
) -> None:
    experiment, _, _ = sweep_run(store)
    see(f"#/experiments/{experiment}/runs?workflowType=machine_learning", "Its clusters")
    link = next(each for each in browser.find_elements(By.TAG_NAME, "a") if each.text == "Its clusters")
    see(link.get_attribute("href").split("/", 3)[3], "clusters.html", css="iframe")


def test_the_other_click_compares_the_trials_in_charts(
    see: Callable[..., str], browser: webdriver.Chrome, store: str
) -> None:
    experiment, _, _ = sweep_run(store)
    see(f"#/experiments/{experiment}/runs?workflowType=machine_learning", "All trials, best first")
    link = next(each for each in browser.find_elements(By.TAG_NAME, "a") if each.text == "All trials, best first")
    charts = link.get_attribute("href").split("/", 3)[3]
    client = MlflowClient(store)
    trials = client.search_runs([experiment], "tags.`clray.kind` = 'trial'", max_results=5)
    names = [run.info.run_name for run in trials]
    see(charts, "answer in charts", "clusters", "eval", *names[:2], picture="mlflow_comparison.png")
    see(charts.replace("CHART", "TABLE"), "_swept/", "eval/linear", "clusters/mutual", *names[:2])


def test_the_sweep_shows_its_trials_and_its_picture(see: Callable[..., str], store: str) -> None:
    experiment, parent, best = sweep_run(store)
    name = MlflowClient(store).get_run(best).info.run_name
    see(f"#/experiments/{experiment}/runs/{parent}?workflowType=machine_learning", "Child runs", name, "Finished")
    see(
        f"#/experiments/{experiment}/runs/{parent}/artifacts/information_plane.png", "information_plane.png",
        css="img[src^='blob:']", picture="mlflow_information_plane.png",
    )  # fmt: skip


def test_the_best_trial_has_its_pictures_and_a_model(see: Callable[..., str], store: str) -> None:
    experiment, _, best = sweep_run(store)
    see(
        f"#/experiments/{experiment}/runs/{best}/artifacts?workflowType=machine_learning",
        "clusters.png", "information_plane.png", "encoder",
    )  # fmt: skip
    (model,) = MlflowClient(store).search_logged_models([experiment])
    see(f"#/experiments/{experiment}/models/{model.model_id}?workflowType=machine_learning", "encoder", "Ready")
