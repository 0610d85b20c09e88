"""The settings of k-means, once for YAML, Python and the command line.

Those that a training run shares are declared, with their ranges, in the config's section `kmeans`; here are the others.
"""

import difflib
import operator
from collections.abc import Sequence
from numbers import Real
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field, ValidationError, field_validator, model_validator

from clray.config.sections import KMeansConfig, NonNegativeFloat
from clray.errors import UserError

InitMethod = Literal["random", "kmeans++", "afk-mc2", "kmeans-parallel"]
AssignMethod = Literal["exact", "ivf", "hnsw"]

WHOLE = ("seed", "num_shards", "num_iterations", "num_redos", "num_refresh_iterations", "resample_steps")
REAL = ("oversampling", "sample_fraction", "tolerance", "cpus_per_shard", "gpus_per_shard", "timeout_seconds")


class KMeansOptions(KMeansConfig):
    """How to cluster; immutable, and closed to unknown names. Numbers may be NumPy's.

    Raises:
        ValidationError: a value out of range or of another type; `make_options` tells it as a UserError.
    """

    cpus_per_shard: NonNegativeFloat = 1.0
    """Cores that Ray reserves for a shard."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Of the starts and of the repair of empty clusters."""
    oversampling: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 2.0
    """Candidates that each of the five rounds of init=kmeans-parallel draws, as a multiple of K."""
    balanced: bool = False
    """Give ids that make clusters of more even size; the centroids stay."""
    assign_method: AssignMethod = "exact"
    """How the nearest centroid is found; `ivf` and `hnsw` approximate, for very many clusters."""
    sample_fraction: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Share of the vectors, drawn at random and held in memory, that move the centroids in batches, each vector once;
    at most `num_refresh_iterations` over all vectors follow, in place of `num_iterations`. With 1 all iterations see
    all."""
    num_refresh_iterations: Annotated[int, Field(ge=0)] = 10
    """Iterations over all vectors after the batches of a sample, at most; with 0 they are only assigned."""
    resample_steps: Annotated[int, Field(ge=0)] = 0
    """Clusterings that follow, of as many vectors of each cluster, so that centroids follow where vectors lie and less
    how densely. Of nested clusters at each level, whose centroids then count once each, and not by size; 10 as in
    arXiv 2405.15613. With 0 there are none."""
    resample_points: int | None = Field(default=None, ge=2)
    """Vectors of each cluster that they see, those closest to its centroid; by default half of what a cluster has on
    average, and at most 16."""
    drop_nonfinite: bool = False
    """Leave out vectors with NaN, infinity or a squared norm beyond what float32 allows, instead of refusing them."""
    memory_per_shard: int | str | None = None
    """Bound on a shard's own memory in bytes, or such as "300MB"; by default half of what is free, divided by the
    shards. Slices of files that do not fit are read anew in every iteration."""

    @model_validator(mode="after")
    def _approximates_with_faiss(self) -> "KMeansOptions":
        if self.assign_method != "exact" and self.backend not in ("auto", "faiss"):
            raise ValueError(
                f"backend={self.backend} has no approximate search; assign_method={self.assign_method} belongs to "
                "backend=faiss"
            )
        return self

    @field_validator(*WHOLE, mode="before")
    @classmethod
    def _is_whole(cls, value: Any) -> int:
        return whole_number(value)

    @field_validator("resample_points", mode="before")
    @classmethod
    def _is_whole_or_left_out(cls, value: Any) -> int | None:
        return None if value is None else whole_number(value)

    @field_validator(*REAL, mode="before")
    @classmethod
    def _is_real(cls, value: Any) -> float:
        if isinstance(value, bool) or not isinstance(value, Real | np.floating):
            raise ValueError("must be a number")
        try:
            return float(value)
        except OverflowError:
            raise ValueError("must be a number that a float holds") from None


def make_options(**values: Any) -> KMeansOptions:
    """The options of these names.

    Raises:
        UserError: one line a problem, naming option, expectation and value.
    """
    try:
        return KMeansOptions(**values)
    except ValidationError as error:
        raise UserError("\n".join(map(_describe, error.errors()))) from None


def _describe(problem: Any) -> str:
    if not problem["loc"]:  # of several options together
        return str(problem["msg"]).removeprefix("Value error, ")
    name = problem["loc"][0]
    if problem["type"] == "extra_forbidden":
        near = difflib.get_close_matches(str(name), KMeansOptions.model_fields, n=1)
        hint = f"Did you mean {near[0]!r}?" if near else f"Options: {', '.join(KMeansOptions.model_fields)}."
        return f"unknown option {str(name)!r}. {hint}"
    message = problem["msg"].removeprefix("Value error, ").replace("Input should be", "must be")
    return f"{name} {message}; got {shown(problem['input'])}"


def whole_number(value: Any) -> int:
    """An int of Python or NumPy as a Python int; raises ValueError for anything else, bool and 3.0 too."""
    if isinstance(value, bool | np.bool_):
        raise ValueError("must be a whole number")
    try:
        return operator.index(value)
    except TypeError:
        raise ValueError("must be a whole number") from None


def parse_counts(num_clusters: int | Sequence[int]) -> tuple[int, ...]:
    """K, or several, as Python ints.

    Raises:
        UserError: no numbers, others than whole ones, or one that occurs twice.
    """
    given: Any = num_clusters
    several = isinstance(given, Sequence | np.ndarray | set | range) and not isinstance(given, str | bytes)
    values = list(given) if several and getattr(given, "ndim", 1) != 0 else [given]
    try:
        counts = tuple(whole_number(each) for each in values)
    except ValueError:
        raise UserError(f"num_clusters: expected a whole number, or several; got {shown(given)}") from None
    if not counts:
        raise UserError("num_clusters: expected at least one number; got none")
    if len(set(counts)) < len(counts):
        raise UserError(f"num_clusters: each may occur once; got {', '.join(map(str, counts))}")
    return counts


def shown(value: Any) -> str:
    """A value as a message shows it: numbers and short texts as they are, of an object no more than its type."""
    if value is None or isinstance(value, bool | int | float | str | bytes | np.generic):
        return repr(value.item() if isinstance(value, np.generic) else value)[:100]
    if isinstance(value, list | tuple) and len(value) <= 10:
        inside = ", ".join("[...]" if isinstance(each, list | tuple) else shown(each) for each in value)
        return f"[{inside}]" if isinstance(value, list) else f"({inside})"
    return f"a {type(value).__name__}"
