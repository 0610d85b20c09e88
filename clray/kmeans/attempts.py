"""Which attempt of a run the k-means service serves, and the rounds in which that attempt's workers meet."""

import asyncio
from asyncio import FIRST_COMPLETED
from dataclasses import dataclass, field
from typing import Any

from clray.kmeans.refresh import Refreshed
from clray.ray_runtime.board import count_drawn, draw_number


@dataclass(frozen=True)
class Attempt:
    """One start of a run: a group that is restarted is the same run, in its next attempt.

    Attributes:
        number: rises from attempt to attempt of the run.
    """

    run: str
    number: int


def new_attempt(run: str) -> Attempt:
    """The next attempt of a run, numbered on this Ray cluster, whose hosts need not agree on the time."""
    return Attempt(run, draw_number(_numbers(run)))


def newest_attempt(run: str) -> Attempt | None:
    """The last attempt of a run that this Ray cluster has seen."""
    count = count_drawn(_numbers(run))
    return Attempt(run, count - 1) if count else None


def _numbers(run: str) -> str:
    return f"attempts of {run}"


class Superseded(RuntimeError):
    """The attempt of a run that asks has been replaced by a newer one."""


@dataclass(frozen=True)
class Slice:
    """Vectors of a worker in the object store of its node."""

    vectors: Any
    size: int
    num_bytes: int
    node: str


class Round:
    """One clustering of an attempt, while its workers arrive and until each has its answer."""

    def __init__(self, world_size: int) -> None:
        self.world_size = world_size
        self.slices: dict[int, list[Slice]] = {}
        self.counts: list[int] = []
        """Slices of each rank, once all have come."""
        self.result: asyncio.Future[Refreshed] = asyncio.get_running_loop().create_future()
        # A round that nobody waits for any more keeps its error to itself.
        self.result.add_done_callback(lambda result: result.cancelled() or result.exception())
        self.served: set[int] = set()
        self._complete: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def complete(self) -> None:
        """To be told once all workers have come."""
        self._complete.set_result(None)

    async def all_here(self, run: str, seconds: float) -> None:
        """Wait for the workers of the run, or for what ends the round before they come.

        Raises:
            TimeoutError: some have not come in time; how long the clustering takes counts for nothing.
        """
        if not (await asyncio.wait((self._complete, self.result), timeout=seconds, return_when=FIRST_COMPLETED))[0]:
            raise TimeoutError(
                f"clustering for {run}: {len(self.slices)} of {self.world_size} workers came in {seconds:g} s. All ask "
                "for clusters at the same step: the others have died, or are kept back in training"
            )


@dataclass
class Rounds:
    """The rounds of a run's newest attempt, by the seed of the clustering."""

    attempt: Attempt
    open: dict[int, Round] = field(default_factory=dict)

    def enter(self, attempt: Attempt) -> None:
        """Serve this attempt; a newer one than before ends the rounds of that one.

        Calls to an asyncio actor come in any order, so that one of an attempt that is over may be the later.

        Raises:
            Superseded: a newer attempt has come.
        """
        if attempt.number < self.attempt.number:
            raise Superseded(f"{attempt.run} has been started again since")
        if attempt.number > self.attempt.number:
            for each in self.open.values():
                if not each.result.done():
                    each.result.set_exception(Superseded(f"{attempt.run} has been started again"))
            self.attempt, self.open = attempt, {}
