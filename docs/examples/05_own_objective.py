"""An objective of one's own: a class with one method, given to `clray.train` beside the built-in one."""

import tempfile

import torch
from torch import Tensor

import clray


class AlignAndSpread(clray.Objective):
    """Images of a cluster together, all images apart (alignment and uniformity, Wang and Isola, arXiv 2005.10242)."""

    def loss(self, batch: clray.EmbeddedBatch) -> Tensor:
        z = batch.z.flatten(0, 1)  # [views * batch, dim], unit length
        ids = batch.cluster_ids[0].repeat(len(batch.z))  # of the first granularity, for each view
        distances = 2 - 2 * z @ z.T  # squared
        others = ~torch.eye(len(z), dtype=torch.bool, device=z.device)
        same = (ids[:, None] == ids) & others
        alignment = distances[same].mean()
        uniformity = (-distances[others] / self.temperature).exp().mean().log()
        return alignment + uniformity


config = {
    "data": {"name": "digits", "max_train_images": 600, "max_test_images": 200},
    "augmentation": {"name": "digits"},
    "clusters": {"source": "kmeans", "num_clusters": 30},
    "encoder": {"name": "small_cnn", "width": 16},
    "train": {"num_epochs": 3, "global_batch_size": 100},
}

# In a YAML file, with `allow_user_modules: true`:  objective: {name: my_losses:AlignAndSpread}
for objective in ("cl-infonce", AlignAndSpread):
    with tempfile.TemporaryDirectory() as output:
        run = clray.train(config, {"objective.name": objective, "output": output}, debug=True)
    losses = ", ".join(f"{epoch['train/loss']:.3f}" for epoch in run.history)
    print(f"{run.config.objective.name}: loss {losses}, linear probe {100 * run.metrics['eval/linear_accuracy']:.1f} %")
