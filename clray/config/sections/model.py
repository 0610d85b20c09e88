"""What is trained: the encoder, its projection head and the objective."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from clray.config.sections.values import (
    Flag,
    Momentum,
    Number,
    PositiveFloat,
    PositiveInt,
    Section,
    Text,
    TwoOrMore,
    or_own,
)

OF_VECTORS = ("mlp", "none")
"""Encoders of embeddings."""
ENCODERS = ("small_cnn", "resnet18", "resnet34", "resnet50", "vit_s16", *OF_VECTORS)


class EncoderConfig(Section):
    """The backbone whose output h is the representation."""

    name: Annotated[Text, or_own(*ENCODERS)] = "small_cnn"
    """`small_cnn`, `resnet18`, `resnet34`, `resnet50`, `vit_s16`, or with `allow_user_modules` the user's own
    `module:function`, which is called with the number of channels and returns a module from images to h, and the
    dimension of h. For `data.name: embeddings` it is `mlp`, a perceptron, or `none`: the head alone is trained then,
    and its output is h."""
    width: PositiveInt = 32
    """Channels of the first layer of `small_cnn`."""
    hidden_dim: PositiveInt = 512
    """Of `mlp`: units of its hidden layer, and dimension of h."""
    small_image_stem: Flag = True
    """For ResNets: a 3x3 first convolution without pooling, as usual for images up to 64 pixels."""
    image_size: Annotated[int, Field(ge=16, le=16384, multiple_of=16), Number] = 224
    """For `vit_s16`, which has a position for each patch of 16x16 pixels: height and width of the images."""

    @model_validator(mode="after")
    def _is_known(self) -> "EncoderConfig":
        if self.name not in ENCODERS and ":" not in self.name:
            known = ", ".join(ENCODERS)
            raise ValueError(f"name must be one of {known}, or module:function of your own; got {self.name!r}")
        return self


class HeadConfig(Section):
    """The projection head: a two-layer perceptron from h to the embedding z."""

    hidden_dim: PositiveInt = 128
    """Units of its hidden layer."""
    embedding_dim: TwoOrMore = 64
    """Dimension of z."""


OBJECTIVES = ("cl-infonce", "infonce", "supcon", "pcl", "cluster-prediction", "supervised")


class ObjectiveConfig(Section):
    """What is minimised."""

    name: Text = "cl-infonce"
    """`cl-infonce`, `infonce`, `supcon`, `pcl`, `cluster-prediction`, `supervised`, or with `allow_user_modules` the
    user's own `module:Class`, a subclass of `clray.Objective`. `infonce`, `supcon` and `supervised` are settings of
    others and choose `clusters.source`."""
    form: Literal["multi-positive", "pair-sampled"] = "multi-positive"
    """Of `cl-infonce`: all views of a batch with the anchor's cluster, as the authors' code trains, or pairs drawn from
    one cluster, as in the paper's equation."""
    dual_head: Flag = False
    """A second projection head under InfoNCE, whose loss is added (the authors' ImageNet-100 variant). An objective of
    the user's is given its embeddings as `batch.second`."""
    negatives: Literal["batch", "queue"] = "batch"
    """`queue`: keys of a momentum encoder from this batch and those before it (MoCo). `pcl` always uses it."""
    queue_size: PositiveInt = 4096
    """Keys kept, over all workers."""
    key_momentum: Momentum = 0.99
    """Of the momentum encoder; the MoCo authors take 0.999 for runs of several hundred thousand steps."""
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
        return self

    @property
    def is_own(self) -> bool:
        """Whether the user defines it."""
        return ":" in self.name

    @property
    def is_classification(self) -> bool:
        return self.name in ("cluster-prediction", "supervised")


OBJECTIVE_SOURCES = {"infonce": "instance", "supcon": "labels", "supervised": "labels"}
"""The cluster source that an objective stands for."""
