"""Where cluster ids come from, when they are computed anew, and the k-means that computes them."""

from collections import Counter
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator
from pydantic_core import PydanticCustomError

from clray.config.sections.values import (
    Flag,
    Momentum,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    Section,
    Share,
    Text,
    TwoOrMore,
    or_own,
)

KMeansBackend = Literal["auto", "faiss", "torch", "flash-kmeans"]
SOURCES = ("instance", "labels", "attributes", "column", "hierarchy", "synthetic", "values", "clustering", "kmeans")


class ClustersConfig(Section):
    """Where the cluster ids Z come from."""

    source: Annotated[Text, or_own(*SOURCES)] = "kmeans"
    """`instance` (each image its own) is InfoNCE, `labels` is SupCon, the others are Cl-InfoNCE: tuples of
    `attributes`, the values of a `column`, a level of a `hierarchy` of the classes, `synthetic` ones made from the
    labels, a `clustering` saved by `clray cluster`, or `kmeans` of the embeddings while training. `values` are numbers
    of each image in place of clusters, for `objective.name: ccl-k`, which chooses them itself. With
    `allow_user_modules` also the user's own `module:function`, called with the training images' `labels`, `columns` and
    `names`, and the run's `seed`; it returns an integer for each image. `labels`, `synthetic` and `hierarchy` without
    `column` need a label of every training image (a function is given -1 for one that is missing)."""
    num_clusters: TwoOrMore = 10
    """K of k-means, or the granularity of a saved clustering."""
    granularities: tuple[NonNegativeInt, ...] | None = None
    """Several granularities in place of one, whose losses are averaged: values of K for `kmeans` and `clustering`,
    levels for `hierarchy`. Statistics are those of the first."""
    confidence: Share = 1.0
    """Share of the members of each cluster that count as such; the others are their own cluster, as in InfoNCE. With 1
    all count, with 0 none, and the loss is InfoNCE to the bit. For objectives of the `cl-infonce` kind; `infonce`,
    `supcon` and `supervised` take 1."""
    confidence_by: Literal["margin", "views", "random"] = "margin"
    """Which members count: those that lie nearest to their own centroid by `margin`, 1 - (distance to it)/(distance to
    the next), the same for the worse of two random `views` of each image, which costs a pass over the images at each
    clustering, or a share at `random`, drawn anew in every epoch. The first two need `kmeans`."""
    path: Text | None = None
    """Folder of a clustering by `clray cluster`, for `source: clustering`; or a `.npy` or Parquet file of vectors, such
    as the embeddings of another model, for `values`. Row i is training image i."""
    column: Text | None = None
    """The column whose values are the clusters, for `source: column`; the nodes of the tree, for `hierarchy`, which by
    default are the labels; or that of the vectors in a Parquet file, for `values`."""
    value_columns: tuple[Text, ...] | None = None
    """The columns of numbers that `source: values` takes in place of `path`, each brought to mean 0 and variance 1."""
    attribute_columns: tuple[Text, ...] | None = None
    """Candidate columns for `source: attributes`; by default every column but image, path and label, and but those with
    as many values as there are images."""
    attribute_order: tuple[Text, ...] | None = None
    """The attributes in a given order, in place of that of falling entropy among `attribute_columns`."""
    num_attributes: PositiveInt = 3
    """How many attributes, the first of the order, form the clusters for `source: attributes`."""
    tree: Text | None = None
    """Nested YAML mapping, or lines `parent child` as WordNet's is_a, for `source: hierarchy`."""
    level: NonNegativeInt = 1
    """Steps below the root at which the tree is cut, for `source: hierarchy`."""
    num_merged: PositiveInt | None = None
    """Clusters that the classes are merged into, for `source: synthetic`."""
    num_splits: PositiveInt = 1
    """Parts that each cluster is split into at random, for `source: synthetic`."""
    permuted_fraction: Share = 0.0
    """Share of the images among which cluster ids are shuffled, for `source: synthetic`."""

    @field_validator("path", "tree")
    @classmethod
    def _from_here(cls, value: str | None) -> str | None:
        """A relative path starts where the command runs, wherever its workers do."""
        return None if value is None else str(Path(value).absolute())

    @field_validator("attribute_columns", "attribute_order", "value_columns")
    @classmethod
    def _names_each_once(cls, names: tuple[str, ...] | None) -> tuple[str, ...] | None:
        repeated = [name for name, count in Counter(names).items() if count > 1]
        if repeated:
            raise PydanticCustomError(
                "repeated", "must name each attribute once and repeats {names}", {"names": ", ".join(repeated)}
            )
        return names

    @model_validator(mode="after")
    def _has_one_list_of_attributes(self) -> "ClustersConfig":
        if self.attribute_order is None:
            return self
        if self.attribute_columns is not None:
            raise ValueError(
                "clusters.attribute_order names the attributes already; leave out clusters.attribute_columns"
            )
        if not self.attribute_order:
            raise ValueError("clusters.attribute_order is empty; name the attributes, or leave it out")
        # Another source may have them in its place in a sweep.
        if self.source == "attributes" and self.num_attributes > len(self.attribute_order):
            raise ValueError(
                f"clusters.num_attributes must be at most {len(self.attribute_order)}, the names in "
                f"clusters.attribute_order; got {self.num_attributes}"
            )
        return self

    @model_validator(mode="after")
    def _has_what_its_source_needs(self) -> "ClustersConfig":
        if self.source not in SOURCES and ":" not in self.source:
            known = ", ".join(SOURCES)
            raise ValueError(f"source must be one of {known}, or module:function of your own; got {self.source!r}")
        for source, key in (("column", "column"), ("clustering", "path"), ("hierarchy", "tree")):
            if self.source == source and getattr(self, key) is None:
                raise ValueError(f"{key} is required for clusters.source={source}; set clusters.{key}")
        if self.source == "values" and (not self.value_columns) == (self.path is None):
            given = "both are set" if self.value_columns else "neither is set"
            raise ValueError(
                "clusters.source=values takes the numbers of clusters.value_columns or the vectors of clusters.path; "
                f"{given}"
            )
        if 0 < self.confidence < 1 and self.confidence_by != "random" and self.source not in ("kmeans", "instance"):
            raise ValueError(
                f"confidence_by={self.confidence_by} needs distances to centroids, which clusters.source={self.source} "
                "does not have; set clusters.confidence_by=random"
            )
        if self.granularities is not None:
            self._check_granularities(self.granularities)
        return self

    def _check_granularities(self, granularities: tuple[int, ...]) -> None:
        if self.source not in ("kmeans", "clustering", "hierarchy"):
            raise ValueError(
                f"granularities are values of K (kmeans, clustering) or levels (hierarchy), which "
                f"clusters.source={self.source} does not have; leave them out"
            )
        if not granularities or len(set(granularities)) < len(granularities):
            raise ValueError(f"granularities must be one or more different numbers; got {granularities}")
        if self.source != "hierarchy" and min(granularities) < 2:
            raise ValueError(f"granularities are numbers of clusters, at least 2; got {min(granularities)}")

    @property
    def counts(self) -> tuple[int, ...]:
        """K of each granularity of `kmeans` and `clustering`."""
        return self.granularities or (self.num_clusters,)

    @property
    def levels(self) -> tuple[int, ...]:
        """Level of each granularity of `hierarchy`."""
        return self.granularities or (self.level,)


class ReclusterConfig(Section):
    """When k-means clusters are computed anew. Before the first time every image is its own cluster."""

    every_epochs: PositiveInt = 1
    """Epochs from one clustering to the next."""
    every_steps: PositiveInt | None = None
    """In place of `every_epochs`."""
    warmup_epochs: NonNegativeInt = 1
    """Epochs trained with instance clusters before the first clustering."""
    embeddings: Literal["bank", "pass"] = "bank"
    """What is clustered: the embeddings that training computed last for each image, at no further cost, or those of a
    pass over all images without augmentation (the authors' protocol)."""
    bank_momentum: Momentum = 0.5
    """Share of an image's old embedding that the bank keeps when a new one comes: it averages the noise of the views,
    and with it come older weights."""
    mode: Literal["sync", "async"] = "sync"
    """`async` trains on while clusters are computed and takes them over at the first step at which all workers have
    them; the same seed then gives the same result only up to when that is."""


class KMeansConfig(Section):
    """The distributed FAISS k-means: Ray actors that each search one shard of the embeddings."""

    num_shards: PositiveInt = 2
    """Actors that the embeddings are divided among."""
    num_iterations: PositiveInt = 20
    """Lloyd's iterations of a cold start, at most."""
    num_redos: PositiveInt = 1
    """Starts of a cold clustering, of which the best is kept."""
    init: Literal["random", "kmeans++", "afk-mc2", "kmeans-parallel"] = "random"
    """How a cold start chooses its centroids: any vectors; by k-means++ or its approximation on a sample; or by
    k-means||, in six passes over all vectors, which cost as much as some ten iterations."""
    spherical: Flag = False
    """Scale the centroids to unit length after each iteration."""
    tolerance: NonNegativeFloat = 1e-6
    """Relative fall of the inertia at which to stop before `num_iterations`."""
    warm_start: Flag = True
    """Start from the centroids of the previous clustering, so that a cluster keeps its id."""
    num_refresh_iterations: PositiveInt = 10
    """Iterations of a warm start."""
    cpus_per_shard: NonNegativeFloat = 0.1
    """Cores that Ray reserves for a shard."""
    gpus_per_shard: NonNegativeFloat = 0.0
    """GPUs that Ray reserves for a shard; with 0 it searches on the CPU."""
    backend: KMeansBackend = "auto"
    """What searches the vectors. `faiss`, on CPUs or GPUs. `torch`, where they lie in the memory of a GPU or fit there
    (without a GPU on the CPU, slower than FAISS). `flash-kmeans`: as `torch`, with the Triton kernel of that package.
    `auto`: `torch` for vectors that are on a GPU or fit on the shard's, with flash-kmeans where it is installed, exact
    and faster; `faiss` for all others."""
    node_labels: dict[Text, Text] = Field(default={})
    """Ray labels of the nodes that hold the shards, such as `{pool: cpu}` or `{ray.io/accelerator-type: "!H100"}`;
    by default any."""
    timeout_seconds: PositiveFloat = 600.0
    """How long a shard is waited for that does not answer, or that Ray cannot place. One that computes answers. After
    half of it the process of a silent one is replaced."""
