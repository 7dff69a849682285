"""The recipe of an adaptation: one typed model holds every axis that can be ablated.

Names follow the literature. The paper's own hyper-parameters are not public; the defaults are ours.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from bench.method import MethodSettings

Tap = Literal[
    "embed", "enc1", "enc2", "enc3", "enc4", "neck", "dec", "logits", "prob", "ent", "temporal"
]
"""Places in a network where features are taken, named alike in all architectures.

``embed`` is the stem or patch embedding, ``enc1`` to ``enc4`` are the encoder's stages, ``neck``
the bottleneck before the classifier (ASPP, fused MLP, ...), ``dec`` the last map before the
classifier.
``logits``, ``prob`` and ``ent`` are the output: class scores, their softmax, and its weighted
self-information (ADVENT). ``temporal`` is what a 3D network's temporal module returns.
"""

OUTPUT_TAPS: tuple[str, ...] = ("logits", "prob", "ent")


class NetworkSettings(MethodSettings):
    """Which network is trained.

    Attributes:
        architecture: family; all are assembled from mmsegmentation's parts.
        size: of the family, a name in :data:`methods.adversarial.networks.SIZES`.
        encoder: a timm model that replaces the family's own encoder (DeepLabV3 only); None keeps
            it. ``tf_efficientnet_lite0`` has ImageNet weights in an installed package.
        initial: ``"imagenet"`` where a package carries such weights, else ``"random"``.
        time: how a clip's frames see each other: not at all, by kernels inflated in time, by
            temporal attention, or by shifting channels between neighbours.
        inflation: of a 2D kernel to 3D: only its centre slice, or the kernel shared out.
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


class DiscriminatorSettings(MethodSettings):
    """The network that tells images from video.

    Attributes:
        network: ``"token"`` judges positions on their own, ``"pixel"`` with their neighbours,
            ``"patch"`` and ``"patch3d"`` regions of output maps, ``"pair"`` regions of two
            adjacent frames' output maps (after DA-VSN; images need ``images_as`` camera paths).
        kind: ``"per_cluster"`` (one output per cluster), ``"shared_balanced"`` (one discriminator,
            domains balanced within clusters), ``"conditioned"`` (one, told the cluster),
            ``"joint2K"`` (one softmax over domain and cluster). Ignored by global losses.
        shared_trunk: whether ``"per_cluster"`` shares all but the output layer.
        width: of hidden layers.
        dropout: between hidden layers of ``"token"``.
        temperature: of the soft targets of ``"joint2K"``.
        clip: largest entry of these targets.
        penalty_weight: of the squared norm of its gradient in the features, for each position that
            it judges; 0 for none.
        penalty: whose gradient: ``"loss"``, the discriminator's (DomainBed), or ``"logit"``, that
            of its logit (R1).
    """

    network: Literal["token", "pixel", "patch", "patch3d", "pair"] = "token"
    kind: Literal["per_cluster", "shared_balanced", "conditioned", "joint2K"] = "per_cluster"
    shared_trunk: bool = True
    width: int = Field(default=256, ge=1)
    dropout: float = Field(default=0.5, ge=0, lt=1)
    temperature: float = Field(default=1.8, gt=0)
    clip: float = Field(default=0.9, gt=0, le=1)
    penalty_weight: float = Field(default=0.0, ge=0)
    penalty: Literal["loss", "logit"] = "loss"


class AlignmentSettings(MethodSettings):
    """An adversarial loss at one tap.

    Attributes:
        tap: where.
        loss: over all positions at once, or within clusters of them.
        weight: lambda's largest value.
        gate: where a position's share of a cluster enters: the ``"loss"`` of that cluster, which
            it weighs, or the ``"input"`` of that cluster's discriminator (MADA), for ``"token"``
            networks alone: in a map, the gates' outline would tell the domains apart.
        discriminator: the opponent.
    """

    tap: Tap
    loss: Literal["global", "clustered"] = "global"
    weight: float = Field(default=0.01, ge=0)
    gate: Literal["loss", "input"] = "loss"
    discriminator: DiscriminatorSettings = DiscriminatorSettings()

    @model_validator(mode="after")
    def _fits(self) -> AlignmentSettings:
        network, joint = self.discriminator.network, self.discriminator.kind == "joint2K"
        if self.loss == "clustered" and network in ("patch", "patch3d") and joint:
            raise ValueError("joint2K needs a token or pixel discriminator")
        if network == "pair" and (self.loss == "clustered" or self.tap not in OUTPUT_TAPS):
            raise ValueError(
                f"a pair discriminator needs the global loss and a tap among {OUTPUT_TAPS}; "
                "use token, pixel or patch for clusters and for features"
            )
        if self.gate == "input" and (self.loss == "global" or network != "token" or joint):
            raise ValueError(
                "gate=input needs the clustered loss and a token discriminator of another kind "
                "than joint2K; use gate=loss with others"
            )
        return self


class GameSettings(MethodSettings):
    """How network and discriminators play.

    Attributes:
        loss: ``"reversal"`` (DANN), ``"non_saturating"`` (AdaptSegNet), ``"least_squares"``, or
            ``"confusion"``.
        direction: which domain's features are moved: ``"both"``, or ``"video_to_image"``. None is
            the usual one: both for reversal and confusion, video to image for the others.
        schedule: of lambda over the training: DANN's, constant, or linear decay.
        start: share of the training before which lambda is 0.
        discriminator_learning_rate: of their Adam.
        label_smoothing: of the discriminators' domain targets.
    """

    loss: Literal["reversal", "non_saturating", "least_squares", "confusion"] = "reversal"
    direction: Literal["both", "video_to_image"] | None = None
    schedule: Literal["dann", "constant", "linear_decay"] = "dann"
    start: float = Field(default=0.1, ge=0, lt=1)
    discriminator_learning_rate: float = Field(default=1e-4, gt=0)
    label_smoothing: float = Field(default=0.0, ge=0, lt=0.5)


class ClusterSettings(MethodSettings):
    """What a cluster of features is.

    Attributes:
        features: that are clustered: the tap's own, those of a moving average of the network, of
            the network as it was at first, or of its embedding.
        how: ``"kmeans_epoch"`` (faiss on a bank of tokens at every refresh), ``"ema"`` (prototypes
            followed per step), ``"batch"`` (Lloyd steps inside a batch), ``"prediction"`` (the
            predicted class), ``"sinkhorn"``, ``"random"`` (control), ``"truth"`` (classes of both
            domains, an analysis, never a method).
        count: K.
        refresh: steps between k-means runs.
        bank: tokens that k-means sees, half of each domain.
        dimensions: of the PCA fitted once before clustering; None keeps all.
        center: subtract no mean, a joint one, or one per domain before k-means.
        assignment: ``"hard"``, ``"soft"``, or ``"margin"`` (hard, tokens near a border rejected).
        temperature: of soft assignments.
        margin: least difference of the two best cosines.
        clip: largest soft assignment; None for no limit.
        match: whether clusters keep their identity over a refresh (Hungarian matching).
        weighting: of clusters in the loss.
        fewest: tokens of each domain that a cluster needs in a batch to count.
        decay: of ``"ema"`` prototypes per step.
        teacher_decay: of the network's moving average per step.
        confidence: least probability of a ``"prediction"`` that counts.
        image_source: clusters of image tokens with ``"prediction"``: their labels or predictions.
    """

    features: Literal["self", "teacher", "frozen", "embed"] = "teacher"
    how: Literal["kmeans_epoch", "ema", "batch", "prediction", "sinkhorn", "random", "truth"] = (
        "kmeans_epoch"
    )
    count: int = Field(default=8, ge=1)
    refresh: int = Field(default=500, ge=1)
    bank: int = Field(default=32768, ge=64)
    dimensions: int | None = Field(default=64, ge=1)
    center: Literal["none", "joint", "per_domain"] = "none"
    assignment: Literal["hard", "soft", "margin"] = "hard"
    temperature: float = Field(default=0.1, gt=0)
    margin: float = Field(default=0.02, ge=0)
    clip: float | None = Field(default=None, gt=0, le=1)
    match: bool = True
    weighting: Literal["min", "uniform", "mass", "sqrt"] = "min"
    fewest: float = Field(default=32, ge=0)
    decay: float = Field(default=0.99, ge=0, lt=1)
    teacher_decay: float = Field(default=0.999, ge=0, lt=1)
    confidence: float = Field(default=0.0, ge=0, le=1)
    image_source: Literal["labels", "predictions"] = "labels"


class BatchNormSettings(MethodSettings):
    """What batch normalisation does with two domains.

    Attributes:
        mode: ``"frozen"`` (statistics and scale stay), ``"separate"`` (each domain by its own
            batch), ``"joint"`` (one batch), ``"per_domain"`` (own statistics for each).
        evaluation: statistics used at test; recorded with the weights: those of one domain, or of
            both (where a recipe sees one domain alone, that one's). ``"reestimated"`` are computed
            anew on the unlabelled videos after training (the control without training).
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
        clip_frames: T, frames of a clip.
        clip_stride: smallest and largest number of frames between them.
        images_as: clips for 3D networks and pair discriminators: copies, a single frame, or a
            smooth camera path.
        categories: names of a semantic head's classes, the first being class 1. Objects of other
            categories are background to it.
    """

    pairing: Literal[
        "image_video", "shuffled", "image_image", "video_video", "second_images", "sharpest"
    ] = "image_video"
    labelled_videos: float = Field(default=0.0, ge=0, le=1)
    used_videos: float = Field(default=1.0, gt=0, le=1)
    use_image_labels: bool = True
    clip_frames: int = Field(default=2, ge=1)
    clip_stride: tuple[int, int] = (1, 5)
    images_as: Literal["copies", "single", "camera_path"] = "camera_path"
    categories: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _labelled_are_used(self) -> DomainSettings:
        if self.labelled_videos > self.used_videos:
            raise ValueError(
                f"labelled_videos ({self.labelled_videos}) is above used_videos "
                f"({self.used_videos}); labelled videos are among those used"
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
        images: per step.
        clips: per step.
        tokens: judged per domain, tap and step at most.
        auxiliary_weight: of a second segmentation loss, on a head of its own at the encoder's last
            stage but one (AdaptSegNet: 0.1). The head is for training alone: exported weights are
            without it.
        entropy_weight: of entropy minimisation on video frames (ADVENT's MinEnt).
        pseudo_label_weight: of a moving average's confident predictions on video frames.
        pseudo_label_threshold: confidence from which on they count.
        pseudo_label_decay: of that moving average per step.
        pseudo_label_frame: whose prediction becomes a frame's label: its own, or that of the
            clip's frame before it, moved along optical flow (after TPS).
        learning_rate: of AdamW for the encoder.
        head_factor: by which heads and new modules learn faster.
        weight_decay: of AdamW.
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
    def in_pairs(self) -> bool:
        """Whether any discriminator looks at pairs of frames."""
        return any(alignment.discriminator.network == "pair" for alignment in self.alignments)
