"""What the charts show, before either library draws it."""

import math
from dataclasses import replace

import pytest

from clray.report.answer import describe_answer
from clray.report.figures import granularity, plane
from clray.report.results import Sweep
from tests.report.sweeps import digits, trial

METRIC = "eval/linear_accuracy"


def test_labels_and_k_means_of_one_granularity_stay_apart() -> None:
    found = granularity([digits()], METRIC)
    assert [line.name for line in found.lines] == ["kmeans, t=0.1", "kmeans, t=0.5"]
    for line in found.lines:
        assert [(mark.num_clusters, round(mark.mean, 1)) for mark in line.marks] == [(5, 74.0), (10, 81.1), (50, 83.0)]
    assert [(level.name, round(level.mean, 1)) for level in found.levels] == [
        ("InfoNCE, t=0.1", 80.0), ("InfoNCE, t=0.5", 80.0), ("SupCon, t=0.1", 92.9), ("SupCon, t=0.5", 92.9),
    ]  # fmt: skip


def test_nothing_is_averaged_but_the_repeats_of_a_point() -> None:
    trials = [trial("k=10", 0.5, seed=0), trial("k=10", 0.7, seed=1)]
    trials += [trial("column column=a", 0.9, source="column", clusters=10)]
    trials += [trial("pcl k=10", 0.1, objective="pcl")]
    trials += [trial("k=10 lr", 0.3, **{"train.learning_rate": 1})]
    found = granularity([Sweep("s", trials)], METRIC)
    means = {mark.point: (mark.mean, mark.spread) for line in found.lines for mark in line.marks}
    assert means == {
        "k=10": (pytest.approx(60), pytest.approx(100 * 0.02**0.5)),
        "column column=a": (pytest.approx(90), None),
        "pcl k=10": (pytest.approx(10), None),
        "k=10 lr": (pytest.approx(30), None),
    }
    assert len(found.lines) == 4, "one for each source and setting"
    assert "kmeans, t=0.1, learning_rate=1" in {line.name.replace("kmeans, learning_rate=1, t=0.1",
                                                                  "kmeans, t=0.1, learning_rate=1")
                                                for line in found.lines}  # fmt: skip


def test_two_points_of_one_granularity_on_one_line_are_two_marks() -> None:
    trials = [trial("k=10,5", 0.5, **{"clusters.granularities": "a"}), trial("k=10,2", 0.7)]
    (line,) = granularity([Sweep("s", trials)], METRIC).lines
    assert [mark.mean for mark in line.marks] == [pytest.approx(70), pytest.approx(50)]


def test_settings_of_other_sources_split_no_line() -> None:
    trials = [trial(f"hierarchy level={n}", 0.5, source="hierarchy", clusters=n, **{"clusters.level": n})
              for n in (1, 2, 3)]  # fmt: skip
    found = granularity([Sweep("s", [*digits().trials, *trials])], METRIC)
    assert [line.name for line in found.lines] == ["hierarchy, t=0.1", "kmeans, t=0.1", "kmeans, t=0.5"]


def test_points_drawn_at_random_are_joined_by_no_line() -> None:
    trials = [trial(f"k={k} t={k / 100}", 0.5, clusters=k, temperature=k / 100) for k in range(2, 42)]
    (line,) = granularity([Sweep("s", trials)], METRIC).lines
    assert not line.is_joined
    assert len(line.marks) == 40


def test_the_plane_shows_every_trial_and_marks_references_and_those_ended_early() -> None:
    early = trial("k=7 t=0.1", 0.3, state="pruned", reason="dominated by k=5")
    found = plane([Sweep("digits", [*digits().trials, early], num_images=1347)], METRIC)
    assert {group.name: len(group.marks) for group in found.groups} == {
        "t=0.1": 3, "t=0.5": 3, "reference, t=0.1": 2, "reference, t=0.5": 2, "t=0.1, ended early": 1,
    }  # fmt: skip
    assert {mark.reason for mark in found.marks} == {None, "dominated by k=5"}
    assert {mark.label for mark in found.marks} == {"k=5", "k=10", "k=50", "k=7", "instance", "labels"}


def test_the_corners_lie_where_the_references_do_by_definition() -> None:
    corners = {corner.name: (corner.information, corner.rest) for corner in plane([digits()], METRIC).corners}
    assert corners["SupCon (labels)"] == (3.0, 0.0)
    assert corners["InfoNCE (instances)"] == (3.0, pytest.approx(math.log2(1347) - 3.0))


def test_equal_accuracies_still_have_a_range_of_colours() -> None:
    found = plane([Sweep("s", [trial("a", 0.5), trial("b", 0.5 + 1e-16)])], METRIC)
    low, high = found.accuracy_range
    assert high - low == pytest.approx(2)


def test_two_sweeps_in_one_chart_keep_their_names() -> None:
    first, second = Sweep("a", [trial("k=5", 0.4)]), Sweep("b", [trial("k=5", 0.6, temperature=0.5)])
    assert [line.name for line in granularity([first, second], METRIC).lines] == [
        "a, kmeans, t=0.1", "b, kmeans, t=0.5",
    ]  # fmt: skip
    assert [group.name for group in plane([first, second], METRIC).groups] == ["a, t=0.1", "b, t=0.5"]


def test_the_untrained_encoder_is_a_level_and_the_floor_of_the_colours() -> None:
    sweep = Sweep("s", [trial("a", 0.5), trial("b", 0.6)], untrained={METRIC: 0.3})
    assert plane([sweep], METRIC).accuracy_range == (pytest.approx(30), pytest.approx(60))
    (level,) = granularity([sweep], METRIC).levels
    assert (level.name, level.mean) == ("untrained encoder", pytest.approx(30))


def test_an_encoder_with_weights_of_its_own_is_not_called_untrained() -> None:
    given = replace(trial("a", 0.5), params={"encoder.weights": "timm/resnet18.a1_in1k"})
    sweep = Sweep("s", [given, trial("b", 0.6)], untrained={METRIC: 0.3})
    assert [each.name for each in granularity([sweep], METRIC).levels] == ["encoder as given"]
    assert plane([sweep], METRIC).start == "encoder as given"
    assert any(each.startswith("The encoder as given reaches 30.0 %") for each in describe_answer(sweep))


def test_a_sweep_without_accuracies_gives_empty_charts() -> None:
    none = Sweep("s", [])
    assert plane([none], METRIC).marks == []
    assert granularity([none], METRIC).lines == ()
