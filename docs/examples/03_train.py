"""One run from Python: train with k-means clusters, read its metrics, embed images with its encoder."""

import tempfile

import numpy as np

import clray

with tempfile.TemporaryDirectory() as output:
    run = clray.train(
        {
            "data": {"name": "digits", "max_train_images": 600, "max_test_images": 200},
            "augmentation": {"name": "digits"},
            "clusters": {"source": "kmeans", "num_clusters": 30},
            "recluster": {"warmup_epochs": 1},
            "encoder": {"name": "small_cnn", "width": 16},
            "train": {"num_epochs": 3, "global_batch_size": 100},
        },
        {"objective.temperature": 0.1, "output": output},
        debug=True,  # in this process, without Ray: breakpoint() works in loss, trainer and k-means
    )
    for epoch in run.history:
        bits = epoch["clusters/mutual_information_bits"]
        print(f"epoch {epoch['epoch']}: loss {epoch['train/loss']:.3f}, I(Z;T) {bits:.2f} bits")
    print(f"linear probe: {100 * run.metrics['eval/linear_accuracy']:.1f} %")

    encoder = clray.load_encoder(run)
    pixels = np.zeros((4, 1, 8, 8), np.uint8)
    h = clray.embed(encoder, pixels)
    print("embeddings:", h.shape, h.dtype)
