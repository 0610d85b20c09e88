"""Models of timm, an optional dependency, without their classifiers."""

from difflib import get_close_matches
from typing import Any

from torch import nn

from clray.config.sections.model import TIMM
from clray.errors import UserError


def build_timm(name: str, *, num_channels: int, image_size: int, pretrained: bool = False) -> tuple[nn.Module, int]:
    """A module from float images [B, C, H, W] to pooled features [B, dim], and dim.

    Args:
        image_size: for models of one size; 0 leaves it as published.
        pretrained: with the weights of timm's hub, or of its cache.

    Raises:
        UserError: timm is missing or has no such model; the size does not suit it; the weights cannot be fetched.
    """
    timm, name = _timm(name), name.removeprefix(TIMM)
    is_of_one_size = bool(pixel_settings(name)["fixed_input_size"])
    sized = {"img_size": image_size} if is_of_one_size and image_size else {}
    try:
        model = timm.create_model(name, pretrained=pretrained, num_classes=0, in_chans=num_channels, **sized)
    except Exception as error:  # whatever a model's code or the way to the hub raises
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        if pretrained:
            raise UserError(
                f"encoder.weights=pretrained: those of timm/{name} cannot be fetched ({reason}); check the network, or "
                "fetch them elsewhere and set encoder.weights to the file or folder"
            ) from error
        size = f"encoder.image_size={image_size or 'as published'}"
        raise UserError(f"encoder.name=timm/{name}: cannot be built for {size} ({reason})") from error
    return model, int(getattr(model, "head_hidden_size", None) or model.num_features)


def pixel_settings(name: str) -> dict[str, Any]:
    """`mean`, `std`, `image_size` and `fixed_input_size` as timm publishes them for a model; fetches nothing."""
    timm, name = _timm(name), name.removeprefix(TIMM)
    published = timm.get_pretrained_cfg(name).to_dict()
    found = timm.data.resolve_data_config(pretrained_cfg=published)
    return {
        "mean": tuple(found["mean"]),
        "std": tuple(found["std"]),
        "image_size": int(found["input_size"][-1]),
        "fixed_input_size": published.get("fixed_input_size", False),
    }


def _timm(name: str) -> Any:
    """The package; raises UserError where it is missing, or has no model of this name."""
    name = name.removeprefix(TIMM)
    try:
        import timm
        import timm.data
    except ImportError as error:
        raise UserError(
            f"encoder.name=timm/{name}: timm cannot be imported ({error}); install it with: pip install 'clray[timm]'"
        ) from error
    architecture, _, tag = name.partition(".")
    if not timm.is_model(architecture):
        close = get_close_matches(architecture, timm.list_models(), 3)
        hint = f"; did you mean {' or '.join(close)}?" if close else ""
        raise UserError(f"encoder.name=timm/{name}: timm {timm.__version__} has no such model{hint}")
    tags = [each.partition(".")[2] for each in timm.list_pretrained(f"{architecture}.*")]
    if tag and tag not in tags:
        shown = ", ".join(f"{architecture}.{each}" for each in tags) or f"{architecture}, without a tag"
        raise UserError(f"encoder.name=timm/{name}: timm {timm.__version__} has no such weights; it has {shown}")
    return timm
