"""What charts are made of: marks, lines, levels and corners, with what stands beside them. Knows no drawing library."""

from dataclasses import dataclass

from clray.report.measures import PERCENT, Measure
from clray.report.roles import Role
from clray.report.summary import BALANCE, INFORMATION


@dataclass(frozen=True)
class Axes:
    """What a plane is spanned by: its title, and of each axis metric, text, and short text with unit."""

    title: str
    about: str
    metrics: tuple[str, str]
    labels: tuple[str, str]
    names: tuple[str, str]
    units: tuple[str, str]


INFORMATION_PLANE = Axes(
    "Information plane",
    "Accuracy over what the clusters tell about the labels and what they hold besides.",
    INFORMATION,
    ("I(Z;T), bits: what the clusters tell about the labels", "H(Z|T), bits: what the clusters hold besides"),
    ("I(Z;T)", "H(Z|T)"),
    (" bits", " bits"),
)
BALANCE_PLANE = Axes(
    "Balance of the clusters",
    "Without labels: how finely the clusters divide the images, and how unequal they are.",
    BALANCE,
    ("H(Z), bits: how finely the clusters divide the images", "imbalance: 1 for clusters of equal size"),
    ("H(Z)", "imbalance"),
    (" bits", ""),
)


@dataclass(frozen=True)
class PlaneMark:
    """A trial on a plane: `information` and `rest` as its axes have them, accuracy in the units of its measure."""

    trial: str
    label: str
    information: float
    rest: float
    accuracy: float
    num_clusters: int | None
    reason: str | None


@dataclass(frozen=True)
class PlaneGroup:
    """Trials of one temperature and one kind, which share a symbol.

    Attributes:
        number: of the temperature, from 0.
        is_reference: InfoNCE, SupCon, supervised or synthetic.
        is_early: ended before their last epoch.
    """

    name: str
    number: int
    is_reference: bool
    is_early: bool
    marks: tuple[PlaneMark, ...]


@dataclass(frozen=True)
class Corner:
    """Where a reference lies by its definition."""

    name: str
    information: float
    rest: float


@dataclass(frozen=True)
class Plane:
    """Accuracy, or what takes its place, over I(Z;T) and H(Z|T); without labels over H(Z) and imbalance.

    Attributes:
        floor: that of the encoder before any training, which is called `start`.
    """

    metric: str
    groups: tuple[PlaneGroup, ...]
    corners: tuple[Corner, ...]
    floor: float | None = None
    start: str = "untrained encoder"
    measure: Measure = PERCENT
    axes: Axes = INFORMATION_PLANE

    @property
    def marks(self) -> list[PlaneMark]:
        return [mark for group in self.groups for mark in group.marks]

    @property
    def accuracy_range(self) -> tuple[float, float]:
        """Of the colours, from the floor on; a range of no width is widened."""
        values = [mark.accuracy for mark in self.marks] or [0.0]
        values += [] if self.floor is None else [self.floor]
        low, high = min(values), max(values)
        return (low, high) if high - low > 1e-9 else (low - 1, high + 1)


@dataclass(frozen=True)
class LineMark:
    """A point over its repeats: mean and spread of accuracy; no spread with one repeat."""

    point: str
    num_clusters: int
    mean: float
    spread: float | None


@dataclass(frozen=True)
class Line:
    """Points that differ in granularity alone, by rising number of clusters.

    Attributes:
        number: of the temperature, from 0.
        setting: number of what else the line holds fixed, from 0: source, objective, learning rate.
        is_joined: False for single points of many settings, which no line joins.
    """

    name: str
    number: int
    setting: int
    is_joined: bool
    marks: tuple[LineMark, ...]


@dataclass(frozen=True)
class Level:
    """A reference, whose accuracy does not depend on the number of clusters.

    Attributes:
        role: None for the encoder before any training.
        number: of the temperature; None where it has none.
    """

    name: str
    role: Role | None
    number: int | None
    mean: float
    spread: float | None


@dataclass(frozen=True)
class Granularity:
    """Accuracy over the number of clusters: a line for each source of clusters and temperature."""

    metric: str
    lines: tuple[Line, ...]
    levels: tuple[Level, ...]
    measure: Measure = PERCENT
