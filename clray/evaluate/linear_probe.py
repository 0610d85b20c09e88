"""Linear probe: accuracy of a linear classifier trained on frozen representations."""

import numpy as np
import torch
from jaxtyping import Float, Int
from torch.nn import functional as F

from clray.config.sections import EvaluateConfig


def linear_probe_accuracy(
    train_h: Float[np.ndarray, "n dim"],
    train_labels: Int[np.ndarray, " n"],
    test_h: Float[np.ndarray, "m dim"],
    test_labels: Int[np.ndarray, " m"],
    *,
    num_classes: int,
    config: EvaluateConfig,
    seed: int,
    device: torch.device,
) -> float:
    """Share of the test samples that a linear classifier of the frozen h gets right.

    Trained by SGD (momentum 0.9, cosine from `probe_learning_rate` to 0) on representations standardised with the
    training mean and deviation, on `labels_per_class` samples of each class where that is set. The authors train the
    same classifier for 100 epochs at learning rate 0.3 and batch 128, without standardising.
    """
    generator = torch.Generator().manual_seed(seed)
    chosen = choose_labelled(train_labels, config.labels_per_class, seed)
    x = torch.from_numpy(train_h[chosen]).to(device)
    mean, deviation = x.mean(0), x.std(0, correction=0).clamp(min=1e-6)
    x = (x - mean) / deviation
    y = torch.from_numpy(train_labels[chosen].astype(np.int64)).to(device)

    classifier = torch.nn.Linear(x.shape[1], num_classes).to(device)
    torch.nn.init.zeros_(classifier.weight)
    torch.nn.init.zeros_(classifier.bias)
    optimizer = torch.optim.SGD(classifier.parameters(), lr=config.probe_learning_rate, momentum=0.9)
    batches_per_epoch = -(-len(x) // config.probe_batch_size)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, config.probe_epochs * batches_per_epoch)
    for _ in range(config.probe_epochs):
        order = torch.randperm(len(x), generator=generator).to(device)
        for batch in order.split(config.probe_batch_size):
            optimizer.zero_grad()
            F.cross_entropy(classifier(x[batch]), y[batch]).backward()
            optimizer.step()
            schedule.step()

    with torch.no_grad():
        test_x = (torch.from_numpy(test_h).to(device) - mean) / deviation
        predicted = classifier(test_x).argmax(1).cpu().numpy()
    return float(np.mean(predicted == test_labels))


def choose_labelled(labels: Int[np.ndarray, " n"], labels_per_class: int | None, seed: int) -> Int[np.ndarray, " m"]:
    """Rows of up to `labels_per_class` random samples of each class, in row order; all rows for None."""
    if labels_per_class is None:
        return np.arange(len(labels))
    order = np.random.default_rng(seed).permutation(len(labels))
    chosen = [order[labels[order] == label][:labels_per_class] for label in np.unique(labels)]
    return np.sort(np.concatenate(chosen))
