"""Linear probe and nearest neighbours: time and accuracy beside what they replace, and beside the products alone.

    python scripts/benchmarks/evaluation.py            # 50,000 + 10,000 samples of 512 dimensions, 10 classes
    python scripts/benchmarks/evaluation.py --dim 64 --samples 5000 --scikit-learn

Prints a line of JSON for each. `sgd probe` restates the former probe (100 epochs, rate 0.3, cosine, batch 128); `faiss`
is the former search. The floors are the products with the data that the method cannot do without.
"""

import argparse
import json
import time
from collections.abc import Callable

import faiss
import numpy as np
import torch
from machine import machine
from sklearn.linear_model import LogisticRegressionCV
from torch.nn import functional as F

from clray.evaluate import logistic
from clray.evaluate.labelled import Labelled
from clray.evaluate.linear_probe import LinearProbe
from clray.evaluate.nearest_neighbors import nearest, nearest_neighbor_measures

CPU = torch.device("cpu")
NUM_CLASSES, NUM_NEIGHBORS = 10, 20


def representations(num_samples: int, num_test: int, dim: int) -> list[Labelled]:
    """Training, validation and test samples: overlapping classes, mixed and rectified as by an encoder."""
    rng = np.random.default_rng(0)
    sizes = (num_samples, num_test // 2, num_test)
    labels = rng.integers(0, NUM_CLASSES, sum(sizes))
    h = np.empty((len(labels), dim), np.float32)
    centers, mix = rng.normal(size=(NUM_CLASSES, dim)), rng.normal(size=(dim, dim)) / np.sqrt(dim)
    for rows in np.array_split(np.arange(len(labels)), 20):
        signal = 0.2 * centers[labels[rows]] + rng.normal(size=(len(rows), dim))
        h[rows] = np.maximum((signal * np.geomspace(1, 0.05, dim)) @ mix, 0)
    ends = np.cumsum(sizes)
    return [Labelled(h[a:b], labels[a:b]) for a, b in zip((0, *ends[:-1]), ends, strict=True)]


def sgd_probe(train: Labelled, test: Labelled) -> float:
    """The former probe."""
    x = torch.from_numpy(train.h)
    mean, deviation = x.mean(0), x.std(0, correction=0).clamp(min=1e-6)
    x, y = (x - mean) / deviation, torch.from_numpy(train.labels)
    classifier = torch.nn.Linear(x.shape[1], NUM_CLASSES)
    torch.nn.init.zeros_(classifier.weight)
    torch.nn.init.zeros_(classifier.bias)
    optimizer = torch.optim.SGD(classifier.parameters(), lr=0.3, momentum=0.9)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 100 * -(-len(x) // 128))
    for _ in range(100):
        for batch in torch.randperm(len(x)).split(128):
            optimizer.zero_grad()
            F.cross_entropy(classifier(x[batch]), y[batch]).backward()
            optimizer.step()
            schedule.step()
    with torch.no_grad():
        predicted = classifier((torch.from_numpy(test.h) - mean) / deviation).argmax(1).numpy()
    return float(np.mean(predicted == test.labels))


def scikit_learn(train: Labelled, test: Labelled) -> float:
    mean, deviation = train.h.mean(0), train.h.std(0) + 1e-9
    model = LogisticRegressionCV(max_iter=1000, l1_ratios=(0,), use_legacy_attributes=False)
    return float(model.fit((train.h - mean) / deviation, train.labels).score((test.h - mean) / deviation, test.labels))


def report(name: str, compute: Callable[[], float | None]) -> None:
    start = time.perf_counter()
    accuracy = compute()
    seconds = time.perf_counter() - start
    print(json.dumps({"name": name, "seconds": round(seconds, 2), "accuracy": accuracy}), flush=True)


def probe_floor(train: Labelled) -> None:
    """The products with the data that the solver made: forward and back, for the lanes that were under way."""
    lanes: list[int] = []
    counted = logistic._loss_and_gradient

    def count(x: torch.Tensor, targets: logistic.Targets, weights: torch.Tensor, **options: bool) -> object:
        lanes.append(weights.shape[0] * weights.shape[1])
        return counted(x, targets, weights, **options)

    logistic._loss_and_gradient = count  # type: ignore[assignment]
    solve_probe(train, train, train)
    logistic._loss_and_gradient = counted
    x = torch.from_numpy(train.h)

    def products() -> None:
        for number in lanes:
            x.T @ (x @ torch.zeros(x.shape[1], number * NUM_CLASSES))

    report(f"floor of the probe: {len(lanes)} products forward and back", products)


def solve_probe(train: Labelled, validation: Labelled, test: Labelled) -> float:
    probe = LinearProbe(train, validation, num_classes=NUM_CLASSES, seed=0, device=CPU)
    return probe.measure({"test": test})["test"]["linear_accuracy"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=50_000)
    parser.add_argument("--test", type=int, default=10_000)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--scikit-learn", action="store_true", help="with LogisticRegressionCV, minutes for large ones")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    faiss.omp_set_num_threads(arguments.threads)
    print(machine(), flush=True)
    train, validation, test = representations(arguments.samples, arguments.test, arguments.dim)
    report("probe", lambda: solve_probe(train, validation, test))
    report("sgd probe", lambda: sgd_probe(train, test))
    if arguments.scikit_learn:
        report("scikit-learn", lambda: scikit_learn(train, test))
    probe_floor(train)
    report(
        "nearest neighbours",
        lambda: nearest_neighbor_measures(
            train, test, num_classes=NUM_CLASSES, num_neighbors=NUM_NEIGHBORS, device=CPU
        )["knn_accuracy"],
    )
    base, query = (F.normalize(torch.from_numpy(part.h)) for part in (train, test))
    found: list[np.ndarray] = []

    def search() -> None:
        found.append(faiss.knn(query.numpy(), base.numpy(), NUM_NEIGHBORS, metric=faiss.METRIC_INNER_PRODUCT)[1])

    report("faiss", search)
    report("floor of the neighbours: the product alone", lambda: [query[i : i + 1024] @ base.T for i in
                                                                  range(0, len(query), 1024)] and None)  # fmt: skip
    rows = torch.cat([nearest(part, base, NUM_NEIGHBORS)[1] for part in query.split(1024)])
    print(json.dumps({"name": "same neighbours as faiss", "share": float((rows.numpy() == found[0]).mean())}))


if __name__ == "__main__":
    main()
