"""How far apart two accuracies must be to be told apart: by the spread of repeats, else by the test images."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from scipy.stats import norm
from scipy.stats import t as student_t

from clray.report.measures import measure_of
from clray.report.summary import PointSummary

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Noise:
    """What makes accuracies of a sweep differ besides what was swept.

    Attributes:
        deviation: sample standard deviation of one run over seeds, pooled over the points with repeats; None without.
        freedom: degrees of freedom of `deviation`.
        num_images: test images behind each accuracy, which give the binomial error; None where not known.
    """

    deviation: float | None
    freedom: int
    num_images: int | None

    def margin(self, *points: tuple[float, int]) -> float | None:
        """Half the 95 % interval of a point's accuracy, or of the difference of two.

        Args:
            points: one or two, each as (accuracy in 0..1, number of repeats).

        Returns:
            With repeats Student's t times the pooled deviation times sqrt(sum 1/repeats); without them the normal
            quantile times the binomial error, for a share two successes and two failures from its own (Agresti and
            Coull 1998), so that 100 % has an error too. None where neither is known.
        """
        if self.deviation is not None:
            quantile = float(student_t.ppf((1 + CONFIDENCE) / 2, self.freedom))
            return quantile * self.deviation * math.sqrt(sum(1 / repeats for _, repeats in points))
        if self.num_images is None:
            return None
        n = self.num_images + 4
        shares = [(accuracy * self.num_images + 2) / n for accuracy, _ in points]
        return float(norm.ppf((1 + CONFIDENCE) / 2)) * math.sqrt(sum(p * (1 - p) / n for p in shares))

    @property
    def is_known(self) -> bool:
        return self.deviation is not None or self.num_images is not None

    @property
    def source(self) -> str:
        """Where the intervals come from, for readers."""
        if self.deviation is not None:
            return "the spread of the seeds, pooled over the points"
        return f"one seed and {self.num_images} test images"


def noise_of(summaries: Sequence[PointSummary], metric: str, num_images: int | None) -> Noise:
    """Pooled over all points with repeats, as a few seeds of one point tell little about their spread.

    Of a measure that is no share of the test images, their number says nothing about its error.
    """
    repeated = [each for each in summaries if metric in each.spreads]
    freedom = sum(each.num_repeats - 1 for each in repeated)
    squares = sum((each.num_repeats - 1) * each.spreads[metric] ** 2 for each in repeated)
    # Repeats that agree to the last image say that the test set is too small to show their spread.
    has_spread = freedom > 0 and squares > 0
    num_images = num_images if measure_of(metric).is_share else None
    return Noise(math.sqrt(squares / freedom) if has_spread else None, freedom if has_spread else 0, num_images)
