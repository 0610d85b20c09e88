"""k-means on its own: as a scikit-learn estimator, and at several granularities with statistics in bits."""

from sklearn.datasets import load_digits

import clray
from clray.clusters.statistics import cluster_statistics

digits = load_digits()
vectors = digits.data.astype("float32")

km = clray.KMeans(n_clusters=10, random_state=0).fit(vectors)
print("inertia", round(km.inertia_), "after", km.n_iter_, "iterations; the first ids:", km.predict(vectors[:5]))

for num_clusters in (5, 10, 50):
    result = clray.cluster(vectors, num_clusters, use_ray=False)  # with Ray: shards over cores and machines
    bits = cluster_statistics(result.ids, digits.target)
    print(
        f"K = {num_clusters:3}: I(Z;T) {bits.mutual_information_bits:.2f} bits, "
        f"H(Z|T) {bits.conditional_entropy_bits:.2f} bits"
    )
