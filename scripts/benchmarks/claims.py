"""The paper's systems on CIFAR-10, each against InfoNCE: for every seed all start from one warm-up.

    python scripts/benchmarks/claims.py TRAIN.parquet TEST.parquet --output outputs/claims

For each seed an encoder is trained by InfoNCE; then a sweep runs with this seed, whose trials start from that encoder.
The systems are compared in pairs of a seed. What has been run is kept in `--output`, and an interrupted run goes on.
"""

import argparse
from pathlib import Path

import pandas as pd
from scipy import stats

import clray
from clray.data.load import load_dataset
from clray.training.accuracy import evaluate_untrained

WARMUP = {"objective.name": "infonce", "tracking.pictures": "none"}
SCORE = "test/linear_accuracy"
SHOWN = {
    "linear %": (SCORE, 100),
    "20 neighbours %": ("test/knn_accuracy", 100),
    "I(Z;T) above chance": ("clusters/adjusted_mutual_information_bits", 1),
    "H(Z|T)": ("clusters/conditional_entropy_bits", 1),
}
"""Columns of the table: a metric, and what it is multiplied by."""


def run_seed(source: Path, seed: int, overrides: dict[str, object], output: Path) -> pd.DataFrame:
    """The trials of a seed, a row each, with those of the untrained encoder and the warm-up; once run they are kept."""
    common = {**overrides, "seed": seed, "output": str(output)}
    warmup, name = f"warmup-{seed}", f"{source.stem}-{seed}"
    kept_start, kept = output / f"{warmup}.csv", output / f"{name}.csv"
    if not kept_start.exists():
        run = clray.train(source, {**common, **WARMUP}, name=warmup, resume=(output / warmup / "config.yaml").exists())
        untrained = evaluate_untrained(run.config, load_dataset(run.config.data))
        accuracies = {name: value for name, value in run.metrics.items() if name.startswith(("eval/", "test/"))}
        start = [{"trial": "untrained encoder", **untrained}, {"trial": "the warm-up", **accuracies}]
        pd.DataFrame(start).assign(**{"objective.name": "infonce"}).to_csv(kept_start, index=False)
    if not kept.exists():
        started = {**common, "encoder.weights": str(output / warmup)}
        result = clray.sweep(source, started, name=name, resume=(output / name / "config.yaml").exists())
        result.table.to_csv(kept, index=False)
    return pd.concat(pd.read_csv(each) for each in (kept_start, kept)).assign(seed=seed)


def spread(values: pd.Series) -> str:
    """Mean and sample deviation; nothing where it was not measured."""
    if values.isna().any():
        return ""
    return f"{values.mean():.2f}" + (f" ± {values.std(ddof=1):.2f}" if len(values) > 1 else "")


def interval(differences: pd.Series) -> str:
    """The mean of paired differences with its 95 % interval by Student's t, in percentage points."""
    n, mean = len(differences), 100 * differences.mean()
    if n < 2:
        return f"{mean:+.1f}"
    half = 100 * stats.t.ppf(0.975, n - 1) * differences.std(ddof=1) / n**0.5
    return f"{mean:+.1f} ({mean - half:+.1f} to {mean + half:+.1f})"


def table(trials: pd.DataFrame, baseline: str) -> str:
    """A row for each system: mean and deviation over the seeds, and the difference to the baseline of the same seed."""
    scores = trials.pivot(index="seed", columns="trial", values=SCORE)
    groups = trials.groupby("trial")
    lines = [
        f"| system | seeds | {' | '.join(SHOWN)} | beside {baseline}, points |",
        f"| --- | {' | '.join(['---:'] * (len(SHOWN) + 2))} |",
    ]
    for point in scores.mean().sort_values(ascending=False).index:
        rows = groups.get_group(point)
        cells = [spread(scale * rows[name]) for name, scale in SHOWN.values()]
        difference = "" if point == baseline else interval(scores[point] - scores[baseline])
        lines.append(f"| {point} | {len(rows)} | {' | '.join(cells)} | {difference} |")
    return "\n".join(lines)


def correlations(trials: pd.DataFrame) -> list[str]:
    """Spearman's correlation of accuracy with both axes over the means of the trials, and of those of Cl-InfoNCE."""
    means = trials.groupby("trial").mean(numeric_only=True).dropna(subset=SHOWN["H(Z|T)"][0])  # what has clusters
    others = trials.loc[trials["objective.name"].fillna("cl-infonce") != "cl-infonce", "trial"].unique()
    lines = []
    for among, rows in (("all", means), ("Cl-InfoNCE's", means.drop(others, errors="ignore"))):
        for name in ("I(Z;T) above chance", "H(Z|T)"):
            found = stats.spearmanr(rows[SHOWN[name][0]].round(9), rows[SCORE])  # beyond are the roundings of sums
            lines.append(f"{name}, {among} {len(rows)} points: {found.statistic:+.2f} (p = {found.pvalue:.2g})")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("train", type=Path)
    parser.add_argument("test", type=Path)
    parser.add_argument("--output", type=Path, default=Path("outputs/claims"))
    parser.add_argument("--sweep", type=Path, default=Path("tune_configs/claims_cifar10.yaml"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[11, 12, 13, 14, 15])
    parser.add_argument("--baseline", default="infonce", help="the trial that the others are compared with")
    options = parser.parse_args()
    output = options.output.resolve()
    overrides: dict[str, object] = {
        "data.train_path": str(options.train.resolve()),
        "data.test_path": str(options.test.resolve()),
    }
    trials = pd.concat(run_seed(options.sweep, seed, overrides, output) for seed in options.seeds)
    print(table(trials, options.baseline))
    print(*correlations(trials), sep="\n")


if __name__ == "__main__":
    main()
