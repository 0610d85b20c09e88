#!/usr/bin/env python3
"""Breaks the code on purpose, one line at a time, and tells which breaks the tests do not notice.

    python scripts/mutate.py                 all mutants, one after the other
    python scripts/mutate.py bank outbox     those whose name holds one of these words

Each mutant is a line of the code and what it is replaced by, with the tests that have to fail then. The tree is copied
to a temporary folder, so that yours is left alone. Exit code 1 where a mutant survives or its tests fail without it.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TRAINER, WORKERS = "tests/training/test_trainer.py", "tests/training/workers"
LEARNS = f"{TRAINER}::test_training_lowers_the_loss_and_raises_the_accuracy"
REPORTS = f"{TRAINER}::test_a_run_learns_and_reports_every_epoch"
RESUMES = f"{TRAINER}::test_stopped_and_resumed_equals_uninterrupted[2]"
IN_MID_EPOCH = f"{TRAINER}::test_mid_epoch_checkpoints_lose_no_step"


@dataclass(frozen=True)
class Mutant:
    """One break.

    Attributes:
        name: what no longer happens.
        file: below the root.
        text: stands in the file exactly once.
        replacement: what stands there instead.
        tests: arguments for pytest, of which at least one test must fail.
    """

    name: str
    file: str
    text: str
    replacement: str
    tests: tuple[str, ...]


MUTANTS = (
    Mutant(
        "trainer: the optimizer never steps",
        "clray/training/epoch.py",
        "        state.scaler.step(state.optimizer)\n",
        "",
        (LEARNS,),
    ),
    Mutant(
        "trainer: gradients are never zeroed",
        "clray/training/epoch.py",
        "        state.optimizer.zero_grad(set_to_none=True)\n",
        "",
        (f"{TRAINER}::test_accumulated_batches_make_one_step_by_their_mean_however_many_are_left",),
    ),
    Mutant(
        "trainer: an incomplete group is averaged over a whole one",
        "clray/training/epoch.py",
        "/ len(group)",
        "/ accumulate_batches",
        (f"{TRAINER}::test_accumulated_batches_make_one_step_by_their_mean_however_many_are_left",),
    ),
    Mutant(
        "trainer: the learning rate stays where it began",
        "clray/training/epoch.py",
        "        state.schedule.step()\n",
        "",
        (f"{TRAINER}::test_the_learning_rate_has_fallen_to_zero_at_the_end",),
    ),
    Mutant(
        "trainer: clusters are never taken over",
        "clray/training/recluster.py",
        "            self.request = self._new_request()\n",
        "            return False\n",
        (REPORTS,),
    ),
    Mutant(
        "schedule: no warm-up",
        "clray/training/optim.py",
        "return (step + 1) / warmup",
        "return 1.0",
        ("tests/training/test_optim.py",),
    ),
    Mutant(
        "optimizer: moments of redrawn parameters stay",
        "clray/training/optim.py",
        "                value.zero_()\n",
        "                pass\n",
        ("tests/training/test_optim.py",),
    ),
    Mutant(
        "LARS: every weight moves by its plain gradient",
        "clray/training/lars.py",
        "trust * sizes / norms",
        "torch.ones_like(sizes)",
        ("tests/training/test_lars.py",),
    ),
    Mutant(
        "objective: the second head is left out of the loss",
        "clray/training/objectives/batch_contrast.py",
        "clusters.loss + instance.loss",
        "clusters.loss + 0 * instance.loss",
        ("tests/training/test_objectives.py",),
    ),
    Mutant(
        "objective: the momentum encoder takes the query's weights at once",
        "clray/training/objectives/queue_contrast.py",
        "1 - self.momentum",
        "1",
        ("tests/training/test_objectives.py",),
    ),
    Mutant(
        "objective: the queue stays empty",
        "clray/training/objectives/queue_contrast.py",
        "        self.queue.push(keys, key_indices)\n",
        "        self.queue.push(keys[:0], key_indices[:0])\n",
        ("tests/training/test_objectives.py",),
    ),
    Mutant(
        "objective: cluster ids are ignored by the classifier",
        "clray/training/objectives/classification.py",
        "cluster_ids[0].long().repeat(len(batch.second))",
        "cluster_ids[0].long().repeat(len(batch.second)) * 0",
        ("tests/training/test_objectives.py",),
    ),
    Mutant(
        "objective: base_temperature does nothing",
        "clray/objective/contrastive.py",
        "value.loss * (temperature / base_temperature)",
        "value.loss",
        ("tests/objective/test_contrastive.py",),
    ),
    Mutant(
        "objective: an anchor is its own positive",
        "clray/objective/contrastive.py",
        "        num_positives = num_positives - 1\n",
        "",
        ("tests/objective/test_contrastive.py",),
    ),
    Mutant(
        "evaluation: accuracy on the training images",
        "clray/training/accuracy.py",
        "probe.measure(measured, ",
        "probe.measure(dict.fromkeys(measured, train), ",
        ("tests/training/test_accuracy.py",),
    ),
    Mutant(
        "evaluation: the probe never steps",
        "clray/evaluate/logistic.py",
        "self.weights + size[:, :, None, None] * direction",
        "self.weights + 0 * direction",
        ("tests/evaluate/test_logistic.py",),
    ),
    Mutant(
        "evaluation: what has converged goes on with the others",
        "clray/evaluate/logistic.py",
        " * ~self.is_done.view(-1, 1)",
        "",
        ("tests/evaluate/test_logistic.py",),
    ),
    Mutant(
        "evaluation: the probe is tried on unscaled representations",
        "clray/evaluate/linear_probe.py",
        "        x[:, :-1].sub_(self.mean).mul_(self.scale)\n",
        "",
        ("tests/evaluate/test_linear_probe.py",),
    ),
    Mutant(
        "evaluation: neighbours have one vote each",
        "clray/evaluate/nearest_neighbors.py",
        "(similarity - similarity[:, :1]) / temperature",
        "0 * similarity",
        ("tests/evaluate/test_nearest_neighbors.py",),
    ),
    Mutant(
        "k-means: centroids stay where they began",
        "clray/kmeans/lloyd.py",
        "    descent.centroids = update_centroids(before, sums, generator, spherical=options.spherical)\n",
        "",
        ("tests/kmeans/test_lloyd.py",),
    ),
    Mutant(
        "k-means: the first of several starts is kept",
        "clray/kmeans/lloyd.py",
        "least = min(each.history[-1] for each in starts)",
        "least = max(each.history[-1] for each in starts)",
        ("tests/kmeans/test_lloyd.py",),
    ),
    Mutant(
        "k-means: an empty cluster stays empty",
        "clray/kmeans/empty.py",
        "means[number] = means[donor] * apart",
        "means[number] = means[number]",
        ("tests/kmeans/test_empty.py", "tests/kmeans/test_lloyd.py"),
    ),
    Mutant(
        "k-means shard: weights are not counted",
        "clray/kmeans/shards/faiss_shard.py",
        "counts[i] += np.bincount(ids, weights, minlength=len(counts[i]))",
        "counts[i] += np.bincount(ids, minlength=len(counts[i]))",
        ("tests/kmeans/shards/test_faiss_shard.py", "tests/kmeans/test_lloyd.py", "tests/kmeans/test_balance.py"),
    ),
    Mutant(
        "statistics: H(Z|T) is H(Z)",
        "clray/clusters/statistics.py",
        "        conditional_entropy_bits=h_z - mutual,\n",
        "        conditional_entropy_bits=h_z,\n",
        ("tests/clusters/test_statistics.py",),
    ),
    Mutant(
        "outbox: an entry that could not be written counts as sent",
        "clray/track/outbox.py",
        "                    self._send(batch)\n",
        "                    pass\n",
        ("tests/track/test_outbox.py",),
    ),
    Mutant(
        "outbox: how far it is is never kept",
        "clray/track/outbox.py",
        "                write_num_sent(self.sent_path, num_sent)\n",
        "",
        ("tests/track/test_outbox.py",),
    ),
    Mutant(
        "sampling: a partner is drawn from all images",
        "clray/data/sampling.py",
        "members[starts[own] + (generator.random(len(indices)) * sizes[own]).astype(np.int64)]",
        "members[(generator.random(len(indices)) * len(members)).astype(np.int64)]",
        ("tests/data/test_sampling.py",),
    ),
    Mutant(
        "sampling: members of a cluster are scattered",
        "clray/data/sampling.py",
        'np.argsort(rank_of_run[run], kind="stable")',
        "generator.permutation(len(run))",
        ("tests/data/test_sampling.py",),
    ),
    Mutant(
        "bank: momentum keeps nothing",
        "clray/training/bank.py",
        "weight * old + (1 - weight) * z",
        "z",
        ("tests/training/test_bank.py",),
    ),
    Mutant(
        "checkpoint: the optimizer's moments are lost",
        "clray/training/state.py",
        "        self.optimizer.load_state_dict(optimizer)\n",
        "",
        (RESUMES,),
    ),
    Mutant(
        "checkpoint: the bank is lost",
        "clray/training/state.py",
        '            self.bank.load_rows(checkpoint["bank"])\n',
        "            pass\n",
        (IN_MID_EPOCH,),
    ),
    Mutant(
        "checkpoint: the order of the epoch is lost",
        "clray/training/state.py",
        "        self.order_ids = None if order_ids is None else order_ids.numpy().astype(np.int32, copy=False)\n",
        "",
        (IN_MID_EPOCH,),
    ),
    Mutant(
        "views: nothing is ever mirrored",
        "clray/data/augmentation.py",
        "0.0 if self.is_digits else 0.5",
        "0.0",
        ("tests/data/test_augmentation.py",),
    ),
    Mutant(
        "views: contrast pales towards black",
        "clray/data/colours.py",
        "softened + (1 - c) * luma",
        "softened",
        ("tests/data/test_colours.py",),
    ),
    Mutant(
        "seeds: every worker draws the same",
        "clray/seeding.py",
        "zlib.crc32(component.encode()), epoch, rank)",
        "zlib.crc32(component.encode()), epoch)",
        ("tests/test_seeding.py",),
    ),
)


def survivors(mutants: tuple[Mutant, ...]) -> list[str]:
    """What is wrong: the mutants whose tests pass, and the tests that fail without a mutant."""
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder) / "clray"
        ignored = shutil.ignore_patterns(".git", ".venv", "__pycache__", "outputs", ".mypy_cache", ".ruff_cache")
        shutil.copytree(ROOT, tree, ignore=ignored, symlinks=True)
        all_tests = sorted({test for mutant in mutants for test in mutant.tests})
        if not _passes(tree, all_tests):
            return [f"the tests fail without a mutant: pytest {' '.join(all_tests)}"]
        found = []
        for mutant in mutants:
            path = tree / mutant.file
            original = path.read_text(encoding="utf-8")
            path.write_text(original.replace(mutant.text, mutant.replacement), encoding="utf-8")
            survived = _passes(tree, mutant.tests)
            path.write_text(original, encoding="utf-8")
            print(f"{'SURVIVED' if survived else 'killed  '} {mutant.name}", flush=True)
            if survived:
                found.append(f"{mutant.name}: {mutant.file} can be so broken and {' '.join(mutant.tests)} still pass")
        return found


def _passes(tree: Path, tests: tuple[str, ...] | list[str]) -> bool:
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-x",
        "-q",
        "-n",
        "0",
        "-m",
        "not slow",
        "-p",
        "no:cacheprovider",
        *tests,
    ]
    # Python tells a changed file by its size and second, which a mutant may share with the one before.
    environment = {**os.environ, "PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1"}
    result = subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True, check=False)
    # 0: all passed, 1: some failed; anything else means that they did not run.
    if result.returncode not in (0, 1):
        raise RuntimeError(f"{' '.join(command)} did not run:\n{result.stdout}{result.stderr}")
    return result.returncode == 0


def main() -> int:
    words = sys.argv[1:]
    mutants = tuple(m for m in MUTANTS if not words or any(word in m.name for word in words))
    found = survivors(mutants)
    print("\n".join(found) or f"{len(mutants)} mutants, no survivor")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
