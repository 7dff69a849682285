"""Which frames of which object are scored, and what void means: one rule per protocol."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal


@dataclass(frozen=True)
class ScoringRule:
    """How a protocol turns masks into scores.

    Attributes:
        name: what tables and commands call it.
        given_first: an object's first annotated frame is given to the method and not scored; the
            object is scored from the next annotated frame on.
        skip_last: the video's last frame is not scored (kept from the first DAVIS toolkit).
        void: ``"background"`` counts void pixels (255) of the ground truth as background;
            ``"ignored"`` removes them from both masks.
        matched: predictions carry ids of their own; they are matched to the ground truth's
            objects over the whole sequence (Hungarian, on the mean of (J + F) / 2).
        max_proposals: most predicted objects a sequence may have where ``matched``.
        foreground: all objects, predicted and true, are merged into one, id 1.
    """

    name: str
    given_first: bool
    skip_last: bool
    void: Literal["background", "ignored"]
    matched: bool = False
    max_proposals: int = 20
    foreground: bool = False


SEMI_SUPERVISED = ScoringRule("semi-supervised", True, True, "background")
"""DAVIS-2016 and DAVIS-2017: first and last frame dropped, void counts as background."""

UNSUPERVISED = ScoringRule("unsupervised", False, False, "ignored", matched=True)
"""DAVIS-2017 multi-object without a given mask: all frames, void ignored, proposals matched.

With one true object (DAVIS-2016) the best single proposal is scored; predictions that hold one
foreground score the same under :data:`FOREGROUND`.
"""

FOREGROUND = ScoringRule("unsupervised-foreground", False, False, "ignored", foreground=True)
"""DAVIS-2016 without a given mask: all frames, everything predicted against everything true."""

YOUTUBE_VOS = ScoringRule("youtube-vos", True, False, "background")
"""YouTube-VOS: an object's first annotated frame is given and not scored, the last one is.

The server's code is not public, so which frames it skips is a choice made here; it can be made
otherwise with :data:`YOUTUBE_VOS_WITHOUT_LAST` or any other rule.
"""

YOUTUBE_VOS_WITHOUT_LAST = replace(YOUTUBE_VOS, name="youtube-vos-without-last", skip_last=True)
"""YouTube-VOS with the video's last frame dropped, as DAVIS does."""

SEMANTIC = ScoringRule("semantic", False, False, "ignored")
"""Classes in the place of objects: all frames, void ignored.

Not among :data:`RULES`, since masks alone do not say which classes their ids are.
"""

RULES = {
    rule.name: rule
    for rule in (SEMI_SUPERVISED, UNSUPERVISED, FOREGROUND, YOUTUBE_VOS, YOUTUBE_VOS_WITHOUT_LAST)
}
