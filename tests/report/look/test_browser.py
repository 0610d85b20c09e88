"""The pages in a real browser at 1400 and 400 pixels: what clicks and keys do, and that no name is executed."""

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement

import clray
from clray.config import parse_config
from clray.data.images.array import ArrayImages
from clray.data.samples import Dataset, Samples
from clray.report.look import page as pages
from clray.report.look.opened import Embedded, Finished, as_unit
from clray.report.page import write_page
from tests.browser import chromium, needs_browser
from tests.report.look.conftest import CLASSES
from tests.report.sweeps import digits, trial

SCREENSHOTS = os.environ.get("CLRAY_SCREENSHOTS")
"""A folder for pictures of what the tests see; without it none are kept."""
NUM_IMAGES, NUM_CLUSTERS = 12_000, 1000
pytestmark = [pytest.mark.slow, needs_browser]
Open = Callable[..., webdriver.Chrome]


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    with chromium(tmp_path_factory.mktemp("profile")) as browser:
        yield browser


@pytest.fixture
def see(browser: webdriver.Chrome) -> Iterator[Open]:
    """Opens a file at a width, light or dark; in the end nothing may have been logged or executed."""

    def open_page(path: Path, width: int = 1400, scheme: str = "light") -> webdriver.Chrome:
        metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        wanted = {"prefers-color-scheme": scheme, "prefers-reduced-motion": "reduce"}
        features = [{"name": name, "value": value} for name, value in wanted.items()]
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        browser.get("about:blank")
        browser.get(path.as_uri())
        if SCREENSHOTS is not None:
            time.sleep(1)
            browser.save_screenshot(str(Path(SCREENSHOTS) / f"{path.stem}_{width}_{scheme}.png"))
        return browser

    yield open_page
    assert browser.get_log("browser") == []
    assert browser.title != "owned"
    width, room = browser.execute_script("return [document.documentElement.scrollWidth, innerWidth]")
    assert width <= room


@pytest.fixture(scope="module")
def page(run_folder: Path, other_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return clray.look(run_folder, tmp_path_factory.mktemp("pages") / "clusters.html", other=other_folder, method="pca")


def write_large_page(path: Path) -> Path:
    """Of 1,000 clusters and classes of 12,000 noisy images, which compress badly; no encoder is asked."""
    draw = np.random.default_rng(0)
    ids = draw.integers(0, NUM_CLUSTERS, NUM_IMAGES).astype(np.int32)
    z = as_unit(draw.normal(size=(NUM_CLUSTERS, 16))[ids] + 0.5 * draw.normal(size=(NUM_IMAGES, 16)))
    pixels = draw.integers(0, 256, (NUM_IMAGES, 3, 32, 32), dtype=np.uint8)
    names = [f"/data/{'long name ' * 40}{i}" for i in range(NUM_IMAGES)]
    samples = Samples(ArrayImages(pixels, names), draw.integers(0, 1000, NUM_IMAGES).astype(np.int32), {})
    data = Dataset(samples, samples, 1000, 3, {None: tuple(f"class {i} {'y' * 300}" for i in range(1000))})
    checkpoint: dict = {"epoch": 3, "step_in_epoch": 0}
    run = Finished("large", path.parent, parse_config({}), checkpoint, data, ids, NUM_CLUSTERS, "kmeans", [])
    with mock.patch.object(pages, "embed_run", return_value=Embedded(np.arange(NUM_IMAGES), z, z)):
        return pages.write_clusters_page(run, path, method="pca")


def soon(condition: Callable[[], object], seconds: float = 60) -> None:
    """Wait until it holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it does not become so"
        time.sleep(0.05)


def read_on(browser: webdriver.Chrome) -> None:
    """Go to the clusters, and wait until their images are there."""
    browser.execute_script("document.querySelector('.cards').scrollIntoView()")
    soon(lambda: browser.find_elements(By.CSS_SELECTOR, ".card .tile"))


def one(browser: webdriver.Chrome, selector: str) -> WebElement:
    return browser.find_element(By.CSS_SELECTOR, selector)


def cards(browser: webdriver.Chrome) -> list[int]:
    numbers = "return [...document.querySelectorAll('.card')].map((card) => Number(card.dataset.number))"
    found: list[int] = browser.execute_script(numbers)
    return found


def type_into(element: WebElement, text: str) -> None:
    element.clear()
    element.send_keys(text)


@pytest.mark.parametrize(("width", "scheme"), [(1400, "light"), (400, "dark")])
def test_clusters_are_found_sorted_and_seen(see: Open, page: Path, width: int, scheme: str) -> None:
    browser = see(page, width, scheme)
    background = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
    assert (int(background[4:].split(",")[0]) < 60) == (scheme == "dark")
    every = cards(browser)
    assert len(every) > 2
    text = browser.find_element(By.TAG_NAME, "body").text
    assert CLASSES[0] in text, "markup is shown as it stands"
    search = one(browser, "#search")
    type_into(search, "img src")
    assert 0 < len(cards(browser)) < len(every)
    assert f"of {len(every)} clusters" in one(browser, "output[aria-live]").text
    type_into(search, "no such class")
    assert cards(browser) == []
    search.clear()
    search.send_keys(Keys.SPACE, Keys.BACKSPACE)
    one(browser, "#order").send_keys("by number")
    assert cards(browser) == sorted(every)
    one(browser, ".top button").click()
    changed = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
    assert changed != background


@pytest.mark.parametrize("width", [1400, 400])
def test_an_image_opens_and_keys_lead_on(see: Open, page: Path, width: int) -> None:
    browser = see(page, width)
    read_on(browser)
    first = one(browser, ".card .tile")
    assert "cluster" in first.get_attribute("aria-label")
    assert "blob:" in first.value_of_css_property("background-image")
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", first)
    first.click()
    dialog = one(browser, "dialog")
    assert dialog.is_displayed()
    name = one(browser, "dialog h2").text
    assert ".png" in name
    dialog.send_keys(Keys.ARROW_RIGHT)
    assert one(browser, "dialog h2").text != name
    browser.switch_to.active_element.send_keys(Keys.ESCAPE)
    soon(lambda: not dialog.is_displayed())
    assert browser.switch_to.active_element == first
    first.send_keys(Keys.ARROW_RIGHT)
    second = browser.switch_to.active_element
    assert second != first
    assert "tile" in second.get_attribute("class")
    second.send_keys(Keys.ENTER)
    buttons = {button.text: button for button in browser.find_elements(By.CSS_SELECTOR, "dialog button")}
    buttons["Show its cluster"].click()
    assert browser.switch_to.active_element.text.startswith("Cluster ")
    assert len(browser.find_elements(By.CSS_SELECTOR, ".card.chosen")) == 1


def test_the_map_is_read_by_pointer_and_by_keys(see: Open, page: Path) -> None:
    browser = see(page)
    canvas = one(browser, "canvas")
    canvas.send_keys(Keys.ARROW_RIGHT)
    told = one(browser, ".map ~ .unseen").get_attribute("textContent")
    assert "cluster" in told
    assert one(browser, ".tip").is_displayed()
    canvas.send_keys(Keys.ARROW_LEFT)
    assert one(browser, ".map ~ .unseen").get_attribute("textContent") != told
    before = canvas.screenshot_as_png
    for colours in ("cluster of", "doubt", "mood"):
        one(browser, "#colour-by").send_keys(colours)
        assert canvas.screenshot_as_png != before
    one(browser, "[aria-label='Zoom in']").click()
    canvas.send_keys(Keys.ARROW_RIGHT, Keys.ENTER)
    assert one(browser, "dialog").is_displayed()
    browser.switch_to.active_element.send_keys(Keys.ESCAPE)
    one(browser, ".card header button").click()
    assert "stands out" in one(browser, "#part").text


def test_a_nearest_cluster_is_one_click_away_though_a_search_hides_it(see: Open, page: Path) -> None:
    browser = see(page)
    every = cards(browser)
    type_into(one(browser, "#search"), "img src")
    soon(lambda: browser.find_elements(By.CSS_SELECTOR, ".near a"))
    hidden = [link for link in browser.find_elements(By.CSS_SELECTOR, ".near a")
              if int(link.get_attribute("href").split("-")[-1]) not in cards(browser)]  # fmt: skip
    number = hidden[0].get_attribute("href").split("-")[-1]
    browser.execute_script("arguments[0].click()", hidden[0])
    assert browser.switch_to.active_element.text.startswith(f"Cluster {number} ")
    assert len(cards(browser)) == len(every)


def test_a_page_of_a_thousand_clusters_opens_at_once_and_fills_as_it_is_read(see: Open, tmp_path: Path) -> None:
    path = write_large_page(tmp_path / "large.html")
    assert path.stat().st_size < 30e6
    start = time.monotonic()
    browser = see(path)
    assert time.monotonic() - start < 15
    assert browser.get_log("browser") == []
    assert len(cards(browser)) == 1000
    read_on(browser)
    assert len(browser.find_elements(By.CSS_SELECTOR, ".card .strip")) < 300
    last = browser.find_elements(By.CLASS_NAME, "card")[-1]
    browser.execute_script("arguments[0].scrollIntoView()", last)
    soon(lambda: last.find_elements(By.CLASS_NAME, "tile"))


@pytest.mark.parametrize(("width", "scheme"), [(1400, "dark"), (400, "light")])
def test_a_report_is_read_by_pointer_and_by_keys(see: Open, tmp_path: Path, width: int, scheme: str) -> None:
    sweep = digits()
    sweep.trials.append(trial(CLASSES[0], 0.5, clusters=7))
    path = write_page([sweep], tmp_path / "report.html", clusters="clusters.html")
    start = time.monotonic()
    browser = see(path, width, scheme)
    assert time.monotonic() - start < 10
    chart = one(browser, "[data-chart=plane] svg")
    marks = chart.find_elements(By.CSS_SELECTOR, ".marks path")
    assert len(marks) == len(sweep.trials)
    told = set()
    for _ in marks:
        chart.send_keys(Keys.ARROW_RIGHT)
        told.add(one(browser, ".tip").text.split("\n")[0])
    assert told == {each.name for each in sweep.trials}
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", marks[0])
    webdriver.ActionChains(browser).move_to_element(marks[0]).perform()
    assert "linear accuracy" in one(browser, ".tip").text
    assert one(browser, "a[href='clusters.html']").is_displayed()


def test_neighbours_are_seen(see: Open, run_folder: Path, photos: Path, tmp_path: Path) -> None:
    clray.neighbours(run_folder, photos.parent / "09.png", 5, path=tmp_path / "found.html")
    browser = see(tmp_path / "found.html", 400)
    tiles = browser.find_elements(By.CSS_SELECTOR, ".found .tile")
    assert len(tiles) == 6
    assert all("blob:" in tile.value_of_css_property("background-image") for tile in tiles)
