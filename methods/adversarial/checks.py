"""Recipes that cannot mean anything, refused before anything is opened or built."""

from __future__ import annotations

from bench.errors import ConfigError
from methods.adversarial.discriminators import PATCH_STRIDE, REGIONS
from methods.adversarial.domains import needed
from methods.adversarial.settings import AdaptationSettings, NetworkSettings
from methods.adversarial.taps import AUXILIARY_TAPS, is_output

STILL = ("second_images", "sharpest")
"""Pairings whose targets are no videos."""

HALVED = ("shuffled", "image_image", "video_video")
"""Pairings that need two of a kind in every step."""


def check(network: NetworkSettings, settings: AdaptationSettings, started: bool = False) -> None:
    """Refuse recipes that cannot mean anything.

    Args:
        network: that is trained.
        settings: the recipe.
        started: whether the training starts from weights of the whole network.

    Raises:
        ConfigError: says which setting.
    """
    _check_labels(network, settings)
    _check_clips(network, settings)
    _check_batch_norm(network, settings, started)
    _check_clusters(network, settings)
    _check_regions(settings)
    _check_pairs(settings)
    _check_auxiliary_taps(settings)
    _check_pseudo_labels(settings)
    _check_video_is_seen(settings)
    if settings.domains.pairing in HALVED and min(settings.images, settings.clips) < 2:
        raise ConfigError(
            "training.images",
            f"{settings.images} images and {settings.clips} clips per step",
            f"at least 2 of each with domains.pairing={settings.domains.pairing}",
            "Raise them.",
        )


def _check_labels(network: NetworkSettings, settings: AdaptationSettings) -> None:
    domains = settings.domains
    if not domains.use_image_labels and domains.labelled_videos == 0:
        raise ConfigError(
            "training.domains.labelled_videos",
            "0 without image labels",
            "labels of images or of videos",
            "Set it, or use_image_labels.",
        )
    if domains.image_masks == "saliency" and network.head != "foreground":
        raise ConfigError(
            "training.domains.image_masks",
            f"saliency with network.head={network.head}",
            "a foreground head: a detector finds objects, not their classes",
            "Set network.head to foreground, or training.domains.image_masks to human.",
        )
    if network.head != "foreground" and len(domains.categories) + 1 != network.classes:
        raise ConfigError(
            "training.domains.categories",
            f"{len(domains.categories)} names",
            f"{network.classes - 1}, one for each of network.classes but the background",
            "Name the classes, or set network.classes.",
        )


def _check_clips(network: NetworkSettings, settings: AdaptationSettings) -> None:
    """Networks and discriminators that see whole clips."""
    clips = network.time != "none" and settings.domains.clip_frames > 1
    still = clips and settings.domains.images_as == "single"
    if still and settings.batch_norm.mode == "joint":
        raise ConfigError(
            "training.domains.images_as",
            "single frames beside clips in one batch",
            "camera_path or copies with batch_norm.mode=joint",
            "Change either.",
        )
    patch3d = any(one.discriminator.network == "patch3d" for one in settings.alignments)
    if patch3d and (not clips or still):
        raise ConfigError(
            "training.alignments",
            "a patch3d discriminator without clips of images",
            "network.time and clips of both domains",
            "Use another discriminator, or a network over clips.",
        )


def _check_batch_norm(
    network: NetworkSettings, settings: AdaptationSettings, started: bool
) -> None:
    """Statistics that are kept have to be worth it, and those asked for have to exist."""
    mode, evaluation = settings.batch_norm.mode, settings.batch_norm.evaluation
    if mode == "frozen" and network.initial == "random" and not started:
        raise ConfigError(
            "training.batch_norm.mode",
            "frozen, with network.initial=random and no weights to start from",
            "statistics of pretrained weights, which is what can be frozen",
            "Set network.initial to imagenet, name weights to start from, or use another mode.",
        )
    fixed = mode == "joint" or (mode == "frozen" and started)
    if fixed and evaluation in ("video", "moving_average"):
        kept = "those of both domains" if mode == "joint" else "those of the weights to start from"
        raise ConfigError(
            "training.batch_norm.evaluation",
            f"{evaluation} with batch_norm.mode={mode}, which has {kept} in any case",
            "image (the default, which says nothing there) or reestimated",
            "Leave it out, or use another mode.",
        )
    unseen = {"image": (0,), "video": (1,), "moving_average": (0, 1)}.get(evaluation, ())
    if mode == "per_domain" and any(needed(settings)[domain] == 0 for domain in unseen):
        raise ConfigError(
            "training.batch_norm.evaluation",
            f"{evaluation} with batch_norm.mode=per_domain, where a domain has no samples",
            "the domain that the recipe looks at, or a mode with one set of statistics",
            "Set batch_norm.mode to separate.",
        )


def _check_clusters(network: NetworkSettings, settings: AdaptationSettings) -> None:
    """Clusters that are classes are as many as these."""
    clusters = settings.clusters
    classes = 2 if network.head == "foreground" else network.classes
    if not settings.clustered or clusters.how not in ("truth", "prediction"):
        return
    if clusters.count != classes:
        raise ConfigError(
            "training.clusters.count",
            f"{clusters.count} with clusters.how={clusters.how}",
            f"{classes}, the number of classes that the network tells apart",
            f"Set it to {classes}, or use clusters that are not classes.",
        )


def _check_regions(settings: AdaptationSettings) -> None:
    """Output maps have the crop's size, which has to hold a region."""
    crop = settings.augmentation.crop
    for one in settings.alignments:
        if one.discriminator.network in REGIONS and is_output(one.tap) and crop < PATCH_STRIDE:
            raise ConfigError(
                "training.augmentation.crop",
                f"{crop} with a {one.discriminator.network} discriminator at {one.tap}",
                f"at least {PATCH_STRIDE}, one of its regions",
                "Raise it, or use a pixel or token discriminator.",
            )


def _check_pairs(settings: AdaptationSettings) -> None:
    """Copies of an image have no motion, which would tell the domains apart."""
    domains = settings.domains
    paired = domains.images_as == "camera_path" and domains.clip_frames > 1
    if settings.in_pairs and not paired:
        raise ConfigError(
            "training.alignments",
            f"a pair discriminator with domains.clip_frames={domains.clip_frames} and "
            f"domains.images_as={domains.images_as}",
            "two frames or more of both domains, images as a moving camera would see them",
            "Set domains.clip_frames to 2 or more and domains.images_as to camera_path, or use a "
            "patch discriminator.",
        )


def _check_auxiliary_taps(settings: AdaptationSettings) -> None:
    """The auxiliary head exists where it is trained, and copies of the network have none."""
    if settings.by_disagreement and settings.auxiliary_weight == 0:
        raise ConfigError(
            "training.auxiliary_weight",
            "0 with an alignment by the disagreement of two classifiers",
            "a weight above 0, without which there is no second classifier",
            "Set training.auxiliary_weight (0.1 is usual), or leave out disagreement.",
        )
    found = [one for one in settings.alignments if one.tap in AUXILIARY_TAPS]
    if found and settings.auxiliary_weight == 0:
        raise ConfigError(
            "training.auxiliary_weight",
            f"0 with an alignment at {found[0].tap}",
            "a weight above 0, without which there is no auxiliary head",
            "Set training.auxiliary_weight (AdaptSegNet has 0.1), or align another tap.",
        )
    clustered = [one for one in found if one.loss == "clustered"]
    if clustered and settings.clusters.features in ("teacher", "frozen"):
        raise ConfigError(
            "training.clusters.features",
            f"{settings.clusters.features} with clusters at {clustered[0].tap}",
            "self or embed: a copy of the network has no auxiliary head",
            "Set training.clusters.features to self or embed, or use the global loss there.",
        )


def _check_pseudo_labels(settings: AdaptationSettings) -> None:
    domains = settings.domains
    if settings.pseudo_label_weight == 0 or settings.pseudo_label_frame == "same":
        return
    if domains.clip_frames < 2 or domains.pairing in STILL:
        raise ConfigError(
            "training.pseudo_label_frame",
            f"previous, with domains.clip_frames={domains.clip_frames} and "
            f"domains.pairing={domains.pairing}",
            "clips of videos, of two frames or more",
            "Set domains.clip_frames to 2 or more and a pairing with videos, or "
            "pseudo_label_frame to same.",
        )


def _check_video_is_seen(settings: AdaptationSettings) -> None:
    """Losses and labels on video need a pairing that has video."""
    domains = settings.domains
    wanted = settings.entropy_weight or settings.pseudo_label_weight or domains.labelled_videos
    if domains.pairing == "image_image" and wanted:
        raise ConfigError(
            "training.domains.pairing",
            "image_image, which looks at no video",
            "no loss and no labels on video",
            "Set entropy_weight, pseudo_label_weight and labelled_videos to 0, or another pairing.",
        )
    if domains.pairing == "second_images" and domains.labelled_videos:
        raise ConfigError(
            "training.domains.labelled_videos",
            f"{domains.labelled_videos} with images in the place of videos",
            "0 with domains.pairing=second_images",
            "Set it to 0, or another pairing.",
        )
