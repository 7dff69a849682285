"""A GPU that is not there: CPU tensors that remember whether they would lie on it.

Most machines that run these tests have no GPU. What breaks there first is not arithmetic but
place: a table left on the CPU, NumPy asked to read the GPU's memory. Inside :class:`PretendGPU`,
``device="cuda"`` gives CPU tensors whose storage is marked, ``tensor.device`` says ``cuda:0``, and
every operation complains where CUDA would: when it is given tensors of both places, when a marked
tensor is read by NumPy, or when a CPU generator draws on the GPU.

It computes on the CPU, so it says nothing about speed, memory, or kernels that CUDA lacks.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

GPU = torch.device("cuda", 0)

# CUDA takes indices and sources of copies from the CPU; scalars it takes everywhere.
_EITHER_PLACE = ("aten.index.", "aten.index_put", "aten._index_put", "aten.copy_", "aten.set_")

LIFT = torch.ops.aten.lift_fresh.default

_NUMPY = (Tensor.numpy, Tensor.__array__)
_MOVES: Mapping[Any, str] = {Tensor.cuda: "cuda", Tensor.cpu: "cpu"}


class WrongPlaceError(RuntimeError):
    """What CUDA would have refused."""


class _Places:
    """Which storages lie on the pretended GPU."""

    def __init__(self) -> None:
        # A weak reference keeps the address from being used again, so that it can be the key.
        self.on_gpu: dict[int, StorageWeakRef] = {}

    def __call__(self, tensor: Tensor) -> bool:
        return StorageWeakRef(tensor.untyped_storage()).cdata in self.on_gpu

    def put(self, tensor: Tensor, on_gpu: bool) -> None:
        reference = StorageWeakRef(tensor.untyped_storage())
        if on_gpu:
            self.on_gpu[reference.cdata] = reference
        else:
            self.on_gpu.pop(reference.cdata, None)


class _Operations(TorchDispatchMode):
    """Every operation, also those of backward passes: all of one place, and so are results."""

    def __init__(self, places: _Places) -> None:
        super().__init__()
        self.places = places
        self.inside_gpu = False

    @contextlib.contextmanager
    def within(self, on_gpu: bool) -> Iterator[None]:
        """Within a function of torch, what it makes of nothing lies where its arguments do."""
        before, self.inside_gpu = self.inside_gpu, on_gpu
        try:
            yield
        finally:
            self.inside_gpu = before

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = [one for one in tree_leaves((args, kwargs)) if isinstance(one, Tensor)]
        place = [self.places(one) for one in given]
        on_gpu = any(place)
        if on_gpu and not str(func).startswith(_EITHER_PLACE):
            strays = [
                tuple(one.shape)
                for one, there in zip(given, place, strict=True)
                if not there and one.ndim
            ]
            if strays:
                raise WrongPlaceError(
                    f"{func}: tensors of shapes {strays} are on the CPU, others not"
                )
        if str(func).startswith("aten.index.") and any(place[1:]) and not place[0]:
            raise WrongPlaceError(f"{func}: the CPU's tensor indexed by the GPU's")
        result = func(*args, **(kwargs or {}))
        # New tensors: from nothing, or, by torch.Tensor.new_tensor, from numbers.
        on_gpu = on_gpu or (self.inside_gpu and (not given or func is LIFT))
        if on_gpu and not str(func).startswith("aten.copy_"):
            mine = {StorageWeakRef(one.untyped_storage()).cdata for one in given}
            for one in tree_leaves(result):
                if not isinstance(one, Tensor):
                    continue
                if func is LIFT or StorageWeakRef(one.untyped_storage()).cdata not in mine:
                    self.places.put(one, True)
        return result


class PretendGPU(TorchFunctionMode):
    """Inside it, there is one GPU, ``cuda:0``."""

    def __init__(self) -> None:
        super().__init__()
        self.places = _Places()
        self.operations = _Operations(self.places)
        self.stack = contextlib.ExitStack()

    def __enter__(self) -> Any:
        self.stack.enter_context(warnings.catch_warnings())
        warnings.filterwarnings("ignore", message=".*CUDA is not available.*")
        for name, value in {
            "torch.cuda.is_available": True,
            "torch.cuda.synchronize": None,
            "torch.cuda.is_bf16_supported": True,
            "torch.cuda.reset_peak_memory_stats": None,
            "torch.cuda.max_memory_allocated": 0,
            "torch.cuda.is_current_stream_capturing": False,
            "torch.cuda.device_count": 1,
            "torch.cuda.current_device": 0,
            "torch.cuda.get_device_name": "a pretended GPU",
            "torch.cuda.manual_seed": None,
            "torch.cuda.manual_seed_all": None,
            "torch.cuda.empty_cache": None,
        }.items():
            self.stack.enter_context(mock.patch(name, return_value=value))
        self.stack.enter_context(self.operations)
        return super().__enter__()

    def __exit__(self, *exception: Any) -> None:
        super().__exit__(*exception)
        self.stack.close()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func == Tensor.device.__get__:  # type: ignore[attr-defined]
            return GPU if self.places(args[0]) else func(*args)
        if func == Tensor.is_cuda.__get__:  # type: ignore[attr-defined]
            return self.places(args[0])
        if func in _NUMPY and self.places(args[0]):
            raise WrongPlaceError("NumPy cannot read the GPU's memory; call .cpu() first")
        if func is Tensor.pin_memory:
            return args[0]
        if func in _MOVES:
            return self._moved(args[0], _MOVES[func])
        if func is Tensor.to:
            return self._to(*args, **kwargs)
        device = kwargs.get("device")
        if device is None:
            given = [one for one in tree_leaves((args, kwargs)) if isinstance(one, Tensor)]
            with self.operations.within(any(map(self.places, given))):
                return func(*args, **kwargs)
        return self._made(func, args, kwargs, torch.device(device).type == "cuda")

    def _made(self, func: Callable[..., Any], args: Any, kwargs: Any, on_gpu: bool) -> Any:
        """A tensor made on a device."""
        if on_gpu and isinstance(kwargs.get("generator"), torch.Generator):
            raise WrongPlaceError(f"{func.__name__}: a generator of the CPU draws on the GPU")
        result = func(*args, **(kwargs | {"device": "cpu"}))
        given = [one for one in tree_leaves(args) if isinstance(one, Tensor)]
        if any(one is result for one in given):  # torch.as_tensor hands tensors on
            return self._moved(result, "cuda" if on_gpu else "cpu")
        self.places.put(result, on_gpu)
        return result

    def _to(self, tensor: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """``Tensor.to`` in all its forms."""
        device = kwargs.pop("device", None)
        rest = []
        for one in args:
            if isinstance(one, str | torch.device):
                device = torch.device(one)
            elif isinstance(one, Tensor):
                device, kwargs["dtype"] = (GPU if self.places(one) else "cpu"), one.dtype
            elif isinstance(one, torch.dtype):
                kwargs["dtype"] = one
            elif one is not None:
                rest.append(one)  # non_blocking, copy
        moved = tensor if device is None else self._moved(tensor, torch.device(device).type)
        kwargs = {name: value for name, value in kwargs.items() if value is not None}
        kwargs.pop("non_blocking", None)
        return Tensor.to(moved, **kwargs) if kwargs else moved

    def _moved(self, tensor: Tensor, place: str) -> Tensor:
        if self.places(tensor) == (place == "cuda"):
            return tensor
        copy = tensor.clone()  # keeps the graph, as a copy between devices does
        self.places.put(copy, place == "cuda")
        return copy


@contextlib.contextmanager
def pretend_gpu() -> Iterator[PretendGPU]:
    """A machine with one GPU."""
    with PretendGPU() as mode:
        yield mode
