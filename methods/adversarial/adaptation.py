"""A segmentation network that learns from labelled images while it adapts to unlabelled video.

After "Learning from labeled images and unlabeled videos for video segmentation" (submission to ICLR
2023): adversarial losses at several places of the network make features of images and video alike,
within clusters of them so that what tells classes apart survives. One step is one backward pass
over supervision, discriminators, and whatever else is asked for.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from bench.errors import ConfigError
from methods.adversarial.aligned_tap import AlignedTap, Side
from methods.adversarial.data import IMAGE, VIDEO, Part, Step
from methods.adversarial.games import schedule
from methods.adversarial.monitoring import Monitoring
from methods.adversarial.networks import Output, SegmentationNetwork, apply_mode, set_domain
from methods.adversarial.networks.batch_norm import batch_norms
from methods.adversarial.objectives import (
    entropy_loss,
    foreground_iou,
    foreground_loss,
    pseudo_label_loss,
    segmentation_loss,
)
from methods.adversarial.settings import AdaptationSettings
from methods.adversarial.teacher import Copy, MovingAverage
from methods.correspondence.pretext.clips import Normalise

SEED_STRIDE = 1_000_003
"""Seeds of a training's steps lie this far from those of the next training's."""


class Seen(NamedTuple):
    """One domain's share of a step after the network: maps of B T frames, clip-major.

    Attributes:
        frames: float ``(B, T, 3, H, W)``, normalised.
        part: where they come from.
        output: of the network.
    """

    frames: Tensor
    part: Part
    output: Output

    def per_frame(self, values: Tensor) -> Tensor:
        """Values ``(B,)`` of clips as those of their frames ``(B T,)``."""
        return values.repeat_interleave(self.frames.shape[1])


class Adaptation(nn.Module):
    """What is trained, and everything that a resumed training has to remember.

    Args:
        network: is trained; its batch normalisation is prepared here.
        settings: the recipe.
        seed: of dropout, sampled tokens and clusters.
        monitoring: is told monitors and alarms; None keeps them to itself.

    Raises:
        ConfigError: an alignment at a tap that the network has not, or two alike.
    """

    def __init__(
        self,
        network: SegmentationNetwork,
        settings: AdaptationSettings,
        seed: int = 0,
        monitoring: Monitoring | None = None,
    ) -> None:
        super().__init__()
        apply_mode(network, settings.batch_norm.mode)
        self.network = network
        self.settings = settings
        self.seed = seed
        self.monitoring = monitoring or Monitoring(None)
        self.normalise = Normalise()
        self.taps = nn.ModuleList(self._aligned_taps())
        clusters = settings.clusters
        # What clusters are made of, where that is not the network's own features.
        self.reference: Copy | None = None
        if settings.clustered and clusters.features == "teacher":
            self.reference = MovingAverage(network, clusters.teacher_decay)
        elif settings.clustered and clusters.features == "frozen":
            self.reference = Copy(network)
        self.teacher: MovingAverage | None = None
        if settings.pseudo_label_weight > 0:
            self.teacher = MovingAverage(network, settings.pseudo_label_decay)
        self.spent = 0.0
        self.step = 0

    def _aligned_taps(self) -> Iterator[AlignedTap]:
        channels = self.network.channels
        names = [(one.tap, one.loss) for one in self.settings.alignments]
        for number, one in enumerate(self.settings.alignments):
            if one.tap not in channels or names.count(names[number]) > 1:
                raise ConfigError(
                    f"training.alignments.{number}.tap",
                    f"{one.tap}, unknown to the network or named twice",
                    f"different taps among {', '.join(channels)}",
                    "Correct it; 'temporal' needs a network with network.time.",
                )
            source = "embed" if self.settings.clusters.features == "embed" else one.tap
            # Discriminators' weights depend on the seed alone, not on what was built before.
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(self.seed + number)
                yield AlignedTap(
                    one,
                    self.settings,
                    channels[one.tap],
                    channels[source],
                    channels["logits"],
                    self.seed + number,
                )

    def progress(self, spent: float, step: int) -> None:
        """Hear how far the training is; called before every step.

        Args:
            spent: share of the budget.
            step: number of steps done.
        """
        self.spent = spent
        self.step = step
        self.monitoring.begin(step)

    def forward(self, step: Step) -> dict[str, Tensor]:
        """Losses of one step by name; their sum is minimised."""
        # Dropout and sampling depend on the step alone, so that a resumed training repeats them.
        torch.manual_seed(self.seed * SEED_STRIDE + self.step)
        for average in (self.reference, self.teacher):
            if isinstance(average, MovingAverage):
                average.follow(self.network)
        images, clips = self._see(step)
        losses = {"segmentation": self._supervised(images, clips)}
        if clips is not None:
            losses |= self._on_video(clips)
        for tap, sides in self._sides(images, clips):
            size = (step.images.frames.shape[-2], step.images.frames.shape[-1])
            strength = schedule(self.settings.game.schedule, self.settings.game.start, self.spent)
            result = tap(sides, strength, self.step, size, self.monitoring)
            losses[f"discriminator_{tap.name}"] = result.discriminator_loss
            losses[f"network_{tap.name}"] = result.network_loss
        return losses

    # ------------------------------------------------------------------------- forward passes

    def _see(self, step: Step) -> tuple[Seen | None, Seen | None]:
        """Run the network on both domains as the mode of batch normalisation says."""
        parts = [part if len(part.frames) else None for part in step]
        frames = [None if part is None else self.normalise(part.frames) for part in parts]
        image, video = frames
        if self.settings.batch_norm.mode == "joint" and image is not None and video is not None:
            outputs = self._joint(image, video)
        else:
            alone = image is None or video is None
            outputs = [
                None if one is None else self._forward(one, domain, alone)
                for domain, one in enumerate(frames)
            ]
        seen = [
            None if f is None or part is None or output is None else Seen(f, part, output)
            for f, part, output in zip(frames, parts, outputs, strict=True)
        ]
        return seen[IMAGE], seen[VIDEO]

    @property
    def _tap_names(self) -> list[str]:
        names = [tap.settings.tap for tap in self._taps()]
        if self.settings.clustered and self.settings.clusters.features == "embed":
            names.append("embed")
        return list(dict.fromkeys(names))

    def _forward(self, frames: Tensor, domain: int, alone: bool) -> Output:
        """Run the network on one domain; statistics follow it if they are wanted at test.

        Where a recipe has one domain alone, they follow that one.
        """
        set_domain(self.network, domain)
        unwanted = {"image": VIDEO, "video": IMAGE}.get(self.settings.batch_norm.evaluation)
        ignored = domain == unwanted and not alone
        with still_statistics(self.network, ignored):
            output: Output = self.network(frames, self._tap_names)
        return output

    def _joint(self, image: Tensor, video: Tensor) -> list[Output | None]:
        """Both domains in one batch. Frames of a network that sees one at a time are clips of 1."""
        if self.network.settings.time == "none":
            image, video = image.flatten(0, 1)[:, None], video.flatten(0, 1)[:, None]
        output: Output = self.network(torch.cat([image, video]), self._tap_names)
        count = image.shape[0] * image.shape[1]
        return [take(output, slice(count)), take(output, slice(count, None))]

    def main_logits(self, output: Output) -> Tensor:
        """Logits of the head that output taps belong to."""
        logits = output.semantic if self.network.main == "semantic" else output.foreground
        assert logits is not None
        return logits

    def main_labels(self, part: Part) -> Tensor:
        """Labels ``(B T, H, W)`` of that head."""
        labels = part.classes if self.network.main == "semantic" else part.foreground
        return labels.flatten(0, 1)

    # --------------------------------------------------------------------------------- losses

    def _supervised(self, *domains: Seen | None) -> Tensor:
        """Segmentation loss over all frames whose labels may be trained on."""
        seen = [domain for domain in domains if domain is not None]
        total = torch.zeros((), device=seen[0].frames.device)
        if seen[0].output.foreground is not None:
            total = total + foreground_loss(*_labelled(seen, "foreground", "foreground"))
        if seen[0].output.semantic is not None:
            total = total + segmentation_loss(*_labelled(seen, "semantic", "classes"))
        return total

    def _on_video(self, clips: Seen) -> dict[str, Tensor]:
        """Losses on unlabelled frames that need no opponent."""
        losses = {}
        logits = self.main_logits(clips.output)
        if self.settings.entropy_weight > 0:
            losses["entropy"] = self.settings.entropy_weight * entropy_loss(logits)
        if self.teacher is not None:
            with torch.no_grad():
                set_domain(self.teacher.network, VIDEO)
                taught = self.main_logits(self.teacher.network(clips.frames))
            loss = pseudo_label_loss(logits, taught, self.settings.pseudo_label_threshold)
            losses["pseudo_label"] = self.settings.pseudo_label_weight * loss
        return losses

    # ------------------------------------------------------------------------------ alignment

    def _taps(self) -> list[AlignedTap]:
        return list(self.taps)  # type: ignore[arg-type]

    def _sides(self, *parts: Seen | None) -> Iterator[tuple[AlignedTap, tuple[Side, Side]]]:
        """For each alignment, what is taken for images and what for video."""
        if not self._taps():
            return
        seen = [one for one in parts if one is not None]
        references = [
            self._reference_maps(one, domain) for domain, one in enumerate(parts) if one is not None
        ]
        domains = torch.cat([one.per_frame(one.part.domains) for one in seen])
        labels = torch.cat([self.main_labels(one.part) for one in seen])
        probabilities = _together([one.probabilities for one in references])
        for tap in self._taps():
            name = tap.settings.tap
            maps = (
                torch.cat([one.output.taps[name] for one in seen]),
                _together([one.maps.get(name) for one in references]),
                labels,
                probabilities,
            )
            yield tap, (_side(maps, domains == IMAGE), _side(maps, domains == VIDEO))

    @torch.no_grad()
    def _reference_maps(self, seen: Seen, domain: int) -> ReferenceMaps:
        """What clusters are made of: the network's own maps, or those of its copy."""
        taps: list[str] = [t.settings.tap for t in self._taps() if t.clusters is not None]
        predicted = self.settings.clusters.how == "prediction"
        if self.reference is None:
            own = seen.output.taps
            embed = self.settings.clusters.features == "embed"
            maps = {tap: own["embed" if embed else tap].detach() for tap in taps}
            logits = self.main_logits(seen.output).detach()
            return ReferenceMaps(maps, logits.softmax(1) if predicted else None)
        network: Any = self.reference.network
        set_domain(network, domain)
        if len(taps) == 1 and not predicted:  # no need to run what lies behind the tap
            return ReferenceMaps({taps[0]: network.features(seen.frames, taps[0])}, None)
        output = network(seen.frames, taps)
        return ReferenceMaps(output.taps, self.main_logits(output).softmax(1))

    # ----------------------------------------------------------------------------- validation

    def validate(self, part: Part) -> list[float]:
        """Intersection over union of the foreground, per held-out image."""
        set_domain(self.network, IMAGE)
        output = self.network(self.normalise(part.frames))
        logits = output.foreground if output.foreground is not None else output.semantic
        return foreground_iou(logits, part.foreground.flatten(0, 1))

    def notes(self) -> dict[str, Any]:
        """Alarms, latest monitors, and how often each alignment was skipped."""
        skipped = {tap.name: int(tap.skipped) for tap in self._taps()}
        return self.monitoring.notes() | {"skipped_steps": skipped}


def _labelled(seen: Sequence[Seen], head: str, labels: str) -> tuple[Tensor, Tensor]:
    """Logits ``(N, C, H, W)`` and labels ``(N, H, W)`` of the frames with labels to train on."""
    rows = [one.per_frame(one.part.supervised) for one in seen]
    logits = [getattr(one.output, head)[chosen] for one, chosen in zip(seen, rows, strict=True)]
    targets = [
        getattr(one.part, labels).flatten(0, 1)[chosen]
        for one, chosen in zip(seen, rows, strict=True)
    ]
    return torch.cat(logits), torch.cat(targets)


class ReferenceMaps(NamedTuple):
    """Maps by tap that clusters are made of, and class probabilities where these are."""

    maps: Mapping[str, Tensor]
    probabilities: Tensor | None


def _together(maps: Sequence[Tensor | None]) -> Tensor | None:
    """Maps of both domains in one batch; None where there are none."""
    present = [one for one in maps if one is not None]
    return torch.cat(present) if present else None


def _side(maps: Sequence[Tensor | None], rows: Tensor) -> Side:
    """The rows of one domain of each of a :class:`Side`'s fields."""
    features, clustered, labels, probabilities = (None if m is None else m[rows] for m in maps)
    assert features is not None
    assert labels is not None
    return Side(features, clustered, labels, probabilities)


def take(output: Output, rows: slice) -> Output:
    """An output's frames from one number to another."""
    return Output(
        None if output.foreground is None else output.foreground[rows],
        None if output.semantic is None else output.semantic[rows],
        {name: maps[rows] for name, maps in output.taps.items()},
    )


@contextmanager
def still_statistics(network: nn.Module, still: bool) -> Iterator[None]:
    """Keep running statistics of batch normalisation where they are, during forward passes.

    Args:
        network: whose batches are normalised as ever.
        still: False does nothing.
    """
    norms = batch_norms(network) if still else []
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
