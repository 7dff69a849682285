"""The Frechet ratio on a fixed reference encoder, which is the same whatever methods are measured.

In a method's own features the ratio tells of its representation. In features that do not change
with the method it tells of the data, and can be compared between measurements.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from bench.config import Preset, method_settings
from bench.errors import MethodError
from bench.gap.domains import Samples
from bench.gap.features import both_domains, extract
from bench.gap.measures import FRECHET_RATIO, Row, estimate_row, frechet_estimate
from bench.gap.representation import Representation, representation_of
from bench.gap.variants import Missing, Variant, overrides_of
from bench.method import Context
from bench.registry import get_method

REFERENCE = "reference encoder"
"""What rows say instead of a measured method's name; ``weights`` names the encoder's method."""

NO_REFERENCE = "none"
"""Given as the reference, leaves it out."""


def measured_anyway(
    name: str,
    methods: Sequence[str],
    variants: Sequence[Variant],
    preset: Preset | None,
    assignments: Mapping[str, Any],
) -> bool:
    """Whether the reference is a network that is measured, with its own settings and weights.

    Args:
        name: of the reference's method.
        methods: asked for.
        variants: the networks that could be built.
        preset: of the methods.
        assignments: ``--set`` values by dotted key.
    """
    shipped = any(one.method == name and one.file is None for one in variants)
    return shipped and preset is None and not overrides_of(methods, assignments)[name]


def reference_encoder(name: str, device: str, seed: int) -> Representation | Missing:
    """Build the reference with its own weights, or say why that cannot be.

    Args:
        name: of a registered method.
        device: ``"cpu"`` or ``"cuda"``.
        seed: for the method.

    Raises:
        ConfigError: no such method.
    """
    method = get_method(name)
    settings, _ = method_settings(name, method, None, {})
    context = Context(device, seed, None)
    reason = method.why_not(settings, context)
    try:
        found = None if reason else representation_of(method(settings, context))
    except (ImportError, OSError, MethodError) as error:
        # Weights come in a package, a file or a download, any of which may be absent.
        found, reason = None, f"its weights cannot be loaded ({error})"
    if found is None:
        what = f"Frechet ratio on the {REFERENCE}"
        return Missing(what, name, reason or "it offers no features")
    return found


def reference_rows(
    encoder: Representation, name: str, images: Samples, frames: Samples, seed: int
) -> Iterator[Row]:
    """The Frechet ratio at every tap of the reference, as rows of the table of distances.

    Args:
        encoder: the reference.
        name: of its method.
        images: labelled.
        frames: one labelled frame per video.
        seed: of the draws.
    """
    ours, theirs = (extract(encoder, samples, seed) for samples in (images, frames))
    for tap in encoder.taps:
        pooled, domains = both_domains(ours.taps[tap].pooled, theirs.taps[tap].pooled)
        estimate = frechet_estimate(pooled, domains, seed)
        place = {"method": REFERENCE, "weights": name, "seed": seed, "tap": tap}
        yield {**place, "measure": FRECHET_RATIO, **estimate_row(estimate)}
