"""How figures are shown: shares in percent, all else as it is."""

from dataclasses import dataclass

SHARES = ("accuracy", "precision", "fraction")


@dataclass(frozen=True)
class Measure:
    """The units in which a metric is shown.

    Attributes:
        scale: from the metric to what is shown.
        digits: after the point.
        unit: behind the number, empty where it has none.
        points: what a difference is counted in, with a space before it; empty where it has no unit.
    """

    scale: float
    digits: int
    unit: str
    points: str

    @property
    def is_share(self) -> bool:
        """Whether it is a share of images, whose error follows from their number."""
        return self.unit == "%"

    def text(self, shown: float) -> str:
        """A number that is scaled already, with its unit."""
        return self.with_unit(f"{shown:.{self.digits}f}")

    def with_unit(self, number: str) -> str:
        return f"{number} {self.unit}" if self.unit else number

    def axis(self, name: str) -> str:
        """Text for an axis."""
        return f"{name} ({self.unit})" if self.unit else name


PERCENT = Measure(100, 1, "%", " points")
PLAIN = Measure(1, 2, "", "")


def measure_of(metric: str) -> Measure:
    """By the metric's name: `eval/linear_accuracy/colour` is a share, `eval/rankme` is none."""
    base = "/".join(metric.split("/")[:2])
    return PERCENT if any(base.endswith(name) for name in SHARES) else PLAIN
