"""YAML search space to the points of a sweep, validated before Ray starts.

Domains have Ray Tune's names and meaning, and its samplers draw from them.
"""

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from clray.config import Config, parse_config, with_overrides
from clray.config.plain import shown
from clray.config.sections import OBJECTIVE_SOURCES, ClustersConfig, ObjectiveConfig
from clray.errors import UserError
from clray.seeding import derive_seed
from clray.sweeps.domains import Domain, parse_domain, tune_domain

MOST_TRIALS = 10_000
"""In a sweep: each is a run in MLflow and a folder, and is checked before the first starts."""
DEFAULT_OBJECTIVE, DEFAULT_SOURCE = (
    ObjectiveConfig.model_fields["name"].default, ClustersConfig.model_fields["source"].default
)  # fmt: skip
SHORT_NAMES = {
    "clusters.num_clusters": "k",
    "clusters.granularities": "k",
    "clusters.num_attributes": "attributes",
    "clusters.num_merged": "merged",
    "clusters.num_splits": "splits",
    "objective.temperature": "t",
}


@dataclass(frozen=True)
class SweepPoint:
    """One trial: its number, a readable name such as `k=50 t=0.1`, what it overrides, and its config."""

    index: int
    name: str
    overrides: dict[str, Any]
    config: Config

    @property
    def repeated_name(self) -> str:
        """The name without the seed: the same for all repeats of a point."""
        return point_name({key: value for key, value in self.overrides.items() if key != "seed"})


@dataclass(frozen=True)
class SweepPlan:
    """The trials of a sweep.

    Attributes:
        points: those known before; none where a searcher suggests them one by one.
        probes: for a searcher that does, points at the ends of every domain: what is true of them is true of all.
        domains: of the first search space.
    """

    num_trials: int
    points: list[SweepPoint]
    probes: list[SweepPoint]
    domains: list[Domain]

    @property
    def samples(self) -> list[SweepPoint]:
        """Points by which the sweep can be judged before it runs."""
        return self.points or self.probes


def plan_sweep(config: Config) -> SweepPlan:
    """What the sweep will run.

    Raises:
        UserError: an unknown key or domain, wrong arguments, more than `MOST_TRIALS` trials, or a point that makes no
            valid config.
    """
    spaces = parse_spaces(config)
    num_trials = _count_trials(config, spaces)
    if num_trials > MOST_TRIALS:
        raise UserError(
            f"search_space: {num_trials:,} trials; a sweep has at most {MOST_TRIALS:,}. Lower sweep.num_samples, "
            "shorten the grids, or draw from them with sweep.searcher=random"
        )
    if not config.sweep.is_sequential:
        points = _draw_points(config, spaces)
        return SweepPlan(len(points), points, [], spaces[0])
    if len(spaces) > 1:
        raise UserError(f"search_space: sweep.searcher={config.sweep.searcher} searches one space; got {len(spaces)}")
    return SweepPlan(num_trials, [], _probe_points(config, spaces[0]), spaces[0])


def parse_spaces(config: Config) -> list[list[Domain]]:
    """The domains of each search space; raises UserError as `plan_sweep`."""
    if not config.search_space or not all(config.search_space):
        raise UserError(
            "search_space: nothing to sweep; add for example clusters.num_clusters: {grid_search: [10, 100]}"
        )
    spaces = [[parse_domain(key, spec) for key, spec in space.items()] for space in config.search_space]
    if config.sweep.seeds > 1 and any(domain.key == "seed" for domain in itertools.chain(*spaces)):
        raise UserError("search_space.seed: sweep.seeds repeats each point already; leave out either")
    return spaces


def repeat_point(config: Config, overrides: dict[str, Any], first_index: int) -> list[SweepPoint]:
    """A point with each of its seeds, as trials numbered from `first_index`.

    Raises:
        UserError: it makes no valid config.
    """
    return _repeat(config, _base_tree(config), overrides, first_index)


def _base_tree(config: Config) -> dict[str, Any]:
    return config.model_dump(mode="json") | {"search_space": []}


def _repeat(config: Config, base: dict[str, Any], overrides: dict[str, Any], first_index: int) -> list[SweepPoint]:
    seeds = range(config.seed, config.seed + config.sweep.seeds)
    repeats = [overrides] if len(seeds) == 1 else [{**overrides, "seed": seed} for seed in seeds]
    points = []
    for number, each in enumerate(repeats):
        name = point_name(each)
        valid = parse_config(with_overrides(base, each), f"trial {name}")
        points.append(SweepPoint(first_index + number, name, each, valid))
    return points


def _is_grid(config: Config, domain: Domain) -> bool:
    """Whether every value of the domain is taken, rather than drawn."""
    return domain.name == "grid_search" and config.sweep.searcher == "grid"


def _count_trials(config: Config, spaces: list[list[Domain]]) -> int:
    grids = (math.prod(len(domain.arguments) for domain in space if _is_grid(config, domain)) for space in spaces)
    return sum(grids) * config.sweep.num_samples * config.sweep.seeds


def _draw_points(config: Config, spaces: list[list[Domain]]) -> list[SweepPoint]:
    """The product of the grids and the draws of the other domains, `sweep.num_samples` times."""
    needs_sampler = any(not _is_grid(config, domain) for space in spaces for domain in space)
    sampler = _tune_sampler(config) if needs_sampler else None
    base, points = _base_tree(config), list[SweepPoint]()
    for _, space in itertools.product(range(config.sweep.num_samples), spaces):
        grids = [domain for domain in space if _is_grid(config, domain)]
        for values in itertools.product(*(domain.arguments for domain in grids)):
            overrides = dict(zip((domain.key for domain in grids), values, strict=True))
            for domain in space:
                if domain not in grids:
                    assert sampler is not None, "random domains come with a sampler"
                    overrides[domain.key] = sampler(domain)
            points += _repeat(config, base, overrides, len(points))
    return points


def _probe_points(config: Config, space: list[Domain]) -> list[SweepPoint]:
    """Points that take each end, or each listed value, of every domain at least once."""
    ends = [domain.ends for domain in space]
    base, probes = _base_tree(config), list[SweepPoint]()
    for number in range(max(map(len, ends))):
        overrides = {
            domain.key: values[min(number, len(values) - 1)] for domain, values in zip(space, ends, strict=True)
        }
        probes += _repeat(config, base, overrides, len(probes))
    return probes


def point_name(overrides: dict[str, Any]) -> str:
    """`{"objective.name": "cl-infonce", "clusters.source": "kmeans", "clusters.num_clusters": 50}` as `k=50`."""
    objective = overrides.get("objective.name", DEFAULT_OBJECTIVE)
    source = overrides.get("clusters.source", DEFAULT_SOURCE)
    parts = [_shown(objective)] if objective != DEFAULT_OBJECTIVE else []
    if source != DEFAULT_SOURCE and _shown(objective) not in OBJECTIVE_SOURCES:
        parts.append(_shown(source))
    for key, value in overrides.items():
        if key not in ("objective.name", "clusters.source"):
            parts.append(f"{SHORT_NAMES.get(key, key.rsplit('.', 1)[-1])}={_shown(value)}")
    return " ".join(parts) or DEFAULT_SOURCE


def _shown(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ",".join("[...]" if isinstance(each, list | tuple) else _shown(each) for each in value)
    return f"{value:.4g}" if isinstance(value, float) else value if isinstance(value, str) else shown(value)


def _tune_sampler(config: Config) -> Callable[[Domain], Any]:
    """Draws from Tune's own domains, in an order fixed by the run seed. Imports Ray, which takes seconds."""
    generator = np.random.RandomState(derive_seed(config.seed, "search space") % 2**32)

    def sample(domain: Domain) -> Any:
        value = tune_domain(domain).sample(random_state=generator)
        return value.item() if isinstance(value, np.generic) else value

    return sample
