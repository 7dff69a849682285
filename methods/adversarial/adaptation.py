"""A segmentation network that learns from labelled images while it adapts to unlabelled video.

After "Learning from labeled images and unlabeled videos for video segmentation" (submission to ICLR
2023): adversarial losses at several places of the network make features of images and video alike,
within clusters of them so that what tells classes apart survives. One step is one backward pass
over supervision, discriminators, and whatever else is asked for.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from bench.errors import ConfigError
from methods.adversarial.aligned_tap import AlignedTap, Side
from methods.adversarial.data import IMAGE, VIDEO, Part, Step
from methods.adversarial.disagreement import disagreement
from methods.adversarial.flow import moved_to_next_frame
from methods.adversarial.games import AlignmentResult, discriminators_alone
from methods.adversarial.monitoring import Monitoring
from methods.adversarial.networks import Output, SegmentationNetwork, apply_mode, set_domain
from methods.adversarial.objectives import entropy_loss, foreground_iou, pseudo_label_loss
from methods.adversarial.passes import Seen, left_unchanged, see
from methods.adversarial.processes import rank, world_size
from methods.adversarial.reversal import schedule
from methods.adversarial.settings import AdaptationSettings
from methods.adversarial.supervision import (
    AUXILIARY_TAP,
    AuxiliaryHead,
    auxiliary_loss,
    supervised_loss,
    with_auxiliary,
)
from methods.adversarial.taps import AUXILIARY_TAPS
from methods.adversarial.teacher import Copy, MovingAverage
from methods.clips import Normalise

SEED_STRIDE = 1_000_003
"""Seeds of a training's steps lie this far from those of the next training's."""

RANK_STRIDE = 1_000_000_007
"""Those of a process's steps lie this far from those of the next process's."""


class Adaptation(nn.Module):
    """What is trained, and everything that a resumed training has to remember.

    Args:
        network: is trained; its batch normalisation is prepared here.
        settings: the recipe.
        seed: of dropout, sampled tokens and clusters.
        monitoring: is told monitors and alarms; None keeps them to itself.
        pretrained: the part of the network whose batch normalisation can be frozen; None is all.

    Raises:
        ConfigError: an alignment at a tap that the network has not, or two alike.
    """

    def __init__(
        self,
        network: SegmentationNetwork,
        settings: AdaptationSettings,
        seed: int = 0,
        monitoring: Monitoring | None = None,
        pretrained: nn.Module | None = None,
    ) -> None:
        super().__init__()
        apply_mode(network, settings.batch_norm.mode, pretrained)
        self.network = network
        self.settings = settings
        self.seed = seed
        self.monitoring = monitoring or Monitoring(None)
        self.normalise = Normalise()
        self.taps = nn.ModuleList(self._aligned_taps())
        # What clusters are made of, where that is not the network's own features.
        self.reference: Copy | None = None
        if settings.clustered and settings.clusters.features == "teacher":
            self.reference = MovingAverage(network, settings.clusters.teacher_decay)
        elif settings.clustered and settings.clusters.features == "frozen":
            self.reference = Copy(network)
        self.teacher: MovingAverage | None = None
        if settings.pseudo_label_weight > 0:
            self.teacher = MovingAverage(network, settings.pseudo_label_decay)
        self.auxiliary: AuxiliaryHead | None = None
        if settings.auxiliary_weight > 0:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                self.auxiliary = AuxiliaryHead(network)
        self.spent, self.step = 0.0, 0

    def _aligned_taps(self) -> Iterator[AlignedTap]:
        channels = dict(self.network.channels)
        if self.settings.auxiliary_weight > 0:
            channels |= dict.fromkeys(AUXILIARY_TAPS, channels["logits"])
        names = [(one.tap, one.loss) for one in self.settings.alignments]
        for number, one in enumerate(self.settings.alignments):
            if one.tap not in channels or names.count(names[number]) > 1:
                raise ConfigError(
                    f"training.alignments.{number}.tap",
                    f"{one.tap}, unknown to the network or named twice",
                    f"different taps among {', '.join(channels)}",
                    "Correct it; 'temporal' needs a network with network.time, taps of the "
                    "auxiliary head need training.auxiliary_weight.",
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
        """Losses of one step by name; their sum is minimised.

        Where it is the discriminators' turn alone there are no others than theirs.
        """
        # Dropout and sampling depend on the step alone, so that a resumed training repeats them.
        torch.manual_seed(self.seed * SEED_STRIDE + self.step + rank() * RANK_STRIDE)
        if self._taps() and discriminators_alone(self.settings.game, self.spent, self.step):
            return self._discriminator_losses(step)
        for average in (self.reference, self.teacher):
            if isinstance(average, MovingAverage):
                average.follow(self.network)
        images, clips = self._see(step)
        losses = {"segmentation": supervised_loss([images, clips])}
        if self.auxiliary is not None:
            images, clips = self._see_auxiliary(self.auxiliary, images, clips)
            losses["auxiliary"] = self.settings.auxiliary_weight * auxiliary_loss([images, clips])
        if clips is not None:
            losses |= self._on_video(clips)
        for tap, sides in self._sides(images, clips):
            result = self._play(tap, sides, step)
            losses[f"discriminator_{tap.name}"] = result.discriminator_loss
            losses[f"network_{tap.name}"] = result.network_loss
        return losses

    def _discriminator_losses(self, step: Step) -> dict[str, Tensor]:
        """Losses of the discriminators on features that stay as they are.

        Clusters go on as in any step. Nothing else changes: neither the network nor its statistics,
        its moving averages, or the auxiliary head.
        """
        seeing = [self.network] if self.auxiliary is None else [self.network, self.auxiliary]
        with left_unchanged(seeing):
            images, clips = self._see(step)
            if self.auxiliary is not None and (
                self._auxiliary_taps or self.settings.by_disagreement
            ):
                images, clips = self._see_auxiliary(self.auxiliary, images, clips)
            played = list(self._sides(images, clips))
        losses = {
            f"discriminator_{tap.name}": self._play(tap, sides, step).discriminator_loss
            for tap, sides in played
        }
        # As long as there are no clusters there is no loss, but backward must reach something.
        nothing = 0 * next(self.taps.parameters()).sum()
        return {name: loss + nothing for name, loss in losses.items()}

    def _play(self, tap: AlignedTap, sides: tuple[Side, Side], step: Step) -> AlignmentResult:
        size = (step.images.frames.shape[-2], step.images.frames.shape[-1])
        strength = schedule(self.settings.game.schedule, self.settings.game.start, self.spent)
        result: AlignmentResult = tap(sides, strength, self.step, size, self.monitoring, self.spent)
        return result

    # ------------------------------------------------------------------------- forward passes

    def _see(self, step: Step) -> tuple[Seen | None, Seen | None]:
        """Run the network on both domains."""
        batch_norm = self.settings.batch_norm
        return see(self.network, step, self.normalise, batch_norm, self._tap_names)

    @property
    def _tap_names(self) -> list[str]:
        aligned: list[str] = [tap.settings.tap for tap in self._taps()]
        names = [tap for tap in aligned if tap not in AUXILIARY_TAPS]
        if self.settings.clustered and self.settings.clusters.features == "embed":
            names.append("embed")
        if self.auxiliary is not None:
            names.append(AUXILIARY_TAP)
        return list(dict.fromkeys(names))

    def _see_auxiliary(
        self, head: AuxiliaryHead, *parts: Seen | None
    ) -> tuple[Seen | None, Seen | None]:
        """Show the auxiliary head what it is needed for of both domains."""
        # Of several processes one may have labels where another has none, and both must have the
        # same losses.
        wanted = self.settings.by_disagreement or world_size() > 1
        images, clips = (with_auxiliary(head, one, self._auxiliary_taps, wanted) for one in parts)
        return images, clips

    @property
    def _auxiliary_taps(self) -> list[str]:
        names = [tap.settings.tap for tap in self._taps() if tap.settings.tap in AUXILIARY_TAPS]
        return list(dict.fromkeys(names))

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

    def _on_video(self, clips: Seen) -> dict[str, Tensor]:
        """Losses on unlabelled frames that need no opponent."""
        losses = {}
        logits = self.main_logits(clips.output)
        if self.settings.entropy_weight > 0:
            losses["entropy"] = self.settings.entropy_weight * entropy_loss(logits)
        if self.teacher is not None:
            loss = self._taught(self.teacher, clips, logits)
            losses["pseudo_label"] = self.settings.pseudo_label_weight * loss
        return losses

    def _taught(self, teacher: MovingAverage, clips: Seen, logits: Tensor) -> Tensor:
        """The loss of a moving average's predictions, of the same frames or those before them."""
        threshold = self.settings.pseudo_label_threshold
        with torch.no_grad():
            set_domain(teacher.network, VIDEO)
            taught = self.main_logits(teacher.network(clips.frames))
        if self.settings.pseudo_label_frame == "same":
            return pseudo_label_loss(logits, taught, threshold)
        moved = moved_to_next_frame(taught, clips.part.frames)
        by_clip = logits.reshape(*clips.frames.shape[:2], *logits.shape[1:])
        later = by_clip[:, 1:].flatten(0, 1)
        return pseudo_label_loss(later, moved.maps, threshold, moved.known)

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
        distances = _together([self._disagreement(one) for one in seen])
        for tap in self._taps():
            name = tap.settings.tap
            maps = (
                torch.cat([one.taps[name] for one in seen]),
                _together([one.maps.get(name) for one in references]),
                labels,
                probabilities,
                distances,
            )
            yield tap, (_side(maps, domains == IMAGE), _side(maps, domains == VIDEO))

    def _disagreement(self, seen: Seen) -> Tensor | None:
        """Of the main head and the auxiliary one; None where no alignment asks for it."""
        if not self.settings.by_disagreement:
            return None
        assert seen.auxiliary is not None
        return disagreement(self.main_logits(seen.output), self.main_logits(seen.auxiliary))

    @torch.no_grad()
    def _reference_maps(self, seen: Seen, domain: int) -> ReferenceMaps:
        """What clusters are made of: the network's own maps, or those of its copy."""
        taps: list[str] = [t.settings.tap for t in self._taps() if t.clusters is not None]
        predicted = self.settings.clusters.how == "prediction"
        if self.reference is None:
            own = seen.taps
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
        """Alarms, latest monitors, how often each alignment was skipped, and which failed.

        An alignment has collapsed if its game was over in the last step, whatever was before. It
        was idle if it was skipped in more than half of the steps since the game's start.
        """
        skipped = {tap.name: int(tap.skipped) for tap in self._taps()}
        collapsed = {tap.name: tap.collapsed for tap in self._taps()}
        idle = {tap.name: tap.idle for tap in self._taps()}
        found = {"skipped_steps": skipped, "collapsed": collapsed, "idle": idle}
        return self.monitoring.notes() | found


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
    features, clustered, labels, probabilities, distances = (
        None if m is None else m[rows] for m in maps
    )
    assert features is not None
    assert labels is not None
    return Side(features, clustered, labels, probabilities, distances)
