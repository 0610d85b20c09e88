"""A device that is not there: its tensors lie on the CPU, and what mixes them with others fails as on a GPU.

While an `Accelerator` is entered, tensors are made on `device()` and moved to it and back as on any device. An
operation on tensors of both fails, and so does reading memory without `.cpu()`. It has no autocast.
"""

from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.backend_registration import _DummyBackendModule, _setup_privateuseone_for_python_backend

NAME = "fakegpu"
MOVES = {"_to_copy", "copy_", "_copy_from"}
TAKES_INDICES_OF_THE_HOST = {"index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index"}


class _Backend(_DummyBackendModule):
    def get_rng_state(self, _: Any = None) -> Tensor:
        return torch.get_rng_state()

    def set_rng_state(self, state: Tensor, _: Any = None) -> None:
        torch.set_rng_state(state)

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16, torch.float16]


def device() -> torch.device:
    """The device, which this process knows from the first call on."""
    if torch._C._get_privateuse1_backend_name() != NAME:
        _setup_privateuseone_for_python_backend(NAME, _Backend())
    return torch.device(NAME, 0)


class _Held(Tensor):
    """A tensor of the device; `held` has its values."""

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor) -> "_Held":
        with torch.inference_mode(False):  # else a view of what was made without it could not be wrapped within it
            made: _Held = Tensor._make_wrapper_subclass(
                cls, held.shape, strides=held.stride(), storage_offset=held.storage_offset(), dtype=held.dtype,
                device=torch.device(NAME, 0),
            )  # fmt: skip
        made.held = held
        return made

    def tolist(self) -> Any:
        return self.held.tolist()

    def __reduce_ex__(self, protocol: Any) -> Any:
        """In a file it is a tensor of the CPU, as one that is read with `map_location`."""
        return self.held.__reduce_ex__(protocol)

    @classmethod
    def __torch_dispatch__(cls, call: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(call, args, kwargs or {})


class Accelerator(TorchDispatchMode):
    """While it is entered, what is asked to be on the device is made there."""

    def __torch_dispatch__(self, call: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(call, args, kwargs or {})


def _is_here(place: Any) -> bool:
    return place is not None and torch.device(place).type == NAME


def _run(call: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """The call on the CPU's tensors; its results are the device's where its arguments are, or where it is asked to."""
    tensors = [each for each in _pytree.tree_leaves((args, kwargs)) if isinstance(each, Tensor)]
    ours = [each for each in tensors if isinstance(each, _Held)]
    if not ours and not _is_here(kwargs.get("device")):
        return call(*args, **kwargs)
    name = call._schema.name.removeprefix("aten::")
    if name not in MOVES:
        _require_one_device(name, args, tensors, len(ours))
    args, kwargs = _pytree.tree_map(lambda each: each.held if isinstance(each, _Held) else each, (args, dict(kwargs)))
    stays = bool(ours) if name != "copy_" else isinstance(tensors[0], _Held)
    if kwargs.get("device") is not None:
        stays = _is_here(kwargs["device"])
        kwargs["device"] = torch.device("cpu")
    found = call(*args, **kwargs)
    if not stays:
        return found
    # What is changed in place is given back as it came.
    known = {id(each.held): each for each in ours}
    return _pytree.tree_map(lambda each: known.get(id(each), each) if id(each) in known else _wrapped(each), found)


def _wrapped(value: Any) -> Any:
    return _Held(value) if isinstance(value, Tensor) else value


def _require_one_device(name: str, args: Any, tensors: list[Tensor], num_ours: int) -> None:
    """As on a GPU: a number of the CPU may take part, and indices of the CPU into what lies on the device."""
    others = [each for each in tensors if not isinstance(each, _Held) and each.dim() > 0]
    if name in TAKES_INDICES_OF_THE_HOST and isinstance(args[0], _Held):
        others = [each for each in others if not any(each is index for index in args[1])]
    if others and num_ours:
        raise RuntimeError(f"{name}: Expected all tensors to be on the same device, but found {NAME}:0 and cpu")
