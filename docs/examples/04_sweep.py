"""A sweep over granularity and temperature from Python; its trials as a pandas DataFrame."""

import tempfile

import clray

config = {
    "data": {"name": "digits", "max_train_images": 300, "max_test_images": 100},
    "augmentation": {"name": "digits"},
    "clusters": {"source": "kmeans"},
    "recluster": {"warmup_epochs": 1},
    "kmeans": {"cpus_per_shard": 0.1},
    "encoder": {"name": "small_cnn", "width": 8},
    "train": {"num_epochs": 2, "global_batch_size": 100, "cpus_per_worker": 0.5},
    "tracking": {"pictures": "none", "models": "none"},
    "search_space": {
        "clusters.num_clusters": {"grid_search": [10, 30]},
        "objective.temperature": {"grid_search": [0.1, 0.5]},
    },
}

if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as output:
        result = clray.sweep(config, {"output": output}, name="example")
        columns = ["clusters.num_clusters", "objective.temperature", "eval/linear_accuracy"]
        print(result.table[columns].to_string(index=False))
        print("best trial:", result.best)
