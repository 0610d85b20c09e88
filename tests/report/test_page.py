from pathlib import Path

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
    for outside in ('src="http', "src='http", '<link rel="stylesheet" href="http'):
        assert outside not in text
    assert "Plotly.newPlot" in text


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
