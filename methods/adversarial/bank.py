"""Tokens kept for k-means, and the space in which they are clustered."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from methods.adversarial.kmeans import principal_directions


class TokenBank(nn.Module):
    """The last tokens of both domains, equally many of each.

    Args:
        capacity: tokens per domain.
        share: tokens per domain that one batch may add at most.
        channels: C.
        seed: of the choice of tokens.
    """

    def __init__(self, capacity: int, share: int, channels: int, seed: int) -> None:
        super().__init__()
        self.capacity = capacity
        self.share = share
        self.seed = seed
        self.stored: Tensor
        self.written: Tensor
        self.batches: Tensor
        # Unit vectors lose nothing that matters in half precision.
        self.register_buffer("stored", torch.zeros(2, capacity, channels, dtype=torch.float16))
        self.register_buffer("written", torch.zeros((), dtype=torch.int64))
        self.register_buffer("batches", torch.zeros((), dtype=torch.int64))

    def __len__(self) -> int:
        """Tokens of both domains together."""
        return 2 * min(int(self.written), self.capacity)

    def add(self, image_tokens: Tensor, video_tokens: Tensor) -> None:
        """Store a random choice of a batch's tokens instead of the oldest ones.

        Args:
            image_tokens: float ``(M, C)``.
            video_tokens: float ``(M', C)``.
        """
        count = min(self.share, self.capacity, len(image_tokens), len(video_tokens))
        # Seeded by the number of the batch, so that a resumed training draws the same.
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + int(self.batches))
        places = (int(self.written) + torch.arange(count)) % self.capacity
        for domain, tokens in enumerate((image_tokens, video_tokens)):
            chosen = torch.randperm(len(tokens), generator=generator)[:count].to(tokens.device)
            self.stored[domain, places] = F.normalize(tokens[chosen], dim=1).to(self.stored)
        self.written += count
        self.batches += 1

    def tokens(self) -> tuple[Tensor, Tensor]:
        """Images' and videos' tokens, float32 ``(M, C)`` each, of unit length."""
        stored = self.stored[:, : len(self) // 2].float()
        return stored[0], stored[1]


class Projection(nn.Module):
    """From tokens to the unit vectors that are clustered.

    It is fitted once, so that prototypes of different times can be compared.

    Args:
        channels: C.
        dimensions: of PCA; None or C and more keep all.
        center: mean that is subtracted before: none, that of both domains, or each domain's own.
            The last removes more than the difference of the domains where their class frequencies
            differ.
    """

    def __init__(self, channels: int, dimensions: int | None, center: str) -> None:
        super().__init__()
        self.center = center
        self.dimensions = min(dimensions or channels, channels)
        self.means: Tensor
        self.directions: Tensor | None
        self.register_buffer("means", torch.zeros(2, channels))
        reduced = self.dimensions < channels
        self.register_buffer(
            "directions", torch.zeros(channels, self.dimensions) if reduced else None
        )

    def fit(self, image_tokens: Tensor, video_tokens: Tensor) -> None:
        """Find means and principal directions.

        Args:
            image_tokens: float ``(M, C)``.
            video_tokens: float ``(M, C)``, as many.
        """
        tokens = F.normalize(torch.stack([image_tokens, video_tokens]), dim=2)
        if self.center == "joint":
            self.means.copy_(tokens.mean((0, 1)).expand_as(self.means))
        elif self.center == "per_domain":
            self.means.copy_(tokens.mean(1))
        if self.directions is not None:
            centred = (tokens - self.means[:, None]).flatten(0, 1)
            self.directions.copy_(principal_directions(centred, self.dimensions))

    def forward(self, tokens: Tensor, domain: int) -> Tensor:
        """Project tokens of one domain.

        Args:
            tokens: float ``(M, C)``.
            domain: 0 for images, 1 for video.

        Returns:
            float ``(M, D)``, unit vectors.
        """
        points = F.normalize(tokens, dim=1) - self.means[domain]
        if self.directions is not None:
            points = points @ self.directions
        return F.normalize(points, dim=1)
