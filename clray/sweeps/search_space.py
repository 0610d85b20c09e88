"""YAML search space to the points of a sweep, validated before Ray starts.

Domains have Ray Tune's names and meaning, and its samplers draw from them.
"""

import difflib
import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from clray.config import Config, check_key, override
from clray.config.sections import OBJECTIVE_SOURCES, ClustersConfig, ObjectiveConfig
from clray.errors import UserError
from clray.seeding import derive_seed

NUM_ARGUMENTS = {"grid_search": None, "choice": None, "uniform": 2, "loguniform": 2, "quniform": 3, "randint": 2,
                 "lograndint": 2}  # fmt: skip
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
class Domain:
    """One key's domain: `grid_search` and `choice` list values, the others give bounds."""

    key: str
    name: str
    arguments: tuple[Any, ...]


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
        UserError: an unknown key or domain, wrong arguments, or a point that makes no valid config.
    """
    spaces = parse_spaces(config)
    if not config.sweep.is_sequential:
        points = _draw_points(config, spaces)
        return SweepPlan(len(points), points, [], spaces[0])
    if len(spaces) > 1:
        raise UserError(f"search_space: sweep.searcher={config.sweep.searcher} searches one space; got {len(spaces)}")
    probes = _probe_points(config, spaces[0])
    return SweepPlan(config.sweep.num_samples * config.sweep.seeds, [], probes, spaces[0])


def parse_spaces(config: Config) -> list[list[Domain]]:
    """The domains of each search space; raises UserError as `plan_sweep`."""
    spaces = [[_parse_domain(key, spec) for key, spec in space.items()] for space in config.search_space]
    if not spaces:
        raise UserError(
            "search_space: nothing to sweep; add for example clusters.num_clusters: {grid_search: [10, 100]}"
        )
    for domain in itertools.chain(*spaces):
        if domain.key == "seed" and config.sweep.seeds > 1:
            raise UserError("search_space.seed: sweep.seeds repeats each point already; leave out either")
        _check_bounds(config, domain)
    return spaces


def repeat_point(config: Config, overrides: dict[str, Any], first_index: int) -> list[SweepPoint]:
    """A point with each of its seeds, as trials numbered from `first_index`.

    Raises:
        UserError: it makes no valid config.
    """
    base, seeds = override(config, {"search_space": []}), range(config.seed, config.seed + config.sweep.seeds)
    repeats = [overrides] if len(seeds) == 1 else [{**overrides, "seed": seed} for seed in seeds]
    points = []
    for number, each in enumerate(repeats):
        name = point_name(each)
        points.append(SweepPoint(first_index + number, name, each, override(base, each, f"trial {name}")))
    return points


def _draw_points(config: Config, spaces: list[list[Domain]]) -> list[SweepPoint]:
    """The product of the grids and the draws of the other domains, `sweep.num_samples` times."""

    def is_grid(domain: Domain) -> bool:
        return domain.name == "grid_search" and config.sweep.searcher == "grid"

    needs_sampler = any(not is_grid(domain) for space in spaces for domain in space)
    sampler = _tune_sampler(config) if needs_sampler else None
    points: list[SweepPoint] = []
    for _, space in itertools.product(range(config.sweep.num_samples), spaces):
        grids = [domain for domain in space if is_grid(domain)]
        for values in itertools.product(*(domain.arguments for domain in grids)):
            overrides = dict(zip((domain.key for domain in grids), values, strict=True))
            for domain in space:
                if not is_grid(domain):
                    assert sampler is not None, "random domains come with a sampler"
                    overrides[domain.key] = sampler(domain)
            points += repeat_point(config, overrides, len(points))
    return points


def _probe_points(config: Config, space: list[Domain]) -> list[SweepPoint]:
    """Points that take each end, or each listed value, of every domain at least once."""
    ends = [_ends(domain) for domain in space]
    count = max(map(len, ends))
    probes = []
    for number in range(count):
        overrides = {
            domain.key: values[min(number, len(values) - 1)] for domain, values in zip(space, ends, strict=True)
        }
        probes += repeat_point(config, overrides, len(probes))
    return probes


def tune_domain(domain: Domain) -> Any:
    """The domain as Ray Tune's own; a grid becomes a choice. Imports Ray, which takes seconds."""
    from ray import tune

    if domain.name in ("grid_search", "choice"):
        return tune.choice(list(domain.arguments))
    return getattr(tune, domain.name)(*domain.arguments)


def point_name(overrides: dict[str, Any]) -> str:
    """`{"objective.name": "cl-infonce", "clusters.source": "kmeans", "clusters.num_clusters": 50}` as `k=50`."""
    objective = overrides.get("objective.name", DEFAULT_OBJECTIVE)
    source = overrides.get("clusters.source", DEFAULT_SOURCE)
    parts = [objective] if objective != DEFAULT_OBJECTIVE else []
    if source != DEFAULT_SOURCE and objective not in OBJECTIVE_SOURCES:
        parts.append(source)
    for key, value in overrides.items():
        if key not in ("objective.name", "clusters.source"):
            parts.append(f"{SHORT_NAMES.get(key, key.rsplit('.', 1)[-1])}={_shown(value)}")
    return " ".join(parts) or DEFAULT_SOURCE


def _shown(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ",".join(map(_shown, value))
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _parse_domain(key: str, spec: Any) -> Domain:
    check_key(key, "search_space")
    if not isinstance(spec, dict):
        return Domain(key, "grid_search", (spec,))
    if len(spec) != 1:
        raise UserError(f"search_space.{key}: expected one domain such as {{grid_search: [1, 2]}}; got {spec}")
    ((name, arguments),) = spec.items()
    if name not in NUM_ARGUMENTS:
        near = difflib.get_close_matches(str(name), NUM_ARGUMENTS, n=1, cutoff=0.5)
        hint = f" Did you mean '{near[0]}'?" if near else ""
        raise UserError(f"search_space.{key}: unknown domain '{name}'.{hint} Domains: {', '.join(NUM_ARGUMENTS)}")
    if not isinstance(arguments, list) or not arguments:
        raise UserError(f"search_space.{key}.{name}: expected a list; got {arguments!r}")
    wanted = NUM_ARGUMENTS[name]
    if wanted is not None:
        if len(arguments) != wanted or not all(isinstance(value, int | float) for value in arguments):
            form = "[lower, upper, step]" if wanted == 3 else "[lower, upper]"
            raise UserError(f"search_space.{key}.{name}: expected {form}; got {arguments}")
        if not arguments[0] < arguments[1]:
            raise UserError(f"search_space.{key}.{name}: the lower bound must be below the upper; got {arguments}")
        if name.startswith("log") and arguments[0] <= 0:
            raise UserError(f"search_space.{key}.{name}: a logarithmic range starts above 0; got {arguments}")
    return Domain(key, name, tuple(arguments))


def _check_bounds(config: Config, domain: Domain) -> None:
    """Both ends of a range must be valid values; a grid's values are checked with their points."""
    if domain.name == "grid_search":
        return
    for value in _ends(domain):
        override(config, {domain.key: value}, f"search_space.{domain.name}")


def _ends(domain: Domain) -> tuple[Any, ...]:
    """The listed values, or both ends of a range."""
    if domain.name in ("grid_search", "choice"):
        return domain.arguments
    low, high = domain.arguments[:2]
    # The upper bound of an integer range is excluded.
    return (low, high - 1) if domain.name in ("randint", "lograndint") else (low, high)


def _tune_sampler(config: Config) -> Callable[[Domain], Any]:
    """Draws from Tune's own domains, in an order fixed by the run seed. Imports Ray, which takes seconds."""
    generator = np.random.RandomState(derive_seed(config.seed, "search space") % 2**32)

    def sample(domain: Domain) -> Any:
        value = tune_domain(domain).sample(random_state=generator)
        return value.item() if isinstance(value, np.generic) else value

    return sample
