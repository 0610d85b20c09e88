"""The domain of one key of a search space, with Ray Tune's names and meaning, checked before Ray starts."""

import difflib
import math
from dataclasses import dataclass
from typing import Any

from clray.config import check_key, check_value
from clray.config.once import require_per_trial
from clray.config.plain import shown
from clray.config.sections.values import LARGEST
from clray.errors import UserError

LISTS = ("grid_search", "choice")
RANGES = {
    "uniform": "[lower, upper]",
    "loguniform": "[lower, upper]",
    "quniform": "[lower, upper, step]",
    "randint": "[lower, upper]",
    "lograndint": "[lower, upper]",
}
INSIDE = (math.sqrt(5) - 1) / 2
"""Where between the ends of a range a value stands for all those that are not whole."""


@dataclass(frozen=True)
class Domain:
    """One key's domain: `grid_search` and `choice` list values, the others give bounds."""

    key: str
    name: str
    arguments: tuple[Any, ...]

    @property
    def is_list(self) -> bool:
        return self.name in LISTS

    @property
    def ends(self) -> tuple[Any, ...]:
        """The listed values, or both ends of a range."""
        if self.is_list:
            return self.arguments
        low, high = self.arguments[:2]
        # The upper bound of an integer range is excluded.
        return (low, high - 1) if self.name in ("randint", "lograndint") else (low, high)


def parse_domain(key: str, spec: Any) -> Domain:
    """`{grid_search: [1, 2]}` of a key; a plain value is a grid of one.

    Raises:
        UserError: an unknown key, one that all trials share, an unknown domain or arguments that do not fit it.
    """
    require_per_trial(key)
    check_key(key, "search_space")
    if not isinstance(spec, dict):
        return Domain(key, "grid_search", (spec,))
    if len(spec) != 1:
        raise UserError(f"search_space.{key}: expected one domain such as {{grid_search: [1, 2]}}; got {shown(spec)}")
    ((name, arguments),) = spec.items()
    where = f"search_space.{key}.{name}"
    if name not in (*LISTS, *RANGES):
        near = difflib.get_close_matches(str(name), (*LISTS, *RANGES), n=1, cutoff=0.5)
        hint = f" Did you mean '{near[0]}'?" if near else ""
        raise UserError(f"search_space.{key}: unknown domain '{name}'.{hint} Domains: {', '.join((*LISTS, *RANGES))}")
    if not isinstance(arguments, list) or not arguments:
        raise UserError(f"{where}: expected a list of values; got {shown(arguments)}")
    if name in LISTS:
        return Domain(key, name, tuple(arguments))
    domain = Domain(key, name, _checked_range(name, arguments, where))
    for value in (*domain.ends, _inside(domain)):
        check_value(key, value, f"search_space.{name}")
    return domain


def tune_domain(domain: Domain) -> Any:
    """The domain as Ray Tune's own; a grid becomes a choice. Imports Ray, which takes seconds."""
    from ray import tune

    if domain.is_list:
        return tune.choice(list(domain.arguments))
    return getattr(tune, domain.name)(*domain.arguments)


def _inside(domain: Domain) -> Any:
    """A value between the ends: what is true of it and of them is true of all."""
    low, high = domain.ends
    if domain.name == "quniform":
        return low + domain.arguments[2]
    return low + INSIDE * (high - low) if domain.name in ("uniform", "loguniform") else low


def _checked_range(name: str, arguments: list[Any], where: str) -> tuple[Any, ...]:
    if len(arguments) != len(RANGES[name].split(",")) or not all(map(_is_finite, arguments)):
        raise UserError(f"{where}: expected {RANGES[name]}, finite numbers; got {shown(arguments)}")
    low, high = arguments[:2]
    if not low < high:
        raise UserError(f"{where}: the lower bound must be below the upper; got {shown(arguments)}")
    if name.startswith("log") and low <= 0:
        raise UserError(f"{where}: a logarithmic range starts above 0; got {shown(arguments)}")
    if name.endswith("randint"):
        if not all(float(value).is_integer() and abs(value) <= LARGEST for value in arguments):
            raise UserError(f"{where}: the bounds must be whole numbers up to {LARGEST}; got {shown(arguments)}")
        return int(low), int(high)
    if name == "quniform":
        step = arguments[2]
        if not 0 < step <= high - low or not all(_is_multiple(bound, step) for bound in (low, high)):
            raise UserError(
                f"{where}: the step must be above 0, and both bounds multiples of it; got {shown(arguments)}"
            )
    return tuple(arguments)


def _is_finite(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer beyond what floats hold
        return False


def _is_multiple(bound: float, step: float) -> bool:
    """As Ray Tune judges it."""
    ratio = bound / step
    return math.isfinite(ratio) and math.isclose(ratio, round(ratio))
