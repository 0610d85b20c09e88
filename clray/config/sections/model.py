"""What is trained: the encoder, its projection head and the objective."""

import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from clray.config.sections.values import (
    Flag,
    Momentum,
    NonNegativeFloat,
    NonNegativeInt,
    Number,
    PositiveFloat,
    PositiveInt,
    Section,
    Share,
    Text,
    TwoOrMore,
    or_own,
)

OF_VECTORS = ("mlp", "none")
"""Encoders of embeddings."""
ENCODERS = ("small_cnn", "resnet18", "resnet34", "resnet50", "vit_s16", *OF_VECTORS)
TIMM = "timm/"
"""Starts the name of an encoder that timm builds."""
TIMM_MODEL = r"^timm/[A-Za-z0-9_.-]+$"
PRETRAINED = "pretrained"


class EncoderConfig(Section):
    """The backbone whose output h is the representation, and the weights that it starts from."""

    name: Annotated[Text, or_own(*ENCODERS, also=TIMM_MODEL)] = "small_cnn"
    """`small_cnn`, `resnet18`, `resnet34`, `resnet50`, `vit_s16`, any model of timm (`timm/convnext_tiny`), or with
    `allow_user_modules` the user's own `module:function`, which is called with the number of channels and returns a
    module from images to h, and the dimension of h. For `data.name: embeddings` it is `mlp`, a perceptron, or `none`:
    the head alone is trained then, and its output is h."""
    weights: Text | None = None
    """What to start from; random weights by default. `pretrained` fetches those of timm from its hub. Otherwise a
    file (`.safetensors`, or `.pt`, `.pth`, `.bin` with a `state_dict`), a folder as on the Hugging Face hub, an
    encoder that `clray export` wrote, or the folder or checkpoint of a run."""
    width: PositiveInt = 32
    """Channels of the first layer of `small_cnn`."""
    hidden_dim: PositiveInt = 512
    """Of `mlp`: units of its hidden layer, and dimension of h."""
    small_image_stem: Flag = True
    """For ResNets: a 3x3 first convolution without pooling, as usual for images up to 64 pixels."""
    image_size: Annotated[int, Field(ge=0, le=16384), Number] | None = None
    """Height and width that images are scaled to before they enter `timm/` models and encoders with `weights`; 0 leaves
    them as they are. By default `data.image_size`, or else the size of the weights. `vit_s16` without weights takes
    images of this size alone, by default 224."""
    mean: tuple[NonNegativeFloat, ...] | None = None
    """Subtracted from pixels in 0..1, one number or one for each of 3 channels; by default that of the weights."""
    std: tuple[PositiveFloat, ...] | None = None
    """Divides the pixels after `mean` is subtracted; by default that of the weights."""
    pixel_statistics: Literal["weights", "own"] = "weights"
    """What `mean` and `std` are where they are not given: those that the weights were trained with (none for random
    ones), or the training images' `own`, channel by channel over up to 2,000 of them. Checkpoints keep the numbers."""
    frozen_epochs: NonNegativeInt = 0
    """First epochs that train the heads alone; the encoder, its batch-norm statistics included, stays as it is."""
    keep_norm_statistics: Flag = False
    """Batch-norm layers of the encoder use the means and variances of its weights all through training, in place of
    those of each batch, which a few epochs of small, strongly augmented views spoil. Needs `weights`."""
    learning_rate_factor: PositiveFloat = 1.0
    """The encoder's learning rate, as a multiple of `train.learning_rate`."""
    layer_decay: Annotated[float, Field(gt=0, le=1), Number] = 1.0
    """The learning rate falls by this factor from each layer of the encoder to the one below it. A layer is a block of
    a vision transformer, or a stage of a convolutional network."""

    @field_validator("weights")
    @classmethod
    def _from_here(cls, value: str | None) -> str | None:
        """A relative path starts where the command runs, wherever its workers do."""
        return value if value in (None, PRETRAINED) else str(Path(str(value)).absolute())

    @model_validator(mode="after")
    def _is_known(self) -> "EncoderConfig":
        if self.name.startswith(TIMM):
            if not re.match(TIMM_MODEL, self.name):
                raise ValueError(f"name must be timm/ and the name of a model, as timm/resnet50; got {self.name!r}")
        elif self.name not in ENCODERS and ":" not in self.name:
            known = ", ".join(ENCODERS)
            raise ValueError(
                f"name must be one of {known}, timm/MODEL, or module:function of your own; got {self.name!r}"
            )
        if self.name == "none" and (self.weights is not None or self.frozen_epochs):
            raise ValueError("name=none trains the head alone; leave out encoder.weights and encoder.frozen_epochs")
        if self.keep_norm_statistics and self.weights is None:
            raise ValueError(
                "keep_norm_statistics keeps those of the weights, and there are none; set encoder.weights, or leave "
                "encoder.keep_norm_statistics out"
            )
        if self.weights == PRETRAINED and not self.name.startswith(TIMM):
            raise ValueError(
                f"weights=pretrained are those of timm; set encoder.name=timm/MODEL, such as timm/resnet18 "
                f"(it is {self.name}), or name a file of weights"
            )
        return self

    @model_validator(mode="after")
    def _has_right_sizes(self) -> "EncoderConfig":
        size = self.image_size
        if self.name == "vit_s16" and size is not None and (size < 16 or size % 16):
            raise ValueError(f"image_size must be a multiple of 16, the size of a patch of vit_s16; got {size}")
        if self.pixel_statistics == "own" and (self.mean is not None or self.name in OF_VECTORS):
            other = f"name={self.name} takes vectors" if self.mean is None else "mean and std are given"
            raise ValueError(f"pixel_statistics=own are of images, and {other}; leave encoder.pixel_statistics out")
        if (self.mean is None) != (self.std is None):
            raise ValueError("mean and std belong together; set both or neither")
        for key in ("mean", "std"):
            numbers = getattr(self, key)
            if numbers is not None and len(numbers) not in (1, 3):
                raise ValueError(f"{key} must hold one number, or one for each of 3 channels; got {list(numbers)}")
        return self


class HeadConfig(Section):
    """The projection head: a perceptron from h to the embedding z."""

    num_layers: Annotated[int, Field(ge=1, le=16), Number] = 2
    """Its linear layers; 1 has no hidden layer."""
    hidden_dim: PositiveInt = 128
    """Units of each hidden layer."""
    norm: Literal["none", "batch"] = "none"
    """`batch`: batch normalisation after each hidden layer."""
    embedding_dim: TwoOrMore = 64
    """Dimension of z."""


OBJECTIVES = ("cl-infonce", "infonce", "supcon", "ccl-k", "pcl", "swav", "cluster-prediction", "supervised")


class ObjectiveConfig(Section):
    """What is minimised."""

    name: Text = "cl-infonce"
    """`cl-infonce`, `infonce`, `supcon`, `ccl-k`, `pcl`, `swav`, `cluster-prediction`, `supervised`, or with
    `allow_user_modules` the user's own `module:Class`, a subclass of `clray.Objective`. `infonce`, `supcon` and
    `supervised` are settings of others; they, `ccl-k` and `swav` choose `clusters.source`."""
    form: Literal["multi-positive", "pair-sampled"] = "multi-positive"
    """Of `cl-infonce`: all views of a batch with the anchor's cluster, as the authors' code trains, or pairs drawn from
    one cluster, as in the paper's equation."""
    dual_head: Flag = False
    """A second projection head under InfoNCE, whose loss is added (the authors' ImageNet-100 variant). An objective of
    the user's is given its embeddings as `batch.second`."""
    dual_head_clusters: Literal["cluster-head", "instance-head"] = "cluster-head"
    """Of `dual_head`, the head whose embedding k-means clusters. `instance-head` is the authors' way: the clusters are
    those of the head under InfoNCE, and the other head contrasts each view with the other view alone."""
    negatives: Literal["batch", "queue"] = "batch"
    """`queue`: keys of a momentum encoder from this batch and those before it (MoCo). `pcl` always uses it."""
    queue_size: PositiveInt = 4096
    """Keys kept, over all workers."""
    key_momentum: Momentum = 0.99
    """Of the momentum encoder; the MoCo authors take 0.999 for runs of several hundred thousand steps."""
    cluster_weight: Share = 1.0
    """Weight of the positives from other images, for `cl-infonce` in its `multi-positive` form; that of the anchor's
    own views is 1. With 1 all positives count alike, with 0 the loss is InfoNCE whatever the clusters. `infonce` and
    `supcon` take 1."""
    kernel: Literal["cosine", "rbf", "laplacian", "linear", "polynomial"] = "cosine"
    """Of `ccl-k`: how alike two images are by their values. `rbf` and `laplacian` look at the distance, `polynomial` is
    the third power of the inner product."""
    bandwidth: PositiveFloat = 1.0
    """Of `ccl-k` with `rbf` and `laplacian`: in units of the median distance between the values of two images."""
    ridge: Annotated[float, Field(ge=1e-6, allow_inf_nan=False), Number] = 0.01
    """Of `ccl-k`: lambda, the regularisation. Where values differ, 0 tends to InfoNCE, and large numbers to weights in
    proportion to the kernel."""
    kernel_form: Literal["log-of-mean", "mean-of-logs"] = "log-of-mean"
    """Of `ccl-k`: where the weighted mean over positives is taken, inside the logarithm as in the paper, or outside as
    in Cl-InfoNCE."""
    num_prototypes: TwoOrMore = 300
    """Of `swav`: trained centres that each batch is divided among evenly; best fewer than a batch has images."""
    sinkhorn_epsilon: PositiveFloat = 0.05
    """Of `swav`: the smaller, the harder is the division."""
    sinkhorn_iterations: PositiveInt = 3
    """Of `swav`: the more, the more even is the division."""
    temperature: PositiveFloat = 0.2
    """Divides the cosine similarities."""
    base_temperature: PositiveFloat | None = None
    """With a number b the loss is multiplied by temperature/b (0.07 in the authors' code). Without it the gradient
    grows as 1/temperature, so that under SGD a sweep over temperature also sweeps the learning rate."""

    @model_validator(mode="after")
    def _is_known(self) -> "ObjectiveConfig":
        if self.name not in OBJECTIVES and not self.is_own:
            known = ", ".join(OBJECTIVES)
            raise ValueError(f"name must be one of {known}, or module:Class of your own; got {self.name!r}")
        if self.dual_head_clusters == "instance-head" and not self.dual_head:
            raise ValueError(
                "objective.dual_head_clusters=instance-head needs a second head; set objective.dual_head=true"
            )
        if self.dual_head_clusters == "instance-head" and self.is_own:
            raise ValueError(
                f"objective.dual_head_clusters=instance-head belongs to cl-infonce; objective.name={self.name} decides "
                "itself what its heads contrast"
            )
        return self

    @property
    def is_own(self) -> bool:
        """Whether the user defines it."""
        return ":" in self.name

    @property
    def is_classification(self) -> bool:
        return self.name in ("cluster-prediction", "supervised")


OBJECTIVE_SOURCES = {
    "infonce": "instance",
    "swav": "instance",
    "supcon": "labels",
    "supervised": "labels",
    "ccl-k": "values",
}
"""The cluster source that an objective stands for; `swav` finds its clusters itself."""
