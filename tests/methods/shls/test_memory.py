"""The memory: attention and votes against loops, capacity, centroids, scarce classes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from methods.shls.memory import MemoryClustering, MemorySettings, Recall

quick = settings(max_examples=40, deadline=None)

SIZE = 6

FAST = {"kmeans_iterations": 20, "kmeans_restarts": 2}


def vectors(rows: int, seed: int = 0) -> Tensor:
    return torch.randn(rows, SIZE, generator=torch.Generator().manual_seed(seed))


def one_hot(*rows: tuple[int, float]) -> Tensor:
    """Rows with one entry each: its place and its value."""
    made = torch.zeros(len(rows), SIZE)
    for row, (place, value) in enumerate(rows):
        made[row, place] = value
    return made


def memory_of(
    superfeatures: Tensor, classes: list[int], count: int, **changes: object
) -> MemoryClustering:
    chosen = MemorySettings(**{**FAST, **changes})
    return MemoryClustering(superfeatures, torch.tensor(classes), count, chosen)


def unit(rows: Tensor) -> NDArray[np.float64]:
    values = rows.double().numpy()
    return values / np.linalg.norm(values, axis=1, keepdims=True)


def naive_neighbours(
    stored: Tensor, classes: list[int], count: int, query: Tensor, k: int, rank_weight: float
) -> tuple[list[int], NDArray[np.float64]]:
    """Section 3.4, query by query and class by class."""
    labels, attention = [], np.zeros((len(query), count))
    known = unit(stored)
    for row, vector in enumerate(unit(query)):
        similarity = known @ vector
        nearest = sorted(range(len(known)), key=lambda i: -similarity[i])[:k]
        weights = [rank_weight**rank for rank in range(len(nearest))]
        votes = [0.0] * count
        for weight, item in zip(weights, nearest, strict=True):
            votes[classes[item]] += weight
        winners = [number for number in range(count) if votes[number] == max(votes)]
        labels.append(next(classes[item] for item in nearest if classes[item] in winners))
        for number in range(count):
            of_class = [similarity[item] for item in nearest if classes[item] == number]
            weighted = zip(weights, of_class, strict=False)
            attention[row, number] = sum(w * s for w, s in weighted) / sum(weights)
    return labels, attention


# --- k nearest neighbours -------------------------------------------------------------------


@quick
@given(
    seed=st.integers(0, 2**31),
    stored=st.integers(1, 30),
    count=st.integers(1, 4),
    k=st.integers(1, 6),
    rank_weight=st.sampled_from([1.0, 0.5, 0.3]),
)
def test_votes_and_attention_equal_a_loop(
    seed: int, stored: int, count: int, k: int, rank_weight: float
) -> None:
    """Also with fewer vectors than neighbours, and with classes without any."""
    known, queries = vectors(stored, seed), vectors(9, seed + 1)
    generator = torch.Generator().manual_seed(seed)
    classes = torch.randint(count, (stored,), generator=generator).tolist()
    memory = memory_of(known, classes, count, neighbours=k, rank_weight=rank_weight)
    found = memory.query(queries)
    labels, attention = naive_neighbours(known, classes, count, queries, k, rank_weight)
    assert found.labels.tolist() == labels
    np.testing.assert_allclose(found.neighbours, attention, atol=1e-5)


def test_attention_by_hand() -> None:
    """A class's only neighbour has weight 1, whatever its rank."""
    memory = memory_of(one_hot((0, 2.0), (1, 3.0), (2, 1.0)), [0, 1, 1], 3)
    query = torch.tensor([[0.8, 0.6, 0, 0, 0, 0], [0, 0.6, 0.8, 0, 0, 0]]) * 7
    found = memory.query(query)
    assert found.labels.tolist() == [0, 1]
    expected = torch.tensor([[0.8, 0.6, 0], [0, 0.8 + 0.5 * 0.6, 0]]) / 1.5
    torch.testing.assert_close(found.neighbours, expected)


@quick
@given(seed=st.integers(0, 2**31), count=st.integers(1, 5))
def test_with_the_authors_weights_the_vote_is_the_nearest_neighbours(seed: int, count: int) -> None:
    known, queries = vectors(20, seed), vectors(15, seed + 1)
    classes = [number % count for number in range(20)]
    nearest = (unit(queries) @ unit(known).T).argmax(1)
    found = memory_of(known, classes, count).query(queries)
    assert found.labels.tolist() == [classes[item] for item in nearest]


def test_several_neighbours_can_outvote_the_nearest() -> None:
    known = torch.tensor([[1.0, 0, 0, 0, 0, 0], [1, 0.3, 0, 0, 0, 0], [1, 0, 0.3, 0, 0, 0]])
    query = one_hot((0, 1.0))
    settings = {"neighbours": 3}
    assert memory_of(known, [0, 1, 1], 2, rank_weight=1.0, **settings).query(query).labels == 1
    assert memory_of(known, [0, 1, 1], 2, rank_weight=0.5, **settings).query(query).labels == 0


def test_stored_vectors_are_certain_of_themselves() -> None:
    known = vectors(12)
    found = memory_of(known, [0, 1, 2] * 4, 3, neighbours=1).query(known)
    assert found.labels.tolist() == [0, 1, 2] * 4
    torch.testing.assert_close(found.neighbours.amax(1), torch.ones(12))


def test_a_vector_of_zeros_is_no_error() -> None:
    memory = memory_of(vectors(6), [0, 1] * 3, 2)
    found = memory.query(torch.zeros(2, SIZE))
    assert not found.neighbours.any()
    assert not found.centroids.any()
    memory.update(torch.zeros(2, SIZE), torch.tensor([0, 1]))
    assert memory.query(vectors(3)).centroids.isfinite().all()


def test_four_attentions_of_an_object() -> None:
    recall = Recall(
        torch.tensor([0]), torch.tensor([[0.1, 0.4, 0.3]]), torch.tensor([[-0.5, -0.7, -0.6]])
    )
    torch.testing.assert_close(recall.attention(1), torch.tensor([[0.4, 0.3, -0.7, -0.5]]))
    torch.testing.assert_close(recall.attention(2), torch.tensor([[0.3, 0.4, -0.6, -0.5]]))
    assert recall.neighbours[0, 1] == torch.tensor(0.4)  # nothing is changed in place


# --- centroids ------------------------------------------------------------------------------


def clusters(middles: list[int], each: int, seed: int = 0) -> Tensor:
    """Tight clusters around unit vectors, in turn."""
    rows = torch.eye(SIZE)[middles].repeat(each, 1)
    return rows + 0.02 * vectors(len(rows), seed)


def test_centroids_of_separable_data() -> None:
    rows = torch.cat([clusters([0, 1], 20), 3 * clusters([2, 3], 20, 1)])
    memory = memory_of(rows, [0] * 40 + [1] * 40, 2)
    for number, places in enumerate(([0, 1], [2, 3])):
        found = memory.centroids[number]
        assert found is not None
        np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-6)
        members = unit(rows[40 * number : 40 * number + 40])
        for place in places:
            mean = members[members.argmax(1) == place].mean(0)
            nearest = found[(found @ mean).argmax()]
            np.testing.assert_allclose(nearest, mean / np.linalg.norm(mean), atol=1e-4)
    queries = one_hot((0, 1.0), (1, 2.0), (2, 1.0), (3, 5.0))
    attention = memory.query(queries).centroids
    expected = torch.tensor([[1.0, 0], [1, 0], [0, 1], [0, 1]])
    torch.testing.assert_close(attention, expected, rtol=0, atol=0.03)
    both = [centroids for centroids in memory.centroids if centroids is not None]
    for row, query in enumerate(unit(queries)):
        for number, centroids in enumerate(both):
            highest = max(float(query @ centroid) for centroid in centroids)
            assert attention[row, number].item() == pytest.approx(highest, abs=1e-5)


def test_centroids_follow_what_is_added() -> None:
    memory = memory_of(clusters([0, 1], 5), [0] * 10, 1)
    memory.update(clusters([2], 200), torch.zeros(200, dtype=torch.int64))
    found = memory.query(one_hot((2, 1.0))).centroids
    assert found.item() > 0.99


def test_fewer_vectors_than_centroids() -> None:
    """One vector is both centroids; three centroids of two vectors include these."""
    one = memory_of(one_hot((0, 4.0), (1, 1.0)), [0, 1], 2)
    torch.testing.assert_close(one.query(torch.eye(SIZE)).centroids, torch.eye(SIZE)[:, :2])
    three = memory_of(one_hot((0, 4.0), (1, 1.0)), [0, 0], 1, centroids=3)
    found = three.query(one_hot((0, 1.0), (1, 1.0))).centroids
    torch.testing.assert_close(found, torch.ones(2, 1))


# --- capacity -------------------------------------------------------------------------------


def test_the_first_are_protected_and_the_oldest_of_the_rest_dropped() -> None:
    """Against a list, over many frames of random size."""
    random = np.random.default_rng(0)
    first = vectors(5, 100)
    memory = memory_of(first, [0, 1, 0, 1, 0], 2, capacity=3, protected=2, centroids=1)
    assert memory.limit == 15
    assert memory.protected == [6, 4]
    kept = [list(unit(first)[:, 0][start::2]) for start in (0, 1)]
    for frame in range(12):
        rows = vectors(int(random.integers(1, 9)), frame)
        classes = random.integers(-1, 2, len(rows))
        memory.update(rows, torch.from_numpy(classes))
        for number, protected in enumerate((6, 4)):
            kept[number] += list(unit(rows)[classes == number, 0])
            while len(kept[number]) > 15:
                del kept[number][protected]
            np.testing.assert_allclose(memory.items[number][:, 0], kept[number], atol=1e-6)
    assert [len(rows) for rows in memory.items] == [15, 15]
    assert memory.nearest.ntotal == 30


def test_more_protected_than_there_is_room_for() -> None:
    memory = memory_of(vectors(4), [0] * 4, 1, capacity=1.5, protected=9)
    memory.update(vectors(20, 1), torch.zeros(20, dtype=torch.int64))
    expected = np.concatenate([unit(vectors(4)), unit(vectors(20, 1))[:2]])
    np.testing.assert_allclose(memory.items[0], expected, atol=1e-6)


def test_there_is_always_room_for_one() -> None:
    memory = memory_of(vectors(3), [0, 0, 1], 2, capacity=0.01)
    assert [len(rows) for rows in memory.items] == [1, 1]
    assert memory.query(vectors(2, 1)).labels.shape == (2,)


def test_negative_classes_are_not_stored() -> None:
    memory = memory_of(vectors(4), [0, 1, 0, 1], 2)
    before = [rows.copy() for rows in memory.items]
    memory.update(vectors(7, 1), torch.full((7,), -1))
    for rows, old in zip(memory.items, before, strict=True):
        np.testing.assert_array_equal(rows, old)


# --- classes without vectors, and later ones -------------------------------------------------


def test_a_class_without_any_vector_is_never_found() -> None:
    memory = memory_of(vectors(8), [0, 2] * 4, 3)
    found = memory.query(vectors(20, 1))
    assert set(found.labels.tolist()) == {0, 2}
    assert not found.neighbours[:, 1].any()
    assert memory.centroids[1] is None
    assert found.centroids.isfinite().all()


def test_a_class_may_get_its_first_vectors_later() -> None:
    memory = memory_of(one_hot((0, 1.0), (1, 1.0)), [0, 0], 2)
    memory.update(one_hot((2, 1.0)), torch.tensor([1]))
    found = memory.query(one_hot((2, 3.0), (0, 1.0)))
    assert found.labels.tolist() == [1, 0]
    torch.testing.assert_close(found.centroids[:, 1], torch.tensor([1.0, 0.0]))


def test_later_classes_take_only_their_own_vectors() -> None:
    known, new = vectors(6), vectors(7, 1)
    memory = memory_of(known, [0, 1] * 3, 2)
    memory.add_classes(new, torch.tensor([0, 1, 2, 2, 3, 0, 2]), 4)
    assert [len(rows) for rows in memory.items] == [3, 3, 3, 1]
    np.testing.assert_allclose(memory.items[2], unit(new)[[2, 3, 6]], atol=1e-6)
    assert memory.protected[2:] == [15, 5]
    stored = torch.cat([known, new[[2, 3, 4, 6]]])
    classes = [0, 1] * 3 + [2, 2, 3, 2]
    queries = vectors(20, 2)
    found = memory.query(queries)
    labels, attention = naive_neighbours(stored, classes, 4, queries, 2, 0.5)
    assert found.labels.tolist() == labels
    np.testing.assert_allclose(found.neighbours, attention, atol=1e-5)
    assert found.centroids.shape == (20, 4)


def test_same_input_gives_the_same_memory() -> None:
    def run() -> Recall:
        memory = memory_of(vectors(60), [0, 1, 1] * 20, 2, points_per_centroid=10)
        memory.update(vectors(60, 1), torch.tensor([1, 0, 0] * 20))
        return memory.query(vectors(9, 2))

    once, again = run(), run()
    assert once.labels.equal(again.labels)
    assert once.neighbours.equal(again.neighbours)
    assert once.centroids.equal(again.centroids)


def test_gradients_end_at_the_memory() -> None:
    rows = vectors(6).requires_grad_()
    found = memory_of(rows, [0, 1] * 3, 2).query(rows)
    assert not found.neighbours.requires_grad
    assert not found.centroids.requires_grad


def test_latest_update_can_be_taken_back() -> None:
    random = torch.Generator().manual_seed(3)
    first, second = (torch.randn(12, 4, generator=random) for _ in range(2))
    classes = torch.arange(12) % 2
    memory = MemoryClustering(first, classes, 2, MemorySettings())
    before = [rows.copy() for rows in memory.items]
    memory.update(second, classes)
    assert sum(map(len, memory.items)) == 24
    memory.forget_latest()
    memory.forget_latest()  # nothing more to take back
    assert all(map(np.array_equal, memory.items, before))
    assert memory.query(second).labels.shape == (12,)
