"""A callback of one's own: hears of each epoch while a run trains, and of each trial of a sweep."""

import tempfile
from collections.abc import Mapping

import clray


class Watch(clray.Observer):
    """Keeps the loss of each epoch, and says what it hears."""

    def __init__(self) -> None:
        self.losses: list[float] = []

    def epoch(self, metrics: Mapping[str, float]) -> None:
        self.losses.append(metrics["train/loss"])
        print(f"epoch {metrics['epoch']}: loss {metrics['train/loss']:.3f}")

    def note(self, message: str) -> None:
        print("note:", message)


watch = Watch()
with tempfile.TemporaryDirectory() as output:
    clray.train(
        {
            "output": output,
            "data": {"name": "digits", "max_train_images": 300, "max_test_images": 100},
            "augmentation": {"name": "digits"},
            "clusters": {"source": "labels"},
            "encoder": {"name": "small_cnn", "width": 8},
            "train": {"num_epochs": 3, "global_batch_size": 100},
            "tracking": {"pictures": "none", "models": "none"},
        },
        observer=watch,
        debug=True,
    )
print(f"{len(watch.losses)} epochs, the last loss {watch.losses[-1]:.3f}")
