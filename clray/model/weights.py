"""An encoder from weights that exist: which of them fit, and what their pixels are like."""

import re
import sys
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from pydantic import ValidationError
from torch import Tensor, nn

from clray.config import Config
from clray.config.sections import EncoderConfig
from clray.config.sections.model import PRETRAINED, TIMM
from clray.errors import UserError
from clray.model.pixels import OnPixels, backbone_of
from clray.model.timm_models import build_timm, pixel_settings
from clray.model.weight_files import PixelFacts, find_weights, read_tensors

IMAGENET = PixelFacts((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
LEAST_SHARE = 0.9
"""Weights that fill less of an encoder are of another architecture: those of a ResNet-50 fill half of a ResNet-34."""
MAX_NAMED = 4
COUNTER = "num_batches_tracked"
"""Of a batch norm: no weight, and missing in older files."""


@dataclass(frozen=True)
class Match:
    """What of an encoder came from a file.

    Attributes:
        taken: tensors of the encoder that the file gave.
        new: names of those that stay random.
        left: names of what the file holds besides.
        place: the file, or timm's name of the weights.
    """

    taken: int
    new: tuple[str, ...]
    left: tuple[str, ...]
    place: str

    def __str__(self) -> str:
        total = self.taken + len(self.new)
        return (
            f"encoder.weights: {self.taken} of {total} tensors of the encoder come from {self.place}; "
            f"new and random: {_named(self.new)}; left out of the file: {_named(self.left)}"
        )


def resolved_encoder(config: Config) -> EncoderConfig:
    """The encoder's section with `mean`, `std` and `image_size` as they are used; reads no tensors but a run's.

    What the config says comes first, then what lies beside or in the file of weights, then what timm publishes. Other
    weights are taken for torchvision's, trained on ImageNet, where the encoder is one of torchvision's.

    Raises:
        UserError: weights that do not exist, or of another timm model; an unknown timm model.
    """
    encoder = config.encoder
    is_timm = encoder.name.startswith(TIMM)
    view_size = config.augmentation.view_size
    if not is_timm and encoder.weights is None and encoder.mean is None and view_size is None:
        return encoder
    if None not in (encoder.mean, encoder.std, encoder.image_size):
        return encoder
    known = [PixelFacts(encoder.mean, encoder.std, encoder.image_size)]
    known += [PixelFacts(image_size=view_size), PixelFacts(image_size=config.data.image_size)]
    if encoder.weights not in (None, PRETRAINED):
        file = find_weights(encoder.weights)
        _check_architecture(encoder, file.architecture)
        known.append(file.facts)
    if is_timm:
        published = pixel_settings(encoder.name)
        is_sized = encoder.weights is not None or published["fixed_input_size"]
        known.append(PixelFacts(published["mean"], published["std"], published["image_size"] if is_sized else 0))
    elif encoder.name == "vit_s16":
        known.append(PixelFacts(image_size=224))
    if encoder.name.startswith(("resnet", "vit_s16")) and encoder.weights is not None:
        known.append(IMAGENET)
    known.append(PixelFacts((0.0,), (1.0,), 0))
    found = {
        key: next(getattr(facts, key) for facts in known if getattr(facts, key) is not None)
        for key in ("mean", "std", "image_size")
    }
    try:
        return EncoderConfig.model_validate({**encoder.model_dump(), **found})
    except ValidationError as error:
        raise UserError(f"encoder: {error.errors()[0]['msg'].removeprefix('Value error, ')}") from None


def _check_architecture(encoder: EncoderConfig, architecture: str | None) -> None:
    own = encoder.name.removeprefix(TIMM).partition(".")[0]
    if architecture is not None and encoder.name.startswith(TIMM) and architecture.partition(".")[0] != own:
        raise UserError(
            f"encoder.weights: {encoder.weights} holds weights of timm/{architecture}; set encoder.name to it "
            f"(it is {encoder.name})"
        )


def load_weights(encoder: nn.Module, config: EncoderConfig) -> Match | None:
    """Give an encoder the weights that its config names; None where it names none.

    Args:
        encoder: as `build_encoder` gives it.

    Raises:
        UserError: they cannot be read, or nothing or too little of them fits.
    """
    if config.weights is None:
        return None
    backbone = backbone_of(encoder)
    if config.weights == PRETRAINED:
        channels = encoder.mean.numel() if isinstance(encoder, OnPixels) else 3
        source, _ = build_timm(config.name, num_channels=channels, image_size=config.image_size or 0, pretrained=True)
        tensors, place = source.state_dict(), f"{config.name} on its hub"
    else:
        path = find_weights(config.weights).path
        tensors, place = read_tensors(path), str(path)
    wanted = backbone.state_dict()
    prefix = common_prefix(tensors, wanted)
    inside = {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
    fitting = _fitting(inside, wanted)
    if len(fitting) < len(wanted):
        converted = _converted(inside, backbone, config)
        fitting_then = _fitting(converted, wanted)
        if len(fitting_then) > len(fitting):
            inside, fitting = converted, fitting_then
    outside = [name for name in tensors if not name.startswith(prefix)]
    unused = [f"{prefix}{name}" for name in inside if name not in fitting]
    left = [name for name in (*unused, *outside) if not name.endswith(COUNTER)]
    new = [name for name in wanted if name not in fitting and not name.endswith(COUNTER)]
    match = Match(sum(not name.endswith(COUNTER) for name in fitting), tuple(new), tuple(left), place)
    _check_architecture_of(inside, wanted, fitting, match, config)
    backbone.load_state_dict({**wanted, **fitting})
    return match


def common_prefix(tensors: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> str:
    """What stands before the encoder's names in a file, such as `module.` or `model.encoder.`, or nothing.

    It is what stands before most of them, and of those the shortest.
    """
    counts: Counter[str] = Counter()
    for name in tensors:
        parts = name.split(".")
        for start in range(len(parts)):
            if ".".join(parts[start:]) in wanted:
                counts["".join(f"{part}." for part in parts[:start])] += 1
    return min(counts, key=lambda prefix: (-counts[prefix], len(prefix)), default="")


def _fitting(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors of the encoder's names and shapes; first convolutions of grey images are spread over three channels."""
    fitting = {}
    for name, target in wanted.items():
        value = found.get(name)
        if value is None or value.is_floating_point() != target.is_floating_point():
            continue
        if value.ndim == 4 and value.shape[1] == 1 and target.shape[1:2] == (3,):
            # Three equal channels then give what the one gave.
            value = value.expand(-1, 3, -1, -1) / 3
        if value.shape == target.shape:
            fitting[name] = value
    return fitting


def _converted(found: dict[str, Tensor], backbone: nn.Module, config: EncoderConfig) -> dict[str, Tensor]:
    """Names of the models' authors as timm's, and the positions of another image size; as it was where that fails."""
    try:
        if config.name == "vit_s16":
            from torchvision.models.vision_transformer import interpolate_embeddings

            size = int(getattr(backbone, "image_size", 0))
            return dict(interpolate_embeddings(size, 16, dict(found)))
        convert: Callable[..., dict[str, Tensor]] | None
        convert = getattr(sys.modules[type(backbone).__module__], "checkpoint_filter_fn", None)
        if config.name.startswith(TIMM) and convert is not None:
            return dict(convert(dict(found), backbone))
    except Exception:  # the converters expect files of their own models
        return found
    return found


def _check_architecture_of(
    found: Mapping[str, Tensor],
    wanted: Mapping[str, Tensor],
    fitting: Mapping[str, Tensor],
    match: Match,
    config: EncoderConfig,
) -> None:
    """Raise UserError where the weights are not those of this encoder, or not finite."""
    share = sum(each.numel() for each in fitting.values()) / max(1, sum(each.numel() for each in wanted.values()))
    more = further_blocks(found, wanted)
    if share < LEAST_SHARE or more:
        besides = f"; besides the file holds the blocks {_named(more)}" if more else ""
        raise UserError(
            f"encoder.weights: {match.place} is of another architecture than encoder.name={config.name}: "
            f"{match.taken} of {match.taken + len(match.new)} tensors fit, {100 * share:.0f}% of the encoder{besides}. "
            f"The file holds {_named(tuple(found))}; the encoder has {_named(tuple(wanted))}. Set encoder.name (width, "
            "small_image_stem) to that of the weights"
        )
    for name, value in fitting.items():
        if not value.isfinite().all():
            raise UserError(f"encoder.weights: {match.place} holds NaN or infinity in {name}; take other weights")


def further_blocks(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> tuple[str, ...]:
    """Numbered parts of the file beside which the encoder has others, such as `layer1.2` of a deeper ResNet."""
    own = _blocks(wanted)
    lists = {container for container, _ in own}
    further = [each for each in _blocks(found) if each not in own and each[0] in lists]
    return tuple(f"{container}{number}" for container, number in further)


def _blocks(names: Mapping[str, Tensor]) -> dict[tuple[str, str], None]:
    """What each number in the names stands behind, and the number."""
    places = ((name, place) for name in names for place in re.finditer(r"(?<=[^\d])\d+(?=\.)", name))
    return dict.fromkeys((name[: place.start()], place[0]) for name, place in places)


def _named(names: tuple[str, ...]) -> str:
    if not names:
        return "none"
    more = f" and {len(names) - MAX_NAMED} more" if len(names) > MAX_NAMED else ""
    return ", ".join(names[:MAX_NAMED]) + more
