"""The authors' checkpoint layout (section 6): 244 tensors under their names, and under ours."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from bench.errors import MethodError

OFFICIAL_NAMES = (
    ("spx_embedding.feat_extractor.", "backbone."),
    ("sf_head_L1.0.", "superfeatures.full.linear."),
    ("sf_head_L1.1.", "superfeatures.full.norm."),
    ("sf_head_L4.0.", "superfeatures.quarter.linear."),
    ("sf_head_L4.1.", "superfeatures.quarter.norm."),
    ("sf_conv_1x1.0.", "superfeatures.combine."),
    ("mem_select.convAM.", "modulator.attention."),
    ("mem_select.convL2.", "modulator.features."),
    ("mem_select.gate.", "modulator.gate."),
    ("segmenter.layer2.", "decoder.skip_stage."),
    ("segmenter.convFM.", "decoder.fuse."),
    ("segmenter.res_L4.", "decoder.residual."),
    ("segmenter.RF2.convFS.", "decoder.refine_half.skip."),
    ("segmenter.RF2.ResFS.", "decoder.refine_half.skip_residual."),
    ("segmenter.RF2.ResMM.", "decoder.refine_half.merged_residual."),
    ("segmenter.RF1.convFS.", "decoder.refine_full.skip."),
    ("segmenter.RF1.ResFS.", "decoder.refine_full.skip_residual."),
    ("segmenter.RF1.ResMM.", "decoder.refine_full.merged_residual."),
    ("segmenter.pred.", "decoder.predict."),
)
"""Beginnings of the authors' tensor names, and of ours for the same tensors."""

PREFIX = "module."
"""Before every name in a file saved from the authors' distributed training."""


def is_official(names: Mapping[str, object]) -> bool:
    """Whether a state dict has the authors' names."""
    beginning = OFFICIAL_NAMES[0][0]
    return any(name.removeprefix(PREFIX).startswith(beginning) for name in names)


def from_official(state: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    """Rename the authors' tensors to ours.

    Args:
        state: the ``model`` entry of their file, with or without the prefix ``module.``.
        path: for error messages.

    Raises:
        MethodError: names the tensors that are not part of the model.
    """
    renamed, unknown = {}, []
    for name, tensor in state.items():
        bare = name.removeprefix(PREFIX)
        for theirs, ours in OFFICIAL_NAMES:
            if bare.startswith(theirs):
                renamed[ours + bare.removeprefix(theirs)] = tensor
                break
        else:
            unknown.append(name)
    if unknown:
        raise MethodError(
            path,
            f"unknown tensors {sorted(unknown)}",
            "only those of SHLS",
            "Check that the file belongs to SHLS (BMVC 2023).",
        )
    return renamed


def to_official(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename our tensors to the authors' names, without ``module.``."""
    renamed = {}
    for name, tensor in state.items():
        theirs, ours = next(pair for pair in OFFICIAL_NAMES if name.startswith(pair[1]))
        renamed[theirs + name.removeprefix(ours)] = tensor
    return renamed
