"""Waiting for shards: one that computes is waited for as long as it takes, and one that answers nothing is not.

Each shard answers in a thread of its own, whatever it computes. It is asked only where it has been waited for a while.
Who waits is told of shards that do not answer, or that Ray cannot place, more and more rarely, and then it ends.
Halfway there the process of a silent shard is replaced, once: one that is stopped or hangs would never answer again.
"""

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayError

from clray.config.sections import KMeansConfig
from clray.errors import WaitedTooLong
from clray.ray_runtime.actors import free_nodes, place_of
from clray.ray_runtime.cluster import carries
from clray.ray_runtime.room import Bundle

TELL_SECONDS = 60.0
"""Of silence until it is told the first time; each time it lasts twice as long until the next."""
NUM_QUESTIONS = 4
"""So often a shard is asked until then."""

log = logging.getLogger(__name__)


class Watch:
    """The shards of one config, and since when each of them has been silent; for any threads that wait for them."""

    def __init__(
        self,
        actors: Sequence[Any],
        config: KMeansConfig,
        *,
        say: Callable[[str], None] = log.warning,
        section: str = "",
    ) -> None:
        """Watch these shards.

        Args:
            actors: the shards, by number.
            config: tells what each of them needs, and how long they are waited for.
            say: is told of silent ones, from the threads that wait.
            section: what stands before the names of settings, such as "kmeans.".
        """
        self.actors, self.say, self.section = actors, say, section
        self.needed, self.labels = Bundle(config.cpus_per_shard, config.gpus_per_shard), config.node_labels
        self.limit_seconds = config.timeout_seconds
        self.tell_seconds = min(TELL_SECONDS, self.limit_seconds / 4)
        self.ask_seconds = self.tell_seconds / NUM_QUESTIONS
        self.replace_seconds = self.limit_seconds / 2
        self._asked: dict[int, Any] = {}
        self._since: dict[int, float] = {}
        """By number, the first question that a shard has not answered."""
        self._replaced: set[int] = set()
        """Shards that have not answered since their process was replaced."""
        self._looked_at, self._tell_at = -float("inf"), self.tell_seconds
        self._lock = threading.Lock()

    def get(self, references: Sequence[Any], purpose: str) -> list[Any]:
        """What shards were asked for; the error of any of them as soon as it has one, as `ray.get`.

        Args:
            purpose: what is waited for, such as "their sums".

        Raises:
            WaitedTooLong: one has been silent for `timeout_seconds`.
        """
        while True:
            try:
                found: list[Any] = ray.get(list(references), timeout=self.ask_seconds)
                return found
            except GetTimeoutError:
                with suppress(RayError):  # a head that does not answer now ends no computation
                    self._look(purpose)

    def _look(self, purpose: str) -> None:
        with self._lock:
            now = time.monotonic()
            self._hear(now)
            silent = {number: now - since for number, since in sorted(self._since.items())}
            longest = max(silent.values(), default=0.0)
            late = {number: seconds for number, seconds in silent.items() if seconds >= self.tell_seconds}
            if longest >= self.limit_seconds:
                raise WaitedTooLong(self._reason(late, purpose))
            self._replace({number: seconds for number, seconds in silent.items() if seconds >= self.replace_seconds})
            if longest >= self._tell_at:
                self._tell_at = 2 * longest
                self.say(f"waiting for {purpose}: {self._describe(late)}")
            elif not late and self._tell_at > self.tell_seconds:
                self._tell_at = self.tell_seconds
                self.say(f"all {len(self.actors)} k-means shards answer again")

    def _hear(self, now: float) -> None:
        """Hear the answers since the last time, and ask those again who have answered or have lost the question."""
        open_ones = list(self._asked.values())
        done = set(ray.wait(open_ones, num_returns=len(open_ones), timeout=0)[0]) if open_ones else set()
        was_waiting = now - self._looked_at < NUM_QUESTIONS * self.ask_seconds
        for number, actor in enumerate(self.actors):
            asked = self._asked.get(number)
            if asked is not None and asked not in done:
                continue
            if asked is None or _has_answered(asked) or not was_waiting:
                self._since[number] = now
            self._asked[number] = actor.answer.options(max_task_retries=0).remote()
        self._looked_at = now

    def _replace(self, stuck: Mapping[int, float]) -> None:
        """End the process of a shard that has one; Ray starts another, which repeats what was asked of it."""
        self._replaced &= stuck.keys()
        for number, seconds in stuck.items():
            place = place_of(self.actors[number]._actor_id.hex())
            if place is not None and number not in self._replaced:
                self._replaced.add(number)
                self.say(f"k-means shard {number} ({place}) has not answered for {seconds:.0f} s: it is started again")
                ray.kill(self.actors[number], no_restart=False)

    def _describe(self, late: Mapping[int, float]) -> str:
        """Shards that are silent for so many seconds, by number: where each is, or why it is nowhere."""
        parts = []
        for number, seconds in late.items():
            place = place_of(self.actors[number]._actor_id.hex())
            if place is not None:
                parts.append(f"shard {number} ({place}) has not answered for {seconds:.0f} s")
            else:
                parts.append(f"Ray has not placed shard {number} for {seconds:.0f} s: {self._why_nowhere()}")
        answering = len(self.actors) - len(late)
        return f"{answering} of {len(self.actors)} k-means shards answer; {'; '.join(parts)}"

    def _why_nowhere(self) -> str:
        where = f" of those with the labels {dict(self.labels)}" if self.labels else ""
        nodes = [node for node in free_nodes().values() if carries(node.labels, self.labels)]
        if any(node.count(self.needed) >= 1 for node in nodes):
            return f"it needs {self.needed}, which a node{where} has; its process does not start"
        most = max(nodes, key=lambda node: (node.cpus, sum(node.gpus)), default=None)
        return f"it needs {self.needed}, and the largest free node{where} has {'nothing' if most is None else most}"

    def _reason(self, late: Mapping[int, float], purpose: str) -> str:
        name = self.section
        return (
            f"waited {self.limit_seconds:g} s ({name}timeout_seconds) for {purpose}: {self._describe(late)}. "
            "A process that does not answer is stopped, or its machine overloaded or cut off. For one that is not "
            f"placed add a node, or lower {name}num_shards or {name}cpus_per_shard. To wait longer, raise "
            f"{name}timeout_seconds"
        )


def _has_answered(reference: Any) -> bool:
    """What is there is an answer, or says that its actor could not be asked."""
    try:
        ray.get(reference)
    except RayError:
        return False
    return True
