"""Weights as they lie in files: tensors by name, and what is known of the pixels they were trained on.

Nothing that a file holds is run: pickles of anything but tensors are refused.
"""

import json
import pickle
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from clray.errors import UserError

ENDINGS = (".safetensors", ".pt", ".pth", ".bin", ".ckpt")
IN_FOLDER = ("checkpoint.pt", "model.safetensors", "pytorch_model.bin", "encoder.safetensors")
"""Files of a folder that hold its weights: of a run of clray, and as on the Hugging Face hub."""
CONTAINERS = ("state_dict", "model", "model_state_dict", "teacher", "student", "ema", "module")
"""Keys under which training code keeps a `state_dict` beside other things."""


@dataclass(frozen=True)
class PixelFacts:
    """What is known of the pixels that weights were trained on; None is unknown."""

    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    image_size: int | None = None


@dataclass(frozen=True)
class WeightFile:
    """The file that holds the weights.

    Attributes:
        architecture: timm's name of the model, where a `config.json` beside the file gives it.
    """

    path: Path
    facts: PixelFacts = field(default_factory=PixelFacts)
    architecture: str | None = None


def find_weights(place: str) -> WeightFile:
    """The file that `encoder.weights` means, and what lies beside it or in its head.

    Raises:
        UserError: it does not exist, or is of no known kind.
    """
    path = Path(place)
    if path.is_dir():
        return _in_folder(path)
    if not path.is_file():
        raise UserError(f"encoder.weights: {path} does not exist; expected a file of weights, or a folder with one")
    if path.suffix not in ENDINGS:
        raise UserError(f"encoder.weights: {path} ends in {path.suffix!r}; expected one of {', '.join(ENDINGS)}")
    return WeightFile(path, _facts_in(path))


def _in_folder(folder: Path) -> WeightFile:
    # A worker group's checkpoints lie in folders that Ray Train names by time.
    of_group = sorted(folder.glob("workers/*/checkpoint.pt"))
    path = next((folder / name for name in IN_FOLDER if (folder / name).is_file()), None)
    path = of_group[-1] if of_group else path
    if path is None:
        raise UserError(
            f"encoder.weights: {folder} holds none of {', '.join(IN_FOLDER)}; give a run of clray, a folder as on the "
            "Hugging Face hub, or a file"
        )
    if path.name == "checkpoint.pt" or not (folder / "config.json").is_file():
        return WeightFile(path, _facts_in(path))
    try:
        described = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        if not isinstance(described, dict):
            raise ValueError("expected an object")
        published = {**described, **(described.get("pretrained_cfg") or {})}
        mean, std, size = (published.get(key) for key in ("mean", "std", "input_size"))
        facts = _as_facts(mean, std, None if size is None else size[-1])
    except (ValueError, TypeError, LookupError, OverflowError, OSError) as error:
        raise UserError(f"encoder.weights: {folder / 'config.json'} cannot be read ({error})") from error
    architecture = described.get("architecture")
    return WeightFile(path, facts, architecture if isinstance(architecture, str) else None)


def _facts_in(path: Path) -> PixelFacts:
    """What clray wrote into an export or a checkpoint; nothing is known of other files."""
    if path.suffix == ".safetensors":
        try:
            with safe_open(path, "pt") as file:
                head = file.metadata() or {}
            tree = json.loads(head["encoder"]) if "encoder" in head else None
            size = json.loads(head.get("image_size", "null"))
        except (SafetensorError, ValueError, OSError) as error:
            raise _unreadable(path, error) from error
    else:
        saved = load_pickle(path)
        config = saved.get("config") if isinstance(saved, dict) and "cluster_ids" in saved else None
        tree = config.get("encoder") if isinstance(config, dict) else None
        data = config.get("data") if isinstance(config, dict) else None
        size = data.get("image_size") if isinstance(data, dict) else None
    if not isinstance(tree, dict):
        return PixelFacts()
    mean, std = tree.get("mean"), tree.get("std")
    try:
        if mean is None or std is None:
            return _as_facts((0.0,), (1.0,), size)
        return _as_facts(mean, std, tree.get("image_size"))
    except (ValueError, TypeError, OverflowError) as error:
        raise _unreadable(path, error) from error


def _as_facts(mean: Any, std: Any, size: Any) -> PixelFacts:
    """Raises ValueError, TypeError or OverflowError where a file holds something else."""
    return PixelFacts(
        None if mean is None else tuple(map(float, mean)),
        None if std is None else tuple(map(float, std)),
        None if size is None else int(size),
    )


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a file by name, on the CPU.

    Raises:
        UserError: it cannot be read, is a pickle of objects, or holds no tensors by name.
    """
    if path.suffix == ".safetensors":
        try:
            with safe_open(path, "pt") as file:
                return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # it is no mapping
        except (SafetensorError, OSError, ValueError, RuntimeError) as error:
            raise _unreadable(path, error) from error
    tree = load_pickle(path)
    for _ in range(2):
        key = next(
            (key for key in CONTAINERS if isinstance(tree, Mapping) and isinstance(tree.get(key), Mapping)), None
        )
        tree = tree if key is None else tree[key]
    found = {name: each for name, each in tree.items() if _is_weight(name, each)} if isinstance(tree, Mapping) else {}
    if not found:
        raise UserError(f"encoder.weights: {path} holds no tensors by name; save a module's state_dict() into it")
    return found


def _is_weight(name: Any, value: Any) -> bool:
    return isinstance(name, str) and isinstance(value, Tensor) and value.layout == torch.strided


def load_pickle(path: Path) -> Any:
    """What `torch.save` wrote, as far as it is tensors and plain values.

    Raises:
        UserError: anything else, which unpickling would run as code, or a damaged file.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that this is a pickle, or TorchScript; what is refused is said below
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged bytes make the reader raise nearly anything
        held = _objects_in(path, error)
        if held is None:
            raise _unreadable(path, error) from error
        raise UserError(
            f"encoder.weights: {path} holds {held}, which would run code while it is read. Where you trust who made "
            "it, convert it: torch.save(torch.load(FILE, weights_only=False).state_dict(), 'weights.pt'), or with "
            "['state_dict'] in place of .state_dict() where it is a dictionary"
        ) from error


def _objects_in(path: Path, error: Exception) -> str | None:
    """What torch refused to make of a file; None where the file is damaged, or none of torch's."""
    if "TorchScript" in str(error):
        return "a TorchScript program"
    found = re.search(r"Unsupported global: GLOBAL (\S+)", str(error))
    if found is not None:
        return f"a pickle of Python objects ({found[1]})"
    with path.open("rb") as file:
        is_pickle = file.read(1) == b"\x80"
    return "a pickle of Python objects" if is_pickle and isinstance(error, pickle.UnpicklingError) else None


def _unreadable(path: Path, error: BaseException) -> UserError:
    reason = (str(error).splitlines() or [type(error).__name__])[0][:300]
    return UserError(
        f"encoder.weights: {path} cannot be read ({reason}); expected safetensors, or what torch.save wrote"
    )
