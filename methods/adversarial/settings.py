"""The recipe of an adaptation: one typed model holds every axis that can be ablated.

Names follow the literature. The paper's own hyper-parameters are not public; the defaults are ours.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from bench.method import MethodSettings
from bench.training import OptimiserSettings
from methods.adversarial.adversary_settings import (
    AlignmentSettings,
    ClusterSettings,
    GameSettings,
)


class NetworkSettings(MethodSettings):
    """Which network is trained.

    Attributes:
        architecture: family; all are assembled from mmsegmentation's parts.
        size: of the family, a name in :data:`methods.adversarial.networks.SIZES`.
        encoder: what replaces the family's own encoder (DeepLabV3 only); None keeps it. A timm
            model (``tf_efficientnet_lite0`` has ImageNet weights in an installed package), or
            ``correspondence_`` and the name of a correspondence system's encoder, for comparisons
            on one encoder.
        initial: ``"imagenet"`` where a package carries such weights, else ``"random"``.
        time: how a clip's frames see each other: not at all, by kernels inflated in time, by
            temporal attention, or by shifting channels between neighbours.
        inflation: of a 2D kernel to 3D: only its centre slice, or the kernel shared out. Without
            ``time`` = ``"inflate"`` it says nothing.
        head: ``"foreground"`` (two classes), ``"semantic"``, or ``"both"`` on one decoder.
        classes: of the semantic head, background included.
    """

    architecture: Literal["deeplabv3", "segformer", "segmenter", "swin"] = "segformer"
    size: str = "tiny"
    encoder: str | None = None
    initial: Literal["imagenet", "random"] = "random"
    time: Literal["none", "inflate", "attention", "shift"] = "none"
    inflation: Literal["center", "mean"] = "center"
    head: Literal["foreground", "semantic", "both"] = "foreground"
    classes: int = Field(default=2, ge=2)


class BatchNormSettings(MethodSettings):
    """What batch normalisation does with two domains.

    Attributes:
        mode: ``"frozen"`` (statistics and scale stay where they are pretrained: those of the whole
            network where a training starts from weights, of the encoder with
            ``network.initial`` = ``"imagenet"``; the rest as in ``"separate"``), ``"separate"``
            (each domain by its own batch), ``"joint"`` (one batch), ``"per_domain"`` (own
            statistics for each).
        evaluation: statistics used at test: those of one domain, or of both (where a recipe sees
            one domain alone, that one's; :func:`methods.adversarial.domains.statistics_at_test`
            says which it came to). ``"joint"`` has those of both in any case, and what is frozen
            keeps its own: others can be asked for only where they can be had. ``"reestimated"``
            are computed anew on the unlabelled videos after training, whatever the mode (the
            control without training).
    """

    mode: Literal["frozen", "separate", "joint", "per_domain"] = "separate"
    evaluation: Literal["image", "video", "moving_average", "reestimated"] = "image"


class AugmentationSettings(MethodSettings):
    """What happens to images and frames alike: one distribution for both domains.

    Attributes:
        crop: side of the square in pixels.
        scale: area of the crop as a share of the image's, smallest and largest.
        flip: probability.
        colour: strength of brightness, contrast and saturation jitter.
        video_like: probability of each of motion blur, low resolution, compression and darkening
            on labelled images (the row "source with video-like augmentation"); 0 elsewhere.
    """

    crop: int = Field(default=128, ge=16)
    scale: tuple[float, float] = (0.35, 1.0)
    flip: float = Field(default=0.5, ge=0, le=1)
    colour: float = Field(default=0.3, ge=0)
    video_like: float = Field(default=0.0, ge=0, le=1)


class DomainSettings(MethodSettings):
    """What the two domains are: the real ones, or a control that must show no effect.

    Attributes:
        pairing: ``"image_video"`` (real), ``"shuffled"`` (random domain labels), ``"image_image"``
            and ``"video_video"`` (one domain in two halves, labels as ever), ``"second_images"``
            (the last image dataset named is the target, unlabelled), ``"sharpest"`` (each video's
            sharpest frame as target).
        labelled_videos: share of the videos whose masks may be trained on (few labels); 0 for
            none, 1 for all of them. A larger share contains the smaller one's videos.
        used_videos: share of the videos that are looked at at all, the labelled ones among them. A
            larger share contains the smaller one's videos.
        use_image_labels: False leaves images unlabelled (the oracle on video labels alone).
        image_masks: images' masks: those that people drew, or pseudo-masks, for a foreground head:
            what a saliency detector finds (SHLS's, made without labels). No human mask of an image
            is looked at then, not for the score of held-out images either.
        video_sampling: whether all videos are equally likely to be drawn, or each in proportion to
            its number of frames.
        clip_frames: T, frames of a clip.
        clip_stride: smallest and largest number of frames between them.
        images_as: clips for 3D networks and pair discriminators: copies, a single frame, or a
            smooth camera path; stills that are targets, too. With a 2D network and without pairs
            every image is a single frame, whatever this says.
        categories: names of a semantic head's classes, the first being class 1. Objects of other
            categories are background to it.
    """

    pairing: Literal[
        "image_video", "shuffled", "image_image", "video_video", "second_images", "sharpest"
    ] = "image_video"
    labelled_videos: float = Field(default=0.0, ge=0, le=1)
    used_videos: float = Field(default=1.0, gt=0, le=1)
    use_image_labels: bool = True
    image_masks: Literal["human", "saliency"] = "human"
    video_sampling: Literal["uniform", "length"] = "uniform"
    clip_frames: int = Field(default=2, ge=1)
    clip_stride: tuple[int, int] = (1, 5)
    images_as: Literal["copies", "single", "camera_path"] = "camera_path"
    categories: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _labelled_are_used(self) -> DomainSettings:
        if self.labelled_videos > self.used_videos:
            raise ValueError(
                f"labelled_videos ({self.labelled_videos}) is above used_videos "
                f"({self.used_videos}); labelled videos are among those used: raise used_videos or "
                "lower labelled_videos"
            )
        return self


class AdaptationSettings(MethodSettings):
    """How ``adv`` is trained: the row of the table, in full.

    Attributes:
        alignments: adversarial losses; empty for source only.
        game: how they are played.
        clusters: for clustered losses.
        batch_norm: what it does with two domains.
        augmentation: of both domains.
        domains: what they are.
        images: per step and process.
        clips: per step and process.
        tokens: judged per domain, tap, step and process at most, by discriminators of tokens;
            those of maps (``"pixel"``, ``"patch"``, ``"patch3d"``, ``"pair"``) judge all of them.
        auxiliary_weight: of a second segmentation loss, on a head of its own at the encoder's last
            stage but one (AdaptSegNet: 0.1). The head is for training alone: exported weights are
            without it. Its output can be aligned, at ``aux_logits``, ``aux_prob`` and ``aux_ent``.
        entropy_weight: of entropy minimisation on video frames (ADVENT's MinEnt).
        pseudo_label_weight: of a moving average's confident predictions on video frames.
        pseudo_label_threshold: confidence from which on they count.
        pseudo_label_decay: of that moving average per step.
        pseudo_label_frame: whose prediction becomes a frame's label: its own, or that of the
            clip's frame before it, moved along optical flow (after TPS).
        learning_rate: of the encoder.
        head_factor: by which heads and new modules learn faster.
        weight_decay: of the network.
        optimiser: of the network, and how all learning rates fall. Discriminators have Adam.
        clip_gradient: largest gradient norm of the segmentation network.
        held_out: images never trained on, for the curve.
        split_seed: which images these are.
        validate_every: steps between validations.
        memory: megabytes of decoded images and frames that a process keeps.
        short_side: images and frames are scaled to it when they are decoded; None keeps them.
    """

    alignments: tuple[AlignmentSettings, ...] = ()
    game: GameSettings = GameSettings()
    clusters: ClusterSettings = ClusterSettings()
    batch_norm: BatchNormSettings = BatchNormSettings()
    augmentation: AugmentationSettings = AugmentationSettings()
    domains: DomainSettings = DomainSettings()
    images: int = Field(default=8, ge=1)
    clips: int = Field(default=4, ge=1)
    tokens: int = Field(default=4096, ge=1)
    auxiliary_weight: float = Field(default=0.0, ge=0)
    entropy_weight: float = Field(default=0.0, ge=0)
    pseudo_label_weight: float = Field(default=0.0, ge=0)
    pseudo_label_threshold: float = Field(default=0.968, ge=0, le=1)
    pseudo_label_decay: float = Field(default=0.99, ge=0, lt=1)
    pseudo_label_frame: Literal["same", "previous"] = "same"
    learning_rate: float = Field(default=3e-4, gt=0)
    head_factor: float = Field(default=1.0, gt=0)
    weight_decay: float = Field(default=0.01, ge=0)
    optimiser: OptimiserSettings = OptimiserSettings()
    clip_gradient: float = Field(default=1.0, gt=0)
    held_out: int = Field(default=100, ge=1)
    split_seed: int = 0
    validate_every: int = Field(default=250, ge=1)
    memory: int = Field(default=1024, ge=0)
    short_side: int | None = Field(default=None, ge=16)

    @property
    def clustered(self) -> bool:
        """Whether any alignment works within clusters."""
        return any(alignment.loss == "clustered" for alignment in self.alignments)

    @property
    def by_disagreement(self) -> bool:
        """Whether any alignment weighs positions by the disagreement of two classifiers."""
        return any(alignment.disagreement is not None for alignment in self.alignments)

    @property
    def in_pairs(self) -> bool:
        """Whether any discriminator looks at pairs of frames."""
        return any(alignment.discriminator.network == "pair" for alignment in self.alignments)
