"""Keeps pixels near the first mask whose colour is closer to the object's mean than to the rest."""

import cv2
import numpy as np
import torch

from bench.method import LabelRegime, Method, MethodCard, MethodSettings
from bench.video import object_ids


class BrightnessSettings(MethodSettings):
    reach: int = 15  # how far an object may move between two frames, in pixels


class Brightness(Method):
    card = MethodCard("brightness", "Mean colour", "Nearest mean colour.", LabelRegime())
    Settings = BrightnessSettings

    def begin(self, frame, mask):
        regions = [mask == i for i in (0, *object_ids(mask))]
        colours = np.stack([frame.image[region].mean(0) for region in regions])
        return colours, np.stack(regions[1:]).astype(np.uint8)

    def step(self, state, frame):
        colours, previous = state
        size = 2 * self.settings.reach + 1
        near = [cv2.dilate(region, np.ones((size, size), np.uint8)) for region in previous]
        closeness = -np.abs(frame.image[None] - colours[:, None, None]).sum(-1)
        closeness[1:] -= 1e4 * (1 - np.stack(near))  # never far from where the object was
        labels = closeness.argmax(0)
        found = np.stack([labels == i + 1 for i in range(len(previous))]).astype(np.uint8)
        return (colours, found), torch.from_numpy(closeness).float()
