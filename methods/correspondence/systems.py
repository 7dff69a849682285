"""The systems by name: what each is, and what its published weights consumed.

Hours and datasets of video are those that the papers state. Where a system differs from the rest
at test time in more than settings, it has a module of its own (``uvc``, ``mamp``, ``rpmnet``).
"""

from __future__ import annotations

from bench.method import LabelRegime, MethodCard
from bench.registry import register_method
from methods.correspondence.method import Correspondence
from methods.correspondence.training import training_settings

READING = "A reading of the text, not a reproduction: no code is public."


def make_card(
    name: str,
    title: str,
    description: str,
    paper: str,
    hours: float,
    source: str,
    *,
    images: int = 0,
    released: bool = True,
) -> MethodCard:
    """A system's card; ``hours`` of video from ``source``."""
    return MethodCard(
        name=name,
        title=title,
        description=description,
        regime=LabelRegime(images=images, video_hours=hours, note=f"{source}, without labels"),
        paper=paper,
        paper_checkpoint=released,
    )


@register_method("vidcolor")
class VidColor(Correspondence):
    """Copies colours from grey reference frames."""

    TrainingSettings = training_settings("vidcolor")
    card = make_card(
        "vidcolor",
        "VidColor",
        "Learns to colour grey frames by copying from a reference frame; labels are copied alike.",
        "Vondrick et al.: Tracking Emerges by Colorizing Videos. ECCV 2018",
        833,
        "Kinetics",
        released=False,
    )


@register_method("corrflow")
class CorrFlow(Correspondence):
    """Copies colours within a window, through a colour bottleneck, over long and cyclic paths."""

    TrainingSettings = training_settings("corrflow")
    card = make_card(
        "corrflow",
        "CorrFlow",
        "Colour copying in a window with channel dropout, scheduled sampling and cycles.",
        "Lai, Xie: Self-supervised Learning for Video Correspondence Flow. BMVC 2019",
        14,
        "OxUvA",
    )


@register_method("cycletime")
class CycleTime(Correspondence):
    """Tracks patches backward and forward in time."""

    TrainingSettings = training_settings("cycletime")
    card = make_card(
        "cycletime",
        "CycleTime",
        "Learns features with which a patch tracked backward and forward returns to its place.",
        "Wang, Jabri, Efros: Learning Correspondence from the Cycle-consistency of Time. CVPR 2019",
        344,
        "VLOG",
    )


@register_method("mast")
class MAST(Correspondence):
    """Copies Lab values; at test, from a memory that is searched in two steps."""

    TrainingSettings = training_settings("mast")
    card = make_card(
        "mast",
        "MAST",
        "Reconstructs a dropped Lab channel by copying; a long-term memory is searched in two "
        "steps.",
        "Lai, Lu, Xie: MAST: A Memory-Augmented Self-Supervised Tracker. CVPR 2020",
        5.67,
        "YouTube-VOS",
    )


@register_method("mug")
class MUG(Correspondence):
    """Learns from frames, clips and whole videos."""

    TrainingSettings = training_settings("mug")
    card = make_card(
        "mug",
        "MUG",
        "Multi-granularity learning with a saliency prior; propagated as UVC, because the "
        "one-shot script is not public.",
        "Lu et al.: Learning Video Object Segmentation from Unlabeled Videos. CVPR 2020",
        14,
        "OxUvA",
    )


@register_method("crw")
class CRW(Correspondence):
    """A random walk on patches that has to return."""

    TrainingSettings = training_settings("crw")
    card = make_card(
        "crw",
        "CRW",
        "Contrastive random walk: a walk over patches of a palindrome of frames has to return.",
        "Jabri, Owens, Efros: Space-Time Correspondence as a Contrastive Random Walk. NeurIPS 2020",
        833,
        "Kinetics",
    )


@register_method("dul")
class DUL(Correspondence):
    """Assigns cells to anchors consistently over time and views."""

    TrainingSettings = training_settings("dul")
    card = make_card(
        "dul",
        "DUL",
        "Dense unsupervised learning: cells are assigned to anchors of one frame, consistently "
        "over time and under a similarity transform.",
        "Araslanov, Schaub-Meyer, Roth: Dense Unsupervised Learning for Video Segmentation. "
        "NeurIPS 2021",
        140,
        "TrackingNet",
    )


@register_method("twiaa")
class TWIAA(Correspondence):
    """Cycles in time with attention over the template."""

    TrainingSettings = training_settings("twiaa")
    card = make_card(
        "twiaa",
        "TWIAA",
        f"Cycle consistency with attention over the parts of the template. {READING}",
        "Neurocomputing 2021, doi 10.1016/j.neucom.2021.04.090",
        1177,
        "VLOG and Kinetics",
        released=False,
    )


@register_method("stt")
class STT(Correspondence):
    """Spatial features first, then temporal ones, kept from forgetting by distillation."""

    TrainingSettings = training_settings("stt")
    card = make_card(
        "stt",
        "STT",
        "Spa-then-Temp: contrastive features of still images, then reconstruction of video with "
        "local and global correlation distillation.",
        "Li et al.: Spatial-then-Temporal Self-Supervised Learning for Video Correspondence. "
        "CVPR 2023",
        5.67,
        "ImageNet's images and YouTube-VOS",
        images=1_281_167,
    )
