"""The trials of a sweep, those to come and those that have ended, across interruptions."""

from collections import defaultdict, deque
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from clray.clusters.worth import Look
from clray.config import Config
from clray.errors import UserError
from clray.json_lines import append_line, read_lines
from clray.sweeps.search_space import SweepPlan, SweepPoint, repeat_point
from clray.sweeps.trials import TrialRecord, read_outcome, role_of_config, trial_folder
from clray.sweeps.trunks import find_trunks
from clray.training.trunk import is_fresh

POINTS_FILE = "points.jsonl"


class TrialBook:
    """Deals out trials; those that have ended are read from their folders and not dealt again."""

    def __init__(self, config: Config, plan: SweepPlan, folder: Path) -> None:
        self.config, self.plan, self.folder = config, plan, folder
        self.records: list[TrialRecord] = []
        self._by_number: dict[int, TrialRecord] = {}
        self._waiting: dict[Path | None, deque[TrialRecord]] = defaultdict(deque)
        """Trials that have not been dealt, in order, by the folder of their trunk."""
        self._growing: list[TrialRecord] = []
        """Trials that have been dealt and share a trunk; those that are over are taken out as they are met."""
        roles = [role_of_config(point.config, {}) for point in plan.samples]
        self._has_candidates = not all(role.is_reference for role in roles)
        self.trunks = find_trunks(config, plan.points, folder)
        self._add(plan.points)
        if not plan.points:
            for overrides in self._suggested_before():
                self._add(repeat_point(config, overrides, len(self.records)))

    def next_open(self) -> TrialRecord | None:
        """A trial that is neither over nor dealt, or None where there is none for now.

        Of trials that share a trunk the first is dealt alone, until it has trained that.
        """
        self._growing = [record for record in self._growing if record.is_open]
        growing = {self._trunk_folder(record) for record in self._growing}
        lines = [
            line
            for folder, line in self._open_lines()
            if folder not in growing or self.trunks[line[0].point.index].is_ready
        ]
        if not lines:
            return None
        record = min(lines, key=lambda line: line[0].point.index).popleft()
        if record.point.index in self.trunks:
            self._growing.append(record)
        return record

    def _trunk_folder(self, record: TrialRecord) -> Path | None:
        trunk = self.trunks.get(record.point.index)
        return None if trunk is None else trunk.folder

    def _open_lines(self) -> Iterator[tuple[Path | None, deque[TrialRecord]]]:
        """The lines in which a trial waits that is open; it stands first."""
        for folder, line in self._waiting.items():
            while line and not line[0].is_open:
                line.popleft()
            if line:
                yield folder, line

    def record(self, number: int) -> TrialRecord:
        """The trial of this number; where a plan leaves points out, it is not its place among the records."""
        return self._by_number[number]

    @property
    def first_number(self) -> int:
        """Of the first trial that is not skipped; 0 where there is none yet."""
        return next((record.point.index for record in self.records if record.state != "skipped"), 0)

    def leave_out(self, looks: Mapping[str, Look]) -> list[TrialRecord]:
        """Skip these points, by name, where they have trained nothing; returns their trials."""
        skipped = []
        for record in self.records:
            look = looks.get(record.point.repeated_name)
            if look is not None and record.is_open and is_fresh(record.folder):
                record.state, record.reason, record.metrics = "skipped", look.reason, dict(look.figures)
                skipped.append(record)
        return skipped

    @property
    def is_waiting(self) -> bool:
        """Whether a trial that is open has not been dealt."""
        return next(self._open_lines(), None) is not None

    def is_apart(self, record: TrialRecord) -> bool:
        """Whether a trial is a reference that candidates are held against, and takes no part in what chooses."""
        return self._has_candidates and record.role.is_reference

    @property
    def is_complete(self) -> bool:
        """Whether no further point is to be suggested."""
        return len(self.records) >= self.plan.num_trials

    def add_suggested(self, overrides: dict[str, Any]) -> list[TrialRecord]:
        """Take in a point of a searcher, with its seeds, and remember it; raises UserError where it is not valid."""
        added = self._add(repeat_point(self.config, overrides, len(self.records)))
        append_line(self.folder / POINTS_FILE, overrides)
        return added

    def _add(self, points: list[SweepPoint]) -> list[TrialRecord]:
        added = [TrialRecord(point, trial_folder(self.folder, point)) for point in points]
        for record in added:
            read_outcome(record)
        self.records += added
        for record in added:
            self._by_number[record.point.index] = record
            self._waiting[self._trunk_folder(record)].append(record)
        return added

    def _suggested_before(self) -> list[dict[str, Any]]:
        path = self.folder / POINTS_FILE
        return [self._as_suggested(line, f"{path}, line {n}") for n, line in enumerate(read_lines(path), 1)]

    def _as_suggested(self, overrides: dict[str, Any] | None, where: str) -> dict[str, Any]:
        """A point that the search space can have suggested; the file may come from a storage that others write to.

        Raises:
            UserError: it sets another key, such as `allow_user_modules`, or a word that the space does not list.
        """
        listed = {
            domain.key: domain.arguments if domain.name in ("grid_search", "choice") else ()
            for domain in self.plan.domains
        }
        if not isinstance(overrides, dict):
            raise UserError(f"{where}: expected a point of the search space; got a damaged line; start a new sweep")
        for key, value in overrides.items():
            is_number = isinstance(value, int | float) and not isinstance(value, bool)
            if key not in listed or not (is_number or value in listed[key]):
                raise UserError(f"{where}: {key}={value!r} is not in the search space; start a new sweep")
        return overrides
