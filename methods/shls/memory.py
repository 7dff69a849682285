"""Memory clustering: which object a superpixel belongs to, from superfeatures seen before.

Section 3.4. A video's memory holds superfeatures with their class (0 = background, then the
objects). New superpixels are compared with it in two ways, both by cosine similarity: with their
k nearest stored superfeatures, and with two centroids per class. Both give each superpixel an
*attention* to each class; the nearest stored one also gives it a label. Nothing here is learned.
"""

from __future__ import annotations

from dataclasses import dataclass

import faiss
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from bench.method import MethodSettings

SEED = 1234
"""Of the centroids' random initialisation and sampling (faiss' own default)."""


class MemorySettings(MethodSettings):
    """How superfeatures are remembered; the defaults are the authors'.

    Attributes:
        neighbours: k of the k-NN.
        rank_weight: weight of each further neighbour relative to the one before it.
        centroids: k-means centroids per class.
        kmeans_iterations: steps of each k-means.
        kmeans_restarts: attempts of the first k-means, which starts at random. Later ones start
            from the centroids before them.
        points_per_centroid: classes with more vectors than this per centroid are sampled.
        capacity: vectors kept per class, as a multiple of the first frame's superpixels.
        protected: of these, the first ones that are never dropped, as a multiple of the class's
            own superpixels in the first frame.
        update: whether frames after the first enter the memory.
    """

    neighbours: int = Field(default=2, ge=1)
    rank_weight: float = Field(default=0.5, gt=0, le=1)
    centroids: int = Field(default=2, ge=1)
    kmeans_iterations: int = Field(default=300, ge=1)
    kmeans_restarts: int = Field(default=10, ge=1)
    points_per_centroid: int = Field(default=256, ge=1)
    capacity: float = Field(default=10, gt=0)
    protected: float = Field(default=5, ge=0)
    update: bool = True


@dataclass(frozen=True)
class Recall:
    """What the memory says of one frame's superpixels.

    Attributes:
        labels: int64 ``(N,)``, the class with the largest vote among the nearest neighbours.
        neighbours: float ``(N, classes)``, attention by nearest neighbours.
        centroids: float ``(N, classes)``, attention by centroids.
    """

    labels: Tensor
    neighbours: Tensor
    centroids: Tensor

    def attention(self, target: int) -> Tensor:
        """The four values of section 3.4 for one object.

        Args:
            target: the object's class, 1 or more.

        Returns:
            ``(N, 4)``: similarity to the object by neighbours, the largest similarity to another
            class, and the same two by centroids.
        """
        columns = []
        for similarity in (self.neighbours, self.centroids):
            others = similarity.clone()
            others[:, target] = -torch.inf
            columns += [similarity[:, target], others.amax(1)]
        return torch.stack(columns, dim=1)


class MemoryClustering:
    """The memory of one video.

    Args:
        superfeatures: float ``(N, S)`` of the first frame.
        classes: int64 ``(N,)``, 0 = background.
        count: number of classes, background included.
        settings: see :class:`MemorySettings`.
    """

    def __init__(
        self, superfeatures: Tensor, classes: Tensor, count: int, settings: MemorySettings
    ) -> None:
        self.settings = settings
        self.device = superfeatures.device
        self.size = superfeatures.shape[1]
        self.limit = max(1, round(settings.capacity * superfeatures.shape[0]))
        # Per class, unit vectors: all comparisons are by cosine similarity.
        self.items: list[NDArray[np.float32]] = []
        self.protected: list[int] = []
        self.centroids: list[NDArray[np.float32] | None] = []
        self.latest: list[int] = []
        vectors, labels = _unit(superfeatures), classes.cpu().numpy()
        for number in range(count):
            self._append_class(vectors[labels == number])
        self._index()

    def _append_class(self, vectors: NDArray[np.float32]) -> None:
        self.items.append(vectors[: self.limit])
        self.protected.append(round(self.settings.protected * len(vectors)))
        self.centroids.append(self._cluster(vectors, None))
        self.latest.append(0)

    def add_classes(self, superfeatures: Tensor, classes: Tensor, count: int) -> None:
        """Take up objects that enter later.

        Args:
            superfeatures: float ``(N, S)`` of the frame in which they enter.
            classes: int64 ``(N,)``; only the new ones, from ``len(self.items)`` on, are stored.
            count: number of classes from now on.
        """
        vectors, labels = _unit(superfeatures), classes.cpu().numpy()
        for number in range(len(self.items), count):
            self._append_class(vectors[labels == number])
        self._index()

    def update(self, superfeatures: Tensor, classes: Tensor) -> None:
        """Store a frame's superfeatures.

        Args:
            superfeatures: float ``(N, S)``.
            classes: int64 ``(N,)``; superpixels with a negative class are not stored.
        """
        vectors, labels = _unit(superfeatures), classes.cpu().numpy()
        for number in range(len(self.items)):
            new = vectors[labels == number]
            self.latest[number] = len(new)
            if len(new):
                self.items[number] = self._bounded(
                    number, np.concatenate([self.items[number], new])
                )
                self.centroids[number] = self._cluster(self.items[number], self.centroids[number])
        self._index()

    def forget_latest(self) -> None:
        """Take back the last :meth:`update`, for a frame whose labels turn out to be wrong."""
        for number, count in enumerate(self.latest):
            kept = max(0, len(self.items[number]) - count)
            if count:
                self.items[number] = self.items[number][:kept]
                self.centroids[number] = self._cluster(self.items[number], self.centroids[number])
            self.latest[number] = 0
        self._index()

    def _bounded(self, number: int, items: NDArray[np.float32]) -> NDArray[np.float32]:
        """Drop the oldest vectors beyond the limit, but none of the protected first ones."""
        excess = len(items) - self.limit
        if excess <= 0:
            return items
        head = min(self.protected[number], self.limit)
        return np.concatenate([items[:head], items[head + excess :]])

    def _cluster(
        self, vectors: NDArray[np.float32], start: NDArray[np.float32] | None
    ) -> NDArray[np.float32] | None:
        """Spherical k-means; None for a class without any vector."""
        count = self.settings.centroids
        if len(vectors) == 0:
            return None
        if len(vectors) < count:
            mean = vectors.mean(0, keepdims=True)
            vectors = np.concatenate([vectors, mean.repeat(count - len(vectors), 0)])
        kmeans = faiss.Kmeans(
            self.size,
            count,
            niter=self.settings.kmeans_iterations,
            # From given centroids every attempt is the same.
            nredo=self.settings.kmeans_restarts if start is None else 1,
            spherical=True,
            seed=SEED,
            min_points_per_centroid=1,
            max_points_per_centroid=self.settings.points_per_centroid,
        )
        kmeans.train(np.ascontiguousarray(vectors), init_centroids=start)
        found: NDArray[np.float32] = kmeans.centroids
        return found

    def _index(self) -> None:
        self.owners = np.repeat(np.arange(len(self.items)), [len(rows) for rows in self.items])
        self.nearest = faiss.IndexFlatIP(self.size)
        self.nearest.add(np.concatenate(self.items))

    def query(self, superfeatures: Tensor) -> Recall:
        """Compare a frame's superpixels with the memory.

        Args:
            superfeatures: float ``(N, S)``.
        """
        queries = _unit(superfeatures)
        neighbours = min(self.settings.neighbours, self.nearest.ntotal)
        similarity, rows = self.nearest.search(queries, neighbours)
        owners = self.owners[rows]
        classes = len(self.items)
        weights = self.settings.rank_weight ** np.arange(neighbours)
        attention = np.zeros((len(queries), classes), dtype=np.float32)
        votes = np.zeros((len(queries), classes), dtype=np.float32)
        for number in range(classes):
            of_class = owners == number
            votes[:, number] = (of_class * weights).sum(1)
            # A class's neighbours move up to the first ranks: similarities are sorted already,
            # so a stable sort by class membership keeps their order.
            order = np.argsort(~of_class, axis=1, kind="stable")
            ranked = np.take_along_axis(np.where(of_class, similarity, 0), order, axis=1)
            attention[:, number] = (ranked * weights).sum(1) / weights.sum()
        # Ties between classes go to the nearer neighbour.
        best = votes >= votes.max(1, keepdims=True)
        nearest_of_best = np.take_along_axis(best, owners, axis=1).argmax(1)
        labels = np.take_along_axis(owners, nearest_of_best[:, None], axis=1)[:, 0]
        central = np.zeros((len(queries), classes), dtype=np.float32)
        for number, centroids in enumerate(self.centroids):
            if centroids is not None:
                central[:, number] = (queries @ centroids.T).max(1)
        return Recall(
            torch.from_numpy(labels).to(self.device),
            torch.from_numpy(attention).to(self.device),
            torch.from_numpy(central).to(self.device),
        )


def _unit(superfeatures: Tensor) -> NDArray[np.float32]:
    """Rows divided by their L2 norm; zero rows stay zero."""
    unit: NDArray[np.float32] = F.normalize(superfeatures.detach().float(), dim=1).cpu().numpy()
    return unit
