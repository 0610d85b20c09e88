import base64
import hashlib
import json
import re
from pathlib import Path

import pytest

from clray.report.page import comparison_rows, write_page
from clray.report.results import Sweep
from tests.report.sweeps import trial


def test_the_page_tells_of_every_trial_and_needs_no_network(tmp_path: Path) -> None:
    trials = [trial("k=5", 0.4), trial("k=<10>", 0.9), trial("k=7", 0.3, state="pruned", reason="dominated by k=5")]
    text = write_page([Sweep("digits", trials)], tmp_path / "page.html").read_text()
    assert "The best clusters are k=&lt;10&gt;, 90.0 % linear accuracy" in text
    assert text.count('class="best"') == 1
    assert "dominated by k=5" in text
    assert "k=<10>" not in text.replace("\\u003c", "")
    assert not re.search(r"""(src|href)=["']?(http|//)|@import|url\(""", text)
    assert {"plane", "granularity"} == set(re.findall(r'data-chart="(\w+)"', text))
    assert len(text) < 60_000


def test_two_sweeps_are_compared_point_by_point(tmp_path: Path) -> None:
    first = Sweep("a", [trial("k=5", 0.4), trial("k=10", 0.9)])
    second = Sweep("b", [trial("k=5", 0.5), trial("k=20", 0.8)])
    assert comparison_rows(first, second) == [("k=5", "40.0", "50.0", "+10.0")]
    assert "<h2>Compared</h2>" in write_page([first, second], tmp_path / "page.html").read_text()


def test_a_sweep_of_which_nothing_has_finished_still_has_a_page(tmp_path: Path) -> None:
    only = Sweep("s", [trial("k=5", 0.4, state="pruned", reason="stopped by asha at epoch 1")])
    assert "No trial has finished" in write_page([only], tmp_path / "page.html").read_text()


def test_names_from_data_are_text_on_the_page(tmp_path: Path) -> None:
    name = "<img src=x onerror=alert(1)></script><b> \x1b[31m \u202e $x$ " + "y" * 300
    trials = [trial(name, 0.5), trial(f"{name}2", 0.4, state="pruned", reason=name)]
    text = write_page([Sweep(name, trials)], tmp_path / "page.html").read_text()
    assert not any(each in text for each in ("<img", "</script><b>", "\x1b", "\u202e"))
    assert text.count("\\x1b[31m") > 3
    charts = re.findall(r'<script type="application/json"[^>]*>(.*?)</script>', text)
    assert any("<img src=x" in line for line in str(json.loads(charts[0])).splitlines())


@pytest.mark.parametrize(
    "trials",
    [
        [trial("k=5", 0.5)],
        [trial("k=5", float("nan")), trial("k=10", 0.5, clusters=10)],
        [trial("k=5", 0.5, information=float("inf")), trial("k=10", 0.5)],
        [trial(f"k={count}", 0.5, clusters=count) for count in range(2, 1002)],
    ],
    ids=["one trial", "no accuracy", "no information", "1,000 points"],
)
def test_the_page_of_an_odd_sweep_holds_valid_charts(tmp_path: Path, trials: list) -> None:
    text = write_page([Sweep("s", trials)], tmp_path / "page.html").read_text()
    for chart in re.findall(r'<script type="application/json"[^>]*>(.*?)</script>', text):
        assert "series" in json.loads(chart, parse_constant=pytest.fail)


def test_only_the_scripts_of_the_page_itself_may_run(tmp_path: Path) -> None:
    text = write_page([Sweep("s", [trial("k=5", 0.5)])], tmp_path / "page.html").read_text()
    script = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script[0].encode()).digest()).decode()
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', text)[1]
    assert len(script) == 1
    assert "default-src 'none'" in policy
    assert f"script-src 'sha256-{digest}'" in policy
    assert not re.search(r"<[^>]* (on\w+|style)=", text.replace(script[0], ""))
