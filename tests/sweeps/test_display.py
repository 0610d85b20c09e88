"""What the live table says of the time left, and what the tables of results show."""

import io
from collections.abc import Callable
from pathlib import Path

import pytest

from clray.config import Config
from clray.console import PlainConsole
from clray.sweeps.book import TrialBook
from clray.sweeps.display import LiveTable, result_table, seconds_left
from clray.sweeps.search_space import plan_sweep

SPACE = [
    {"clusters.num_clusters": {"grid_search": [2, 3]}},
    {"objective.name": "supcon"},
    {"objective.name": "infonce"},
]


def test_the_time_left_is_that_of_the_epochs_left_at_the_pace_so_far(
    tiny_config: Callable[..., Config], tmp_path: Path
) -> None:
    config = tiny_config(search_space=SPACE)
    records = TrialBook(config, plan_sweep(config), tmp_path).records
    assert seconds_left(records, 4, 0, 5.0) is None, "nothing is known yet"
    records[0].state, records[0].metrics = "finished", {"epoch": 3}
    records[1].state, records[1].metrics = "pruned", {"epoch": 1}
    assert seconds_left(records, 4, 0, 8.0) == pytest.approx(8.0 * 6 / 4)
    assert seconds_left(records, 4, 3, 8.0) == pytest.approx(8.0 * 6 / 1), "three were trained before a resumption"
    assert seconds_left(records[:2], 4, 0, 8.0) == pytest.approx(8.0 * 6 / 4), "a searcher has not named the others"


def test_references_are_named_in_the_table_of_results(tiny_config: Callable[..., Config], tmp_path: Path) -> None:
    config = tiny_config(search_space=SPACE)
    console = PlainConsole(record=True, width=200, file=io.StringIO())
    console.print(result_table(TrialBook(config, plan_sweep(config), tmp_path).records))
    lines = console.export_text().splitlines()
    assert [("SupCon" in line, "InfoNCE" in line) for line in lines[1:]] == [
        (False, False), (False, False), (True, False), (False, True),
    ]  # fmt: skip


def test_a_table_on_a_terminal_is_not_drawn_anew_for_every_change(
    tiny_config: Callable[..., Config], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny_config(search_space=SPACE, sweep={"metric": "eval/linear_accuracy"})
    records = TrialBook(config, plan_sweep(config), tmp_path).records
    drawn: list[int] = []
    whole = LiveTable._render
    monkeypatch.setattr(LiveTable, "_render", lambda table: drawn.append(len(table.records)) or whole(table))
    shown = io.StringIO()
    with LiveTable(PlainConsole(file=shown, force_terminal=True, width=200), config, 10_000) as table:
        before = len(drawn)
        for _ in range(500):
            for record in records:
                table.update(record)
        assert len(drawn) - before < 20
    assert drawn[-1] == len(records), "the last frame shows all"
    assert records[0].point.name in shown.getvalue()


def test_off_a_terminal_an_outcome_is_printed_once(tiny_config: Callable[..., Config], tmp_path: Path) -> None:
    config = tiny_config(search_space=SPACE)
    records = TrialBook(config, plan_sweep(config), tmp_path).records
    shown = io.StringIO()
    with LiveTable(PlainConsole(file=shown, width=200), config, 4) as table:
        records[0].state, records[0].reason = "skipped", "dominated"
        for record in (records[0], records[0], records[1]):
            table.update(record)
        records[0].state, records[0].error = "failed", "no memory"
        table.update(records[0])
    assert [line.split(" ")[0] for line in shown.getvalue().splitlines()] == ["[1/4]", "[1/4]"]
