"""Which measures without labels rank runs as the labels do: Spearman's correlation over the points of a config.

    python scripts/benchmarks/label_free.py tune_configs/quickstart.yaml -o /tmp/label-free
    python scripts/benchmarks/label_free.py CONFIG -o /tmp/label-free --every 4    # every fourth point

Trains each point in this process, on one thread, and keeps what it measured in `measures.jsonl`; what is there is not
trained again. Prints the tables of docs/label_free.md.
"""

import argparse
import json
from pathlib import Path

import torch

from clray.config import Config, load_config, override, parse_assignment
from clray.data.load import load_dataset
from clray.data.validation import with_validation
from clray.kmeans.refresh import LocalKMeans
from clray.report.correlation import spearman
from clray.sweeps.search_space import plan_sweep
from clray.training.trainer import run
from clray.training.workers.process import LocalSession

LOWER_IS_BETTER = ("alignment", "uniformity")
MEASURES = ("rankme", "alignment", "uniformity", "silhouette", "stability", "confident_fraction")
ACCURACIES = ("test/linear_accuracy", "test/knn_accuracy")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--every", type=int, default=1, help="take every so many of the points")
    arguments = parser.parse_args()
    overrides = dict(parse_assignment(text) for text in arguments.set)
    config = override(load_config(arguments.config), {"tracking.pictures": "none", **overrides})
    torch.set_num_threads(1)
    rows = measure(config, arguments.output, arguments.every)
    print(table_of_runs(rows))
    print(table_of_correlations(rows))


def measure(config: Config, folder: Path, every: int) -> list[dict[str, object]]:
    """Train what has not been trained; a row a point."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "measures.jsonl"
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []
    data = with_validation(load_dataset(config.data), config.data)
    for index, point in enumerate(plan_sweep(config).points[::every]):
        if any(row["point"] == point.name for row in rows):
            continue
        place = folder / f"{index:04d}"
        place.mkdir(exist_ok=True)
        cluster = LocalKMeans(point.config.kmeans)
        metrics = run(point.config, data, LocalSession(place, cluster, lambda _: None, torch.device("cpu")))
        chosen = {f"eval/{name}": metrics[f"eval/{name}"] for name in MEASURES}
        row = {
            "point": point.name,
            "temperature": point.config.objective.temperature,
            "uses_labels": point.config.clusters.source in ("labels", "synthetic", "hierarchy"),
            **chosen,
            **{name: metrics[name] for name in ACCURACIES},
        }
        rows.append(row)
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
    return rows


def table_of_runs(rows: list[dict[str, object]]) -> str:
    lines = ["| run | linear % | k-NN % | " + " | ".join(MEASURES) + " |", "|---" * (3 + len(MEASURES)) + "|"]
    for row in rows:
        accuracies = [f"{100 * float(row[name]):.1f}" for name in ACCURACIES]
        values = [f"{float(row[f'eval/{name}']):.2f}" for name in MEASURES]
        lines.append(f"| {' | '.join([str(row['point']), *accuracies, *values])} |")
    return "\n".join([*lines, ""])


def table_of_correlations(rows: list[dict[str, object]]) -> str:
    """Signs are turned where less is better, so that +1 is a measure that ranks as the labels do."""
    parts = {"all runs": rows, "without labels in training": [row for row in rows if not row["uses_labels"]]}
    parts |= {
        f"t={t}": [row for row in rows if row["temperature"] == t] for t in sorted({r["temperature"] for r in rows})
    }
    heads = [f"{name}, {accuracy.split('/')[1].split('_')[0]}" for name in parts for accuracy in ACCURACIES]
    lines = ["| measure | " + " | ".join(heads) + " |", "|---" * (1 + len(heads)) + "|"]
    for name in MEASURES:
        sign = -1 if name in LOWER_IS_BETTER else 1
        cells = []
        for members in parts.values():
            for accuracy in ACCURACIES:
                pair = (
                    [sign * float(row[f"eval/{name}"]) for row in members],
                    [float(row[accuracy]) for row in members],
                )
                coefficient, _ = spearman(*pair)
                cells.append("none" if coefficient is None else f"{coefficient:+.2f}")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    main()
