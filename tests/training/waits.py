"""What makes the host wait for a GPU: asking for a value, or for a result whose shape depends on values.

On CPU tensors nothing waits, but the calls are the same.
"""

import traceback
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

ASKS_FOR_A_VALUE = {"_local_scalar_dense", "equal", "is_nonzero"}
HAS_A_SHAPE_OF_VALUES = {
    "nonzero", "masked_select", "_unique2", "unique_dim", "unique_consecutive", "repeat_interleave", "bincount",
    "linalg_lstsq", "linalg_inv_ex", "linalg_solve_ex", "histc",
}  # fmt: skip
INDEXES = {"index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index"}
READS_ON_THE_HOST = ("tolist", "item", "__bool__", "__float__", "__int__", "__index__", "cpu")
"""Not `numpy`, which a tensor on a GPU refuses."""


class Waits:
    """Collects, while it is entered, each call that would wait, with the functions that led to it.

    Args:
        allowed: functions that may wait, as what they ask for lies on the host.
    """

    def __init__(self, *allowed: str) -> None:
        self.allowed, self.found = set(allowed), list[str]()
        self._modes = (_Calls(self._hear), _Reads(self._hear))

    def _hear(self, name: str) -> None:
        frames = [each for each in traceback.extract_stack() if "/clray/" in each.filename]
        if not self.allowed & {each.name for each in frames}:
            self.found.append(f"{name} in {' > '.join(each.name for each in frames[-3:])}")

    def __enter__(self) -> "Waits":
        for mode in self._modes:
            mode.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        for mode in reversed(self._modes):
            mode.__exit__(*error)


class _Calls(TorchDispatchMode):
    """Operators below autograd, those of the backward pass too."""

    def __init__(self, hear: Callable[[str], None]) -> None:
        super().__init__()
        self.hear = hear

    def __torch_dispatch__(self, call: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = call._schema.name.removeprefix("aten::")
        has_mask = name in INDEXES and any(_is_mask(each) for each in args[1])
        # With the number of elements of its result said, repeat_interleave does not wait.
        is_sized = name == "repeat_interleave" and (kwargs or {}).get("output_size") is not None
        if has_mask or ((name in ASKS_FOR_A_VALUE or name in HAS_A_SHAPE_OF_VALUES) and not is_sized):
            self.hear(f"{name}{' by a mask' if has_mask else ''}")
        return call(*args, **(kwargs or {}))


def _is_mask(index: Any) -> bool:
    return isinstance(index, Tensor) and index.dtype in (torch.bool, torch.uint8)


class _Reads(TorchFunctionMode):
    """Methods that read a tensor's memory, and so are no operators."""

    def __init__(self, hear: Callable[[str], None]) -> None:
        super().__init__()
        self.hear = hear

    def __torch_function__(self, call: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(call, "__name__", "")
        to_host = name == "to" and any(_is_cpu(each) for each in (*args[1:], *(kwargs or {}).values()))
        if to_host or (name in READS_ON_THE_HOST and isinstance(args[0], Tensor)):
            self.hear(f"Tensor.{name}")
        return call(*args, **(kwargs or {}))


def _is_cpu(value: Any) -> bool:
    return value == "cpu" if isinstance(value, str) else False
