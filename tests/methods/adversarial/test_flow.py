"""Maps moved along optical flow, and pseudo-labels that come from the frame before."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from methods.adversarial.flow import moved_to_next_frame, optical_flow, visible, warp
from methods.adversarial.objectives import pseudo_label_loss
from methods.adversarial.settings import AdaptationSettings
from tests.methods.adversarial.test_adaptation import adaptation, part, step

SIZE = 64


def texture(seed: int, side: int = SIZE) -> Tensor:
    """Smooth noise, uint8 ``(3, side, side)``."""
    random = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, 3, side // 4, side // 4, generator=random)
    fine = F.interpolate(coarse, size=(side, side), mode="bicubic").clamp(0, 1)
    return (255 * fine[0]).to(torch.uint8)


def moving_square(shift: int) -> tuple[Tensor, Tensor]:
    """Two frames of a textured square before a textured wall, and its masks ``(2, H, W)``."""
    frames, masks = [], []
    wall, square = texture(0) // 3, texture(1, 24) // 2 + 127
    for left in (16, 16 + shift):
        frame, mask = wall.clone(), torch.zeros(SIZE, SIZE, dtype=torch.long)
        frame[:, 20:44, left : left + 24] = square
        mask[20:44, left : left + 24] = 1
        frames.append(frame)
        masks.append(mask)
    return torch.stack(frames), torch.stack(masks)


def test_warping_by_whole_pixels_is_shifting() -> None:
    maps = torch.randn(2, 3, 6, 7)
    flow = torch.zeros(2, 2, 6, 7)
    flow[:, 0], flow[:, 1] = 2, -1
    warped = warp(maps, flow)
    for y in range(6):
        for x in range(7):
            source = maps[:, :, max(y - 1, 0), min(x + 2, 6)]
            torch.testing.assert_close(warped[:, :, y, x], source, atol=1e-5, rtol=1e-5)


def test_warping_between_pixels_is_bilinear() -> None:
    y, x = torch.meshgrid(torch.arange(8.0), torch.arange(9.0), indexing="ij")
    ramp = (2 * x - 3 * y)[None, None]
    flow = torch.full((1, 2, 8, 9), 0.25)
    inside = warp(ramp, flow)[..., :-1, :-1]
    torch.testing.assert_close(inside, (ramp - 0.25)[..., :-1, :-1], atol=1e-4, rtol=1e-4)


def test_visible_pixel_by_pixel() -> None:
    random = torch.Generator().manual_seed(0)
    flow = torch.randint(-2, 3, (1, 2, 9, 9), generator=random).float()
    back = -flow + (torch.rand(1, 2, 9, 9, generator=random) < 0.2) * 2.0
    found = visible(flow, back)
    for y in range(9):
        for x in range(9):
            u, v = flow[0, :, y, x].tolist()
            there = int(x + u), int(y + v)
            wanted = 0 <= there[0] < 9 and 0 <= there[1] < 9
            if wanted:
                s, t = back[0, :, there[1], there[0]].tolist()
                error = (u + s) ** 2 + (v + t) ** 2
                wanted = error <= 0.01 * (u * u + v * v + s * s + t * t) + 0.5
            assert bool(found[0, y, x]) == wanted
    assert 0 < found.float().mean() < 1


def test_flow_of_a_moving_camera() -> None:
    large = texture(3, 96)
    earlier, later = large[:, 10:74, 10:74], large[:, 12:76, 13:77]
    flow = optical_flow(later[None], earlier[None])
    inner = flow[0, :, 12:-12, 12:-12]
    # What the later frame shows at x was at x + 3 in the earlier one's coordinates, and y + 2.
    torch.testing.assert_close(inner.mean((1, 2)), torch.tensor([3.0, 2.0]), atol=0.1, rtol=0)


@pytest.mark.parametrize("shift", [4, -6])
def test_masks_move_with_what_they_are_of(shift: int) -> None:
    frames, masks = moving_square(shift)
    maps = F.one_hot(masks, 2).movedim(-1, 1).float()
    moved = moved_to_next_frame(maps, frames[None])
    assert moved.maps.shape == (1, 2, SIZE, SIZE)
    known = moved.known[0]
    agree = moved.maps[0].argmax(0) == masks[1]
    stays = masks[0] == masks[1]
    assert known.float().mean() > 0.85
    assert agree[known].float().mean() > 0.97
    assert agree[known].float().mean() > stays[known].float().mean(), "better than not to move"
    # The wall behind where the square was is seen for the first time: most of what is left out.
    assert agree[known].float().mean() > agree.float().mean()
    uncovered = (masks[0] == 1) & (masks[1] == 0)
    assert known[uncovered].float().mean() < known[~uncovered].float().mean() - 0.3


def test_clips_are_not_mixed() -> None:
    one, other = moving_square(4), moving_square(-6)
    frames = torch.stack([one[0], other[0]])
    masks = torch.cat([one[1], other[1]])
    maps = F.one_hot(masks, 2).movedim(-1, 1).float()
    together = moved_to_next_frame(maps, frames)
    for number in range(2):
        alone = moved_to_next_frame(maps[2 * number : 2 * number + 2], frames[number][None])
        assert torch.equal(together.maps[number], alone.maps[0])
        assert torch.equal(together.known[number], alone.known[0])


def test_unknown_pixels_are_no_labels() -> None:
    torch.manual_seed(0)
    student, teacher = torch.randn(2, 3, 4, 4), 4 * torch.randn(2, 3, 4, 4)
    known = torch.rand(2, 4, 4) < 0.5
    total = 0.0
    for n, y, x in np.ndindex(2, 4, 4):
        chances = teacher[n, :, y, x].softmax(0)
        if known[n, y, x] and chances.max() >= 0.8:
            total -= student[n, :, y, x].log_softmax(0)[chances.argmax()].item()
    found = pseudo_label_loss(student, teacher, 0.8, known)
    assert found.item() == pytest.approx(total / 32, rel=1e-5)
    everywhere = pseudo_label_loss(student, teacher, 0.8, torch.ones_like(known))
    assert torch.equal(everywhere, pseudo_label_loss(student, teacher, 0.8))


def test_labels_of_the_frame_before_teach_the_later_frames() -> None:
    settings = {"pseudo_label_weight": 0.5, "pseudo_label_threshold": 0.4}
    model = adaptation(pseudo_label_frame="previous", **settings).eval()
    batch = step(images=1)._replace(clips=part(2, 3, 1, False, 7))
    losses = model(batch)
    with torch.no_grad():
        clips = batch.clips.frames
        taught = model.teacher.network(model.normalise(clips)).foreground
        logits = model.network(model.normalise(clips)).foreground
        total = []
        for clip in range(2):
            for time in (1, 2):
                earlier, later = 3 * clip + time - 1, 3 * clip + time
                pair = clips[clip, time - 1 : time + 1][None]
                moved = moved_to_next_frame(taught[[earlier, later]], pair)
                alone = logits[later][None]
                total.append(pseudo_label_loss(alone, moved.maps, 0.4, moved.known))
    assert sum(total) > 0
    wanted = 0.5 * sum(total) / 4
    assert losses["pseudo_label"].item() == pytest.approx(wanted.item(), rel=1e-4)


def test_where_nothing_moves_it_is_the_same_frames_label() -> None:
    still = part(2, 1, 1, False, 7)
    frames = still.frames.expand(-1, 2, -1, -1, -1)
    labels = still.foreground.expand(-1, 2, -1, -1)
    batch = step(images=1)._replace(
        clips=still._replace(frames=frames, foreground=labels, classes=labels)
    )
    settings = {"pseudo_label_weight": 1.0, "pseudo_label_threshold": 0.4}
    found = {
        frame: adaptation(pseudo_label_frame=frame, **settings).eval()(batch)["pseudo_label"].item()
        for frame in ("same", "previous")
    }
    assert found["same"] > 0
    assert found["previous"] == pytest.approx(found["same"], rel=1e-3)
    assert AdaptationSettings().pseudo_label_frame == "same"
