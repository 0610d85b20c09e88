"""The scikit-learn side of `kmeans.py memory`: MiniBatchKMeans.partial_fit over blocks of a file, in its own process.

Imports nothing of clray, so that its memory is scikit-learn's alone. Prints what the process holds before it reads.
"""

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from sklearn.cluster import MiniBatchKMeans

BLOCK_ROWS = 16_384


def blocks(path: Path) -> Iterator[np.ndarray]:
    with path.open("rb") as file:
        np.lib.format.read_magic(file)
        shape, _, dtype = np.lib.format.read_array_header_1_0(file)
        for start in range(0, shape[0], BLOCK_ROWS):
            count = min(BLOCK_ROWS, shape[0] - start)
            yield np.fromfile(file, dtype, count * shape[1]).reshape(count, shape[1])


def main() -> None:
    folder, passes = Path(sys.argv[1]), int(sys.argv[2])
    initial = np.load(folder / "initial.npy")
    status = Path("/proc/self/status").read_text(encoding="ascii")
    print(next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("RssAnon")), flush=True)
    start = time.perf_counter()
    model = MiniBatchKMeans(len(initial), init=initial, n_init=1, compute_labels=False)
    for _ in range(passes):
        for block in blocks(folder / "vectors.npy"):
            model.partial_fit(block)
    inertia = -sum(model.score(block) for block in blocks(folder / "vectors.npy"))
    print(json.dumps({"seconds": time.perf_counter() - start, "inertia": inertia}), flush=True)


if __name__ == "__main__":
    main()
