"""Encoder weights from the authors' released files, under torchvision's names, and from ours.

What the files hold and how their tensors are called is a table, :data:`LAYOUTS`; see there for
what inference leaves out. Everything else that is unknown or missing is an error.
"""

from __future__ import annotations

import argparse
import collections
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bench.errors import MethodError
from bench.training import load_strictly, read_weights
from methods.correspondence.encoder import Encoder
from methods.correspondence.preactivation import PreactivationEncoder

DISTRIBUTED_PREFIX = "module."
"""Before every name in a file saved from PyTorch's data-parallel wrappers."""

COUNTER = "num_batches_tracked"
"""End of the names of batch counters. PyTorch before 0.4.1 wrote none; inference needs none."""

CANONICAL = re.compile(
    r"(conv1|bn1|layer[1-4]\.\d+\.(conv[123]|bn[123]|downsample\.[01])|projection)"
    r"\.(weight|bias|running_mean|running_var|num_batches_tracked)"
)
"""Every name that :class:`~methods.correspondence.encoder.Encoder` can have."""


@dataclass(frozen=True)
class Layout:
    """How one system's released file names its tensors.

    Attributes:
        renames: regular expressions and what replaces them, applied in this order.
        unused: beginnings of names that the file is documented to hold besides the encoder.
        has_time: whether convolutions have a time axis of size 1 as their third.
    """

    renames: tuple[tuple[str, str], ...]
    unused: tuple[str, ...] = ()
    has_time: bool = False


_STRIDE_4 = Layout(
    renames=(
        (r"^feature_extraction\.", ""),
        (r"^conv1\.0\.", "conv1."),
        (r"^conv1\.1\.", "bn1."),
        (r"\.left\.0\.", ".conv1."),
        (r"\.left\.1\.", ".bn1."),
        (r"\.left\.3\.", ".conv2."),
        (r"\.left\.4\.", ".bn2."),
        (r"\.shortcut\.", ".downsample."),
        (r"^post_convolution\.", "projection."),
    )
)

_UVC_UNUSED = ("rgb_encoder.", "decoder.", "normalize.", "gray_encoder.fc.")
"""The frozen colour auto-encoder, the constants of the input's normalisation, the classifier."""

_STT = Layout(
    renames=(
        (r"^backbone\.", ""),
        (r"(^|\.)conv([123])\.conv\.", r"\1conv\2."),
        (r"(^|\.)conv([123])\.bn\.", r"\1bn\2."),
        (r"\.downsample\.conv\.", ".downsample.0."),
        (r"\.downsample\.bn\.", ".downsample.1."),
    ),
    # The frozen teacher of the distillation, and the number of training steps.
    unused=("backbone_t.", "iteration"),
)

_STT_TEACHER = Layout(
    renames=(
        (r"^backbone_t\.", ""),
        (r"^encoder_q\.", ""),
        *_STT.renames[1:],
    ),
    # The student and the number of training steps; the momentum encoder and queue of contrastive
    # training (MoCo); classifiers and projection heads.
    unused=("backbone.", "iteration", "encoder_k.", "queue", "encoder_q.fc.", "fc."),
)

LAYOUTS: Mapping[str, Layout] = MappingProxyType(
    {
        "corrflow": _STRIDE_4,
        "mast": _STRIDE_4,
        "mamp": _STRIDE_4,
        "cycletime": Layout(
            renames=((r"^encoderVideo\.", ""), (r"^afterconv1\.", "projection.")),
            # The localiser of the spatial transformer, and the classifier.
            unused=("afterconv3_trans.", "afterconv4_trans.", "linear2.", "encoderVideo.fc."),
            has_time=True,
        ),
        "uvc": Layout(renames=((r"^gray_encoder\.", ""),), unused=_UVC_UNUSED),
        "mug": Layout(
            renames=((r"^gray_encoder\.", ""),),
            # Beside UVC's: the exemplar memory, the saliency head and the saliency network.
            unused=(*_UVC_UNUSED, "memory_encoder.", "fusion", "weak_", "linear_e.", "CAM."),
        ),
        "crw": Layout(
            # Padded convolutions were stored as a sequence of padding and convolution.
            renames=(
                (r"^encoder\.model\.", ""),
                (r"(^|\.)conv([12])\.1\.weight$", r"\1conv\2.weight"),
            ),
            # The projection head of training, and the classifier.
            unused=("selfsim_fc.", "encoder.model.fc."),
        ),
        "dul": Layout(
            renames=((r"^fast_net\.backbone\.", ""),),
            # The projection head of training, and the classifier.
            unused=("fast_net.emb_q.", "fast_net.backbone.fc."),
        ),
        "stt_teacher": _STT_TEACHER,
        "stt_resnet18_d8": _STT,
        "stt_resnet18_d4": _STT,
        "stt_resnet50_d8": _STT,
        "stt_resnet50_d4": _STT,
    }
)
"""The released files by system. VidColor, RPM-Net and TWIAA have released none.

``stt_teacher`` is the network that STT's second step learns from: in its released file beside the
student, or by itself under torchvision's names, also inside a file of contrastive training.

Stages after an encoder's last one are part of the CRW, CycleTime and STT files too;
:func:`load_encoder` leaves them out, :func:`load_official` does not.
"""

# NumPy rebuilds a pickled number with a function it exports under no public name.
_REBUILD_NUMBER: Any = np.float64(0).__reduce__()[0]

BOOKKEEPING: tuple[Callable[..., object] | tuple[Callable[..., object], str], ...] = (
    argparse.Namespace,
    collections.Counter,
    (_REBUILD_NUMBER, "numpy.core.multiarray.scalar"),
    (_REBUILD_NUMBER, "numpy._core.multiarray.scalar"),
    np.dtype,
    *(type(np.dtype(name)) for name in ("float64", "float32", "int64")),
)
"""What released files pickle beside tensors: arguments, schedules, scores. None runs code."""


def load_official(path: Path, system: str) -> dict[str, Tensor]:
    """The encoder's tensors of an authors' file, under torchvision's names.

    Args:
        path: the file as released: a state dict, or one under ``state_dict`` or ``model``, with or
            without the prefix ``module.``. Pickled code is not run.
        system: a key of :data:`LAYOUTS`.

    Returns:
        float32 tensors by name; later stages than the encoder uses are included.

    Raises:
        MethodError: no released layout for the system, an unreadable file, tensors that are
            neither the encoder's nor documented as unused (all are named), or two of one name.
    """
    layout = _layout(path, system)
    with torch.serialization.safe_globals([*BOOKKEEPING]):
        stored = read_weights(path)
    tensors: dict[str, Tensor] = {}
    unknown: list[str] = []
    for name, tensor in stored.items():
        bare = name.removeprefix(DISTRIBUTED_PREFIX)
        if bare.startswith(layout.unused):
            continue
        canonical = _canonical_name(bare, layout)
        if canonical in tensors or not CANONICAL.fullmatch(canonical):
            unknown.append(name)
            continue
        tensors[canonical] = _without_time(tensor) if layout.has_time else tensor
    if unknown:
        raise MethodError(
            path,
            f"unknown tensors {sorted(unknown)}",
            f"only those of {system}'s released file",
            "Check that the file belongs to this system.",
        )
    return tensors


def load_encoder(encoder: Encoder | PreactivationEncoder, path: Path, system: str) -> None:
    """Load an encoder from the authors' file or from one of ours, strictly.

    Two things may be there or not: stages after the encoder's last one are left out, and batch
    counters that an authors' file lacks stay at zero.

    Args:
        encoder: built for the system, e.g. from ``ENCODERS[system]``.
        path: the released file, or a ``.safetensors`` file with the encoder's own names.
        system: which system's released file it is; our own files do not need it.

    Raises:
        MethodError: as :func:`load_official`; or tensors missing, unknown or of another shape,
            named as in torchvision.
    """
    official = path.suffix != ".safetensors"
    tensors = load_official(path, system) if official else read_weights(path)
    expected = encoder.state_dict()
    if isinstance(encoder, Encoder):
        later = tuple(f"layer{stage}." for stage in range(encoder.settings.last_stage + 1, 5))
        tensors = {name: tensor for name, tensor in tensors.items() if not name.startswith(later)}
    if official:
        counters = {name: torch.zeros_like(t) for name, t in expected.items() if _counts(name)}
        tensors = counters | tensors
    load_strictly(encoder, tensors, path)


def _layout(path: Path, system: str) -> Layout:
    if system not in LAYOUTS:
        raise MethodError(
            path,
            f"system {system!r}, whose authors released no file",
            f"one of {', '.join(LAYOUTS)}, or a .safetensors file of ours",
            "Train the system, or name another one.",
        )
    return LAYOUTS[system]


def _canonical_name(name: str, layout: Layout) -> str:
    for pattern, replacement in layout.renames:
        name = re.sub(pattern, replacement, name)
    return name


def _without_time(tensor: Tensor) -> Tensor:
    """``(out, in, 1, k, k)`` to ``(out, in, k, k)``; other shapes stay."""
    return tensor.squeeze(2) if tensor.ndim == 5 else tensor


def _counts(name: str) -> bool:
    return name.endswith(COUNTER)
