"""The newest attempt of a run is served, in whatever order the calls of its attempts come."""

import asyncio
from itertools import permutations

import pytest

from clray.kmeans.attempts import Attempt, Round, Rounds, Superseded


def test_the_newest_attempt_wins_in_whatever_order_calls_come() -> None:
    for order in permutations([0, 1, 1, 2]):
        rounds, newest = Rounds(Attempt("run", order[0])), 0
        for number in order:
            if number < newest:
                with pytest.raises(Superseded, match="run has been started again since"):
                    rounds.enter(Attempt("run", number))
            else:
                rounds.enter(Attempt("run", number))
            newest = max(newest, number)
            assert rounds.attempt.number == newest, order


def test_a_late_call_of_an_attempt_that_is_over_ends_no_round_of_the_new_one() -> None:
    async def meet() -> None:
        rounds = Rounds(Attempt("run", 0))
        rounds.open[7] = old = Round(world_size=2)
        rounds.enter(Attempt("run", 1))
        rounds.open[7] = new = Round(world_size=2)
        with pytest.raises(Superseded):
            rounds.enter(Attempt("run", 0))
        assert rounds.open == {7: new}
        assert not new.result.done()
        with pytest.raises(Superseded, match="run has been started again"):
            await old.result

    asyncio.run(meet())


def test_a_round_waits_for_its_workers_and_not_for_their_clustering() -> None:
    async def meet() -> None:
        meeting = Round(world_size=2)
        meeting.slices[0] = []
        with pytest.raises(TimeoutError, match=r"run: 1 of 2 workers came in 0\.01 s"):
            await meeting.all_here("run", 0.01)
        meeting.complete()
        await meeting.all_here("run", 0.01)
        assert not meeting.result.done()

    asyncio.run(meet())


def test_who_waits_for_the_others_of_an_attempt_that_ends_waits_no_longer() -> None:
    async def meet() -> None:
        rounds = Rounds(Attempt("run", 0))
        rounds.open[7] = old = Round(world_size=2)
        waiting = asyncio.create_task(old.all_here("run", 1000))
        await asyncio.sleep(0)
        rounds.enter(Attempt("run", 1))
        await waiting
        with pytest.raises(Superseded):
            await old.result

    asyncio.run(meet())
