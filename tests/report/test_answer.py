"""What a sweep says first: the best candidate, never a reference, and only what its uncertainty allows."""

import math
from dataclasses import replace

import pytest

from clray.report.answer import NO_TRIAL, answer_of, describe_answer
from clray.report.figures import plane
from clray.report.marks import BALANCE_PLANE, INFORMATION_PLANE
from clray.report.results import Sweep, TrialResult
from clray.report.summary import as_rows, header_of, summarize
from tests.report.sweeps import digits, trial


def sweep_of(*trials: TrialResult, images: int | None = 10_000, **more: object) -> Sweep:
    return Sweep("s", list(trials), num_test_images=images, **more)


INFONCE = trial("infonce t=0.1", 0.60, source="instance", objective="infonce")
SUPCON = trial("supcon t=0.1", 0.80, source="labels", objective="supcon")


def test_the_labels_are_the_best_of_no_sweep() -> None:
    answer = answer_of(digits())
    assert answer is not None
    assert (answer.best.point, answer.supcon.other.point, answer.infonce.other.point) == (
        "k=50 t=0.1", "labels t=0.1", "instance t=0.1",
    )  # fmt: skip


def test_a_candidate_beyond_infonce_is_said_to_beat_it_and_by_how_much() -> None:
    first = describe_answer(sweep_of(trial("k=50 t=0.1", 0.65), INFONCE, SUPCON))[0]
    assert first == (
        "The best clusters are k=50 t=0.1, 65.0 % linear accuracy: 5.0 points above InfoNCE (infonce t=0.1, 60.0 %; "
        "95 % interval +3.7 to +6.3), 25 % of the way to SupCon (80.0 %)."
    )


def test_a_difference_within_the_noise_is_not_told_apart() -> None:
    said = " ".join(describe_answer(sweep_of(trial("k=50 t=0.1", 0.61), INFONCE, SUPCON, images=450)))
    assert "but they are not told apart from InfoNCE (infonce t=0.1, 60.0 %): +1.0 points" in said
    assert "one seed and 450 test images" in said


def test_infonce_wins_where_it_wins() -> None:
    first = describe_answer(sweep_of(trial("k=50 t=0.1", 0.50), INFONCE, SUPCON))[0]
    assert first.startswith("InfoNCE wins: infonce t=0.1, 60.0 %. The best clusters, k=50 t=0.1, reach 50.0 %")


def test_candidates_within_the_noise_of_the_best_are_named() -> None:
    others = [trial(f"k={n} t=0.1", 0.65 - n / 1000, clusters=n) for n in (1, 2, 3, 4, 5)]
    said = describe_answer(sweep_of(*others, trial("k=90 t=0.1", 0.4, clusters=90), INFONCE))
    assert said[1] == "Not told apart from k=1 t=0.1: k=2 t=0.1, k=3 t=0.1, k=4 t=0.1 and 1 more."


def test_the_spread_of_seeds_decides_where_there_are_seeds() -> None:
    trials = [trial("k=5 t=0.1", 0.62 + s / 100, seed=s) for s in range(3)]
    trials += [replace(INFONCE, seed=s, metrics={**INFONCE.metrics, "eval/linear_accuracy": 0.6 + s / 100})
               for s in range(3)]  # fmt: skip
    answer = answer_of(sweep_of(*trials))
    assert answer is not None
    # Two points of deviation 0.01 each, four degrees of freedom: t = 2.776.
    assert answer.infonce.margin == pytest.approx(2.776 * 0.01 * math.sqrt(2 / 3), rel=1e-3)
    assert not answer.infonce.is_told_apart


def test_why_is_said_beside_the_neighbours_of_the_same_source_and_temperature() -> None:
    trials = [
        trial(f"k={k} t={t}", accuracy, clusters=k, information=k / 50, rest=k / 20, temperature=t)
        for k, accuracy in ((5, 0.5), (20, 0.6), (50, 0.7), (150, 0.6), (500, 0.5))
        for t in (0.1, 0.5)
    ]
    said = " ".join(describe_answer(sweep_of(*trials, INFONCE)))
    assert "Its clusters tell 1.00 bits about the labels, I(Z;T), and hold 2.50 besides, H(Z|T)." in said
    assert "The next coarser, k=20 t=0.1, tells less (0.40) and holds less (1.00)" in said
    assert "the next finer, k=150 t=0.1, tells more (3.00) and holds more (7.50)." in said


def test_without_a_way_from_infonce_to_supcon_no_share_of_it_is_said() -> None:
    low = trial("supcon t=0.1", 0.601, source="labels", objective="supcon")
    assert "SupCon (60.1 %) is not told apart from InfoNCE" in describe_answer(
        sweep_of(trial("k=5", 0.7), INFONCE, low)
    )[0]  # fmt: skip


def test_the_untrained_encoder_is_the_floor() -> None:
    sweep = sweep_of(trial("k=5", 0.61), INFONCE, untrained={"eval/linear_accuracy": 0.605})
    assert "The untrained encoder reaches 60.5 %, which is not told apart from the best." in describe_answer(sweep)


@pytest.mark.parametrize("images", [None, 450])
def test_a_sweep_of_one_trial_or_of_references_alone_has_an_answer(images: int | None) -> None:
    assert "has no InfoNCE to hold them against" in describe_answer(sweep_of(trial("k=5", 0.5), images=images))[0]
    said = describe_answer(sweep_of(INFONCE, SUPCON, images=images))[0]
    assert said.startswith("The sweep has no candidate clusters, only references: the best is infonce t=0.1, 60.0 %")
    assert (
        "how sure this is cannot be said"
        in " ".join(describe_answer(sweep_of(trial("k=5", 0.7), INFONCE, images=None))).lower()
    )


def test_a_sweep_without_a_finished_trial_says_so() -> None:
    early = trial("k=5", 0.5, state="pruned")
    assert describe_answer(sweep_of(early)) == [NO_TRIAL]
    assert describe_answer(sweep_of(trial("k=5", math.nan))) == [NO_TRIAL]


def on_test(result: TrialResult, accuracy: float) -> TrialResult:
    return replace(result, metrics={**result.metrics, "test/linear_accuracy": accuracy})


def test_validation_chooses_and_the_test_images_report() -> None:
    trials = [
        on_test(trial("lucky on test", 0.60, clusters=5), 0.90),
        on_test(trial("best on validation", 0.70, clusters=9), 0.65),
        on_test(INFONCE, 0.60),
    ]
    said = describe_answer(sweep_of(*trials, num_validation_images=1000))
    assert said[0].startswith("The best clusters are best on validation, 65.0 % linear accuracy: 5.0 points above")
    assert said[-1] == "The best was chosen by 1000 validation images; accuracies are on test images."


def test_a_point_without_a_test_accuracy_leaves_all_on_validation() -> None:
    said = " ".join(describe_answer(sweep_of(on_test(trial("k=5", 0.7), 0.65), INFONCE, num_validation_images=1000)))
    assert "k=5, 70.0 % linear accuracy" in said
    assert "validation images;" not in said


def unlabelled(point: str, rankme: float, **more: object) -> TrialResult:
    """A trial of images without labels."""
    balance = {"clusters/entropy_bits": 2.0, "clusters/imbalance_factor": 1.5, "clusters/num_clusters": 4.0}
    return replace(trial(point, 0.0, **more), metrics={"eval/rankme": rankme, **balance})


def test_without_labels_the_answer_is_told_in_what_ranks_and_in_its_own_units() -> None:
    infonce = [unlabelled("infonce", value, seed=seed, source="instance") for seed, value in enumerate((5.0, 5.1))]
    best = [unlabelled("k=4", value, seed=seed) for seed, value in enumerate((7.0, 7.1))]
    said = " ".join(describe_answer(sweep_of(*infonce, *best), "eval/rankme"))
    assert said.startswith("The best clusters are k=4, RankMe 7.05 ± 0.07 over 2 seeds: 2.00 above InfoNCE (infonce")
    assert "Its clusters hold 2.00 bits, H(Z), with an imbalance of 1.50" in said
    assert "There are no labels: RankMe ranks the points" in said
    assert "%" not in said.replace("95 % interval", "")


def test_the_number_of_test_images_says_nothing_of_what_is_no_share_of_them() -> None:
    said = " ".join(describe_answer(sweep_of(unlabelled("a", 7.0), unlabelled("b", 6.9)), "eval/rankme"))
    assert "Repeat the points with sweep.seeds=3" in said
    assert "10000 test images" not in said


def test_without_labels_plane_and_table_show_the_balance_of_clusters() -> None:
    sweep = sweep_of(unlabelled("a", 7.0), unlabelled("b", 6.9))
    drawn = plane([sweep], "eval/rankme")
    assert (drawn.axes, drawn.corners, len(drawn.marks)) == (BALANCE_PLANE, (), 2)
    assert {(mark.information, mark.rest) for mark in drawn.marks} == {(2.0, 1.5)}
    header, rows = header_of(found := summarize(sweep.trials, "eval/rankme")), as_rows(found)
    assert dict(zip(header, rows[0], strict=True)) == {
        "point": "a", "role": "", "repeats": "1", "RankMe": "7.00", "H(Z) bits": "2.00", "imbalance": "1.50",
    }  # fmt: skip
    assert plane([digits()], "eval/linear_accuracy").axes is INFORMATION_PLANE
