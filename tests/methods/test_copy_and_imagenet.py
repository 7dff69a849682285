from __future__ import annotations

import numpy as np
import pytest
import torch

from bench.conformance import CHECKS, scene, segment
from bench.errors import ConfigError, MethodError
from bench.method import Context
from bench.registry import get_method
from bench.video import object_ids


def build(name: str, **settings):
    method = get_method(name)
    return method(method.Settings(**settings), Context())


@pytest.fixture(scope="module")
def imagenet():
    return build("imagenet")


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.title)
def test_copy_keeps_the_contract(check):
    assert check.complaint(build("copy")) is None


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.title)
def test_imagenet_keeps_the_contract(check, imagenet):
    assert check.complaint(imagenet) is None


def test_copy_repeats_the_first_mask():
    video = scene(5, objects=2)
    first = video.load_mask(0)
    assert all(np.array_equal(mask, first) for mask in segment(build("copy"), video))


def test_imagenet_recognises_a_cat():
    """The packaged weights land on the right tensors: chelsea is a tabby, Egyptian or tiger cat."""
    import timm
    from skimage import data

    from methods.pretrained.imagenet import PACKAGED_ENCODER, packaged_state

    network = timm.create_model(PACKAGED_ENCODER).eval()
    network.load_state_dict(packaged_state(network.state_dict()))
    image = torch.from_numpy(data.chelsea()[:, 75:375]).permute(2, 0, 1)[None].float() / 255
    image = torch.nn.functional.interpolate(image, size=224, mode="bicubic", antialias=True)
    with torch.inference_mode():
        best = network((image - 0.5) / 0.5).topk(3).indices[0].tolist()
    assert set(best) == {281, 282, 285}


def test_features_have_the_grid_of_the_finest_stride(imagenet):
    features = imagenet.encode(torch.rand(1, 3, 65, 130))
    assert features.shape == (40 + 112, 9, 17)
    norms = [features[:40].norm(dim=0), features[40:].norm(dim=0)]
    torch.testing.assert_close(norms[0], torch.ones_like(norms[0]))
    # Upsampled maps are interpolated between unit vectors, so they are at most that long.
    assert norms[1].max() <= 1 + 1e-5


def test_ids_with_gaps_are_kept(imagenet):
    video = scene(4, objects=3)
    assert set(object_ids(segment(imagenet, video)[-1])) <= {1, 3, 5}


def test_random_weights_are_another_regime():
    method = build("imagenet", initial="random")
    assert method.regime().images == 0
    assert method.regime().summary == "no training"


def test_random_weights_depend_on_the_seed_only():
    method = get_method("imagenet")
    settings = method.Settings(initial="random")
    image = torch.rand(1, 3, 64, 64)
    one, same, other = (method(settings, Context(seed=s)).encode(image) for s in (0, 0, 1))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_own_weights_are_loaded_strictly(tmp_path):
    import timm
    from safetensors.torch import save_file

    method = get_method("imagenet")
    state = timm.create_model("tf_efficientnet_lite0").state_dict()
    good, bad = tmp_path / "good.safetensors", tmp_path / "bad.safetensors"
    save_file(state, good)
    method(method.Settings(), Context(weights=good))
    state["surplus"] = state.pop("conv_stem.weight")
    save_file(state, bad)
    with pytest.raises(MethodError, match=r"conv_stem\.weight.*surplus"):
        method(method.Settings(), Context(weights=bad))


def test_unknown_stride_names_those_there_are():
    with pytest.raises(MethodError, match=r"\[2, 4, 8, 16, 32\]"):
        build("imagenet", strides=(8, 12))


def test_unknown_encoder():
    with pytest.raises(MethodError, match="no_such_net"):
        build("imagenet", encoder="no_such_net")


def test_unknown_method_names_the_closest():
    with pytest.raises(ConfigError, match="Did you mean 'imagenet'"):
        get_method("imagnet")
