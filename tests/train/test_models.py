"""Networks: shapes and sizes, the definition of methods.md, precision of the last layer, seeds, errors."""

from __future__ import annotations

import fnmatch
import subprocess
import sys
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F

from rayclean.errors import ConfigError
from rayclean.train.models import MODEL_NAMES, Images, Network, build_model, model_defaults
from rayclean.train.models.custom import CustomBody
from rayclean.train.models.names import unknown_name
from rayclean.train.models.preact_resnet import PreActBlock
from rayclean.train.models.wide_resnet import WideBlock


def _count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _images(num: int = 2, size: int = 32, seed: int = 0) -> torch.Tensor:
    return torch.randn(num, 3, size, size, generator=torch.Generator().manual_seed(seed))


def _small_resnet_count(width: int, num_classes: int) -> int:
    """Convolutions without bias, two numbers a channel for each BatchNorm, one linear layer."""
    total = 9 * 3 * width + 2 * width
    channels = [width, width, 2 * width, 4 * width]
    for before, after in pairwise(channels):
        total += 9 * before * after + 9 * after * after + 4 * after
        total += before * after + 2 * after if before != after else 0
    return total + (4 * width + 1) * num_classes


@pytest.mark.parametrize(("width", "num_classes"), [(16, 10), (8, 3), (5, 100)])
def test_small_resnet_has_the_size_and_shape_of_its_definition(width: int, num_classes: int) -> None:
    network = build_model("small_resnet", num_classes, width=width).eval()
    assert _count(network) == _small_resnet_count(width, num_classes)
    assert network.feature_dim == 4 * width
    assert network.num_classes == num_classes
    assert network.features(_images()).shape == (2, 4 * width)
    assert network(_images()).shape == (2, num_classes)
    assert not any(module.bias is not None for module in network.modules() if isinstance(module, nn.Conv2d))


# Published sizes for 10 classes: 11.17 M for PreActResNet18 (with DivideMix's stem), 1.47 M for WRN-28-2, 21.28 M for
# ResNet-34 with a stem for small images.
@pytest.mark.parametrize(
    ("name", "size", "dim"),
    [
        ("preact_resnet18", 11_171_274, 512),
        ("wide_resnet28_2", 1_467_610, 128),
        ("resnet34_small", 21_282_122, 512),
    ],
)
def test_the_larger_networks_have_their_published_sizes(name: str, size: int, dim: int) -> None:
    network = build_model(name, 10).eval()
    assert _count(network) == size
    assert network.feature_dim == dim
    with torch.inference_mode():
        features = network.features(_images())
        assert features.shape == (2, dim)
        assert network.logits(features).shape == (2, 10)
    # BatchNorm and ReLU before pooling, or, as DivideMix, neither.
    assert bool((features >= 0).all()) == (name != "preact_resnet18")


SMALL_STRIDES = (1, 2, 2)  # of each block of `small_resnet`
STRIDES_34 = (*[1] * 3, 2, *[1] * 3, 2, *[1] * 5, 2, *[1] * 2)  # 3, 4, 6 and 3 blocks of ResNet-34


def _resnet_by_definition(network: Network, images: torch.Tensor, strides: tuple[int, ...]) -> torch.Tensor:
    """Features as methods.md, section 7, defines them, from the bare weights in their order."""
    weights = [p.detach() for p in network.body.parameters()]
    buffers = [b for b in network.body.buffers() if b.ndim]

    def conv(maps: torch.Tensor, stride: int) -> torch.Tensor:
        kernel = weights.pop(0)
        maps = F.conv2d(maps, kernel, stride=stride, padding=kernel.shape[-1] // 2)
        scale, shift, mean, variance = weights.pop(0), weights.pop(0), buffers.pop(0), buffers.pop(0)
        ratio = scale / (variance + 1e-5).sqrt()
        return maps * ratio[:, None, None] + (shift - mean * ratio)[:, None, None]

    maps = conv(images, 1).clamp(min=0)
    for stride in strides:
        out = conv(conv(maps, stride).clamp(min=0), 1)
        shortcut = conv(maps, stride) if stride == 2 else maps
        maps = (out + shortcut).clamp(min=0)
    assert not weights
    assert not buffers
    return maps.flatten(2).sum(2) / (maps.shape[2] * maps.shape[3])


@pytest.mark.parametrize(
    ("name", "size", "strides"),
    [("small_resnet", 32, SMALL_STRIDES), ("small_resnet", 16, SMALL_STRIDES), ("resnet34_small", 16, STRIDES_34)],
)
def test_residual_networks_compute_their_definition(name: str, size: int, strides: tuple[int, ...]) -> None:
    network = build_model(name, 5, width=4, seed=3).double()
    noise = torch.Generator().manual_seed(1)
    with torch.no_grad():
        network(_images(4, size).double())  # BatchNorm statistics other than 0 and 1
        for parameter in network.parameters():
            # In proportion, so that the maps of 16 blocks do not grow beyond all bounds.
            parameter.mul_(1 + 0.1 * torch.randn(parameter.shape, generator=noise).double())
            if parameter.ndim == 1:
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=noise).double())
        network.eval()
        images = _images(3, size, seed=1).double()
        expected = _resnet_by_definition(network, images, strides)
        torch.testing.assert_close(network.features(images), expected, rtol=1e-10, atol=1e-10)
        logits = expected @ network.head.weight.T + network.head.bias
        torch.testing.assert_close(network(images), logits, rtol=1e-10, atol=1e-10)


def test_resnet34_for_small_images_is_torchvisions_but_for_the_stem() -> None:
    """The same blocks in the same order: torchvision's weights give the same features from the stem's maps on."""
    from torchvision.models import resnet34

    network, source = build_model("resnet34_small", 3), resnet34()
    layers = nn.Sequential(source.layer1, source.layer2, source.layer3, source.layer4)
    blocks = network.body.blocks
    assert isinstance(blocks, nn.Sequential)
    blocks.load_state_dict(dict(zip(blocks.state_dict(), layers.state_dict().values(), strict=True)))
    maps = torch.randn(2, 64, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(blocks.eval()(maps), layers.eval()(maps), rtol=0, atol=0)
    stem = network.body.stem
    assert isinstance(stem, nn.Conv2d)
    assert (stem.kernel_size, stem.stride, stem.padding) == ((3, 3), (1, 1), (1, 1))
    assert not any(isinstance(module, nn.MaxPool2d) for module in network.modules())


def test_dividemix_alone_lets_a_plain_shortcut_start_from_the_activated_input() -> None:
    maps = torch.randn(1, 64, 4, 4, generator=torch.Generator().manual_seed(0))
    preact, wide = PreActBlock(64, 64, stride=1).eval(), WideBlock(64, 64, stride=1).eval()
    with torch.no_grad():
        preact.conv2.weight.zero_()  # only the shortcut is left
        wide.conv2.weight.zero_()
        torch.testing.assert_close(preact(maps), F.relu(preact.bn1(maps)))
        torch.testing.assert_close(wide(maps), maps)


@pytest.mark.parametrize("block", [PreActBlock, WideBlock])
def test_a_projection_starts_from_the_activated_input(block: type[PreActBlock | WideBlock]) -> None:
    maps = torch.randn(2, 4, 6, 6, generator=torch.Generator().manual_seed(0))
    tested = block(4, 8, stride=2).eval()
    projection = tested.shortcut if isinstance(tested, PreActBlock) else tested.projection
    assert isinstance(projection, nn.Conv2d)
    with torch.no_grad():
        active = F.relu(tested.bn1(maps))
        inner = tested.conv2(F.relu(tested.bn2(tested.conv1(active))))
        torch.testing.assert_close(tested(maps), inner + F.conv2d(active, projection.weight, stride=2))


@pytest.mark.parametrize("bottleneck", [None, 6])
def test_all_after_the_body_is_float32_under_bfloat16_autocast(bottleneck: int | None) -> None:
    network = build_model("small_resnet", 4, bottleneck=bottleneck).eval()
    seen: list[torch.dtype] = []
    conv = network.body.blocks[2].conv2  # type: ignore[index, union-attr]
    conv.register_forward_hook(lambda *args: seen.append(args[2].dtype))
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        features = network.features(_images())
        logits = network(_images())
    assert seen == [torch.bfloat16] * 2  # else the test shows nothing
    assert features.dtype == logits.dtype == torch.float32
    assert torch.equal(logits, F.linear(features, network.head.weight, network.head.bias))
    assert not torch.equal(logits, logits.bfloat16().float())
    assert not torch.equal(features, features.bfloat16().float())


@pytest.mark.parametrize("name", MODEL_NAMES)
def test_double_networks_stay_double(name: str) -> None:
    network = build_model(name, 3, width=4, bottleneck=5).double().eval()
    with torch.inference_mode():
        features = network.features(_images(1, 16).double())
        assert features.dtype == network.logits(features).dtype == torch.float64


def test_a_bottleneck_is_what_the_head_sees() -> None:
    network = build_model("small_resnet", 4, bottleneck=7).eval()
    features = network.features(_images())
    assert network.feature_dim == 7
    assert features.shape == (2, 7)
    assert bool((features >= 0).all())
    assert network.head.weight.shape == (4, 7)


def test_gradients_reach_every_weight() -> None:
    network = build_model("small_resnet", 4, bottleneck=7)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = network(_images(8)).square().sum()
    loss.backward()
    assert all(p.grad is not None and bool(p.grad.abs().sum() > 0) for p in network.parameters())


def _same(a: nn.Module, b: nn.Module) -> bool:
    states = a.state_dict(), b.state_dict()
    return states[0].keys() == states[1].keys() and all(torch.equal(states[0][k], states[1][k]) for k in states[0])


@pytest.mark.parametrize("name", ["small_resnet", "resnet18"])
def test_a_seed_gives_the_same_bits_and_leaves_the_global_generator_alone(name: str) -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first = build_model(name, 3, seed=1)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(6)
    assert _same(first, build_model(name, 3, seed=1))
    assert not _same(first, build_model(name, 3, seed=2))


def test_a_network_of_torchvision_without_weights() -> None:
    network = build_model("resnet18", 7).eval()
    with torch.inference_mode():
        features = network.features(_images())
        assert features.shape == (2, 512)
        assert network.logits(features).shape == (2, 7)


def test_a_network_of_torchvision_from_a_file_drops_the_files_head(tmp_path: Path) -> None:
    torchvision = pytest.importorskip("torchvision")
    source = torchvision.models.resnet18(num_classes=11).eval()
    torch.save(source.state_dict(), tmp_path / "a.pth")
    save_file(source.state_dict(), tmp_path / "a.safetensors")
    source.fc = nn.Identity()
    for file in ("a.pth", "a.safetensors"):
        network = build_model("resnet18", 3, weights=str(tmp_path / file)).eval()
        with torch.inference_mode():
            assert torch.equal(network.features(_images()), source(_images()))


def test_vision_transformers_are_built_for_the_images() -> None:
    network = build_model("vit_b_32", 3, image_size=64).eval()
    with torch.inference_mode():
        assert network.features(_images(1, 64)).shape == (1, 768)


def test_a_download_that_fails_says_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def no_network(*args: Any, **kwargs: Any) -> None:
        raise OSError("no route to host")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("urllib.request.urlopen", no_network)
    monkeypatch.setattr("torch.hub.urlopen", no_network)
    with pytest.raises(ConfigError, match=r"resnet18.*no route to host.*fetch http.*resnet18.*model\.weights"):
        build_model("resnet18", 3, weights="DEFAULT")


def test_weights_of_small_networks_are_snapshots(tmp_path: Path) -> None:
    source = build_model("small_resnet", 3, width=4, seed=9)
    torch.save({"model": source.state_dict(), "epoch": 3}, tmp_path / "state.pt")
    save_file(source.state_dict(), tmp_path / "epoch-0004.safetensors")
    for file in ("state.pt", "epoch-0004.safetensors"):
        assert _same(source, build_model("small_resnet", 3, width=4, weights=str(tmp_path / file)))
    with pytest.raises(ConfigError, match=r"snapshot of small_resnet.*size mismatch"):
        build_model("small_resnet", 4, width=4, weights=str(tmp_path / "state.pt"))


class _Touch:
    """Pickled code that makes a file when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


def test_a_pickle_is_refused_and_not_run(tmp_path: Path) -> None:
    torch.save({"model": _Touch(tmp_path / "ran")}, tmp_path / "bad.pt")
    with pytest.raises(ConfigError, match="weights only"):
        build_model("small_resnet", 3, weights=str(tmp_path / "bad.pt"))
    assert not (tmp_path / "ran").exists()


def test_a_file_without_a_state_dict_is_refused(tmp_path: Path) -> None:
    torch.save([1, 2], tmp_path / "list.pt")
    (tmp_path / "cut.safetensors").write_bytes(b"\x10")
    with pytest.raises(ConfigError, match=r"expected a state dict .* found list"):
        build_model("small_resnet", 3, weights=str(tmp_path / "list.pt"))
    with pytest.raises(ConfigError, match=r"cut\.safetensors: cannot be loaded"):
        build_model("resnet18", 3, weights=str(tmp_path / "cut.safetensors"))


@pytest.mark.parametrize(
    ("name", "weights", "said"),
    [
        ("small_resnt", None, "did you mean 'small_resnet'"),
        ("resnet81", None, "did you mean 'resnet18'"),
        ("zzz", None, r"valid: small_resnet, .*resnet18.*package\.module:factory"),
        ("squeezenet1_0", None, "ends in a linear layer"),
        ("resnet18", "DEFUALT", "did you mean 'DEFAULT'"),
        ("resnet18", "no/file.pth", r"no/file\.pth: there is no such file"),
        ("small_resnet", "DEFAULT", "DEFAULT: there is no such file"),
    ],
)
def test_wrong_names_are_refused(name: str, weights: str | None, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        build_model(name, 3, weights=weights)


def test_defaults_of_the_images() -> None:
    small = model_defaults("small_resnet")
    assert small.size == 32
    assert small.mean == (0.4914, 0.4822, 0.4465)
    assert small.std == (0.247, 0.2435, 0.2616)
    assert model_defaults("resnet18").size == 224
    assert model_defaults("inception_v3").size == 299
    assert model_defaults("package.module:factory") == model_defaults("resnet18")
    with pytest.raises(ConfigError, match="did you mean 'wide_resnet28_2'"):
        model_defaults("wide_resnet28")


class _TimmNetwork(nn.Module):
    """What timm promises of a network: pooled features where it has no classes, and how wide they are."""

    num_features = 4
    head_hidden_size = 6

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.layer = nn.Linear(3, self.num_features)
        self.before_logits = nn.Linear(self.num_features, self.head_hidden_size)
        self.classif = nn.Linear(self.head_hidden_size, num_classes) if num_classes else nn.Identity()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.classif(torch.tanh(self.before_logits(self.layer(images.mean(dim=(2, 3))))))  # type: ignore[no-any-return]


@dataclass(frozen=True)
class _TimmConfig:
    input_size: tuple[int, int, int]
    crop_pct: float = 0.9
    interpolation: str = "bicubic"
    mean: tuple[float, ...] = (0.5, 0.5, 0.5)
    std: tuple[float, ...] = (0.5, 0.5, 0.5)
    fixed_input_size: bool = False
    classifier: str | None = "classif"
    hf_hub_id: str | None = "timm/fake.in1k"
    url: str | None = None


class _Timm(ModuleType):
    """timm's functions with the signatures of timm 1.0, over three networks; it keeps what it was asked for."""

    CONFIGS: ClassVar = {
        "inception_resnet_v2": _TimmConfig((3, 299, 299)),
        "inception_resnet_v2.tf_in1k": _TimmConfig((3, 299, 299)),
        "inception_resnet_v2.tf_ens": _TimmConfig((3, 320, 320), mean=(0.1, 0.2, 0.3)),
        "vit_fixed": _TimmConfig((3, 224, 224), fixed_input_size=True),
        "broken": _TimmConfig((3, 224, 224)),
    }

    def __init__(self) -> None:
        super().__init__("timm")
        self.created: list[tuple[str, bool, dict[str, Any]]] = []

    def create_model(
        self,
        model_name: str,
        pretrained: bool = False,
        pretrained_cfg: Any = None,
        pretrained_cfg_overlay: dict[str, Any] | None = None,
        checkpoint_path: str | Path | None = None,
        cache_dir: str | Path | None = None,
        scriptable: bool | None = None,
        exportable: bool | None = None,
        no_jit: bool | None = None,
        **kwargs: Any,
    ) -> nn.Module:
        self.created.append((model_name, pretrained, dict(kwargs)))
        if model_name == "broken":
            raise RuntimeError("no route to the hub" if pretrained else "out of order")
        if "img_size" in kwargs and not self.CONFIGS[model_name].fixed_input_size:
            raise TypeError("unexpected keyword argument 'img_size'")
        network = _TimmNetwork(kwargs["num_classes"])
        if pretrained:
            nn.init.constant_(network.layer.bias, 1.0 if model_name.endswith("tf_ens") else 2.0)
        return network

    def is_model(self, model_name: str) -> bool:
        return model_name.partition(".")[0] in (*self.list_models(), "an_old_name")

    def list_models(self, filter: str = "", pretrained: bool = False) -> list[str]:
        return sorted({name.partition(".")[0] for name in self.CONFIGS})

    def list_pretrained(self, filter: str = "") -> list[str]:
        names = [*(name for name in self.CONFIGS if "." in name), "broken.in1k"]
        return fnmatch.filter(names, filter)

    def get_pretrained_cfg(self, model_name: str, allow_unregistered: bool = True) -> _TimmConfig | None:
        return self.CONFIGS.get(model_name)


@pytest.fixture
def timm(monkeypatch: pytest.MonkeyPatch) -> _Timm:
    module = _Timm()
    monkeypatch.setitem(sys.modules, "timm", module)
    return module


def test_a_network_of_timm_without_weights(timm: _Timm) -> None:
    network = build_model("timm:inception_resnet_v2", 7, bottleneck=5, image_size=64, seed=2).eval()
    assert timm.created == [("inception_resnet_v2", False, {"num_classes": 0})]
    assert network.feature_dim == 5
    assert network.body(_images()).shape == (2, 6)  # what the classifier would see, not num_features
    assert network(_images()).shape == (2, 7)
    assert _same(network, build_model("timm:inception_resnet_v2", 7, bottleneck=5, seed=2))
    assert not _same(network, build_model("timm:inception_resnet_v2", 7, bottleneck=5, seed=3))


def test_images_of_timm_are_those_of_the_network_or_of_the_tag(timm: _Timm) -> None:
    assert model_defaults("timm:inception_resnet_v2") == Images(299, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5), 0.9, "bicubic")
    assert model_defaults("timm:inception_resnet_v2.tf_ens").mean == (0.1, 0.2, 0.3)
    assert model_defaults("timm:inception_resnet_v2.tf_ens").size == 320
    assert timm.created == []


def test_networks_of_timm_that_are_built_for_one_size_get_it(timm: _Timm) -> None:
    build_model("timm:vit_fixed", 3, image_size=64)
    build_model("timm:vit_fixed", 3)
    assert timm.created == [
        ("vit_fixed", False, {"num_classes": 0, "img_size": 64}),
        ("vit_fixed", False, {"num_classes": 0}),
    ]


@pytest.mark.parametrize(
    ("name", "weights", "asked", "bias"),
    [
        ("inception_resnet_v2", "DEFAULT", "inception_resnet_v2", 2.0),
        ("inception_resnet_v2", "tf_ens", "inception_resnet_v2.tf_ens", 1.0),
        ("inception_resnet_v2.tf_ens", "DEFAULT", "inception_resnet_v2.tf_ens", 1.0),
        ("inception_resnet_v2.tf_ens", "tf_ens", "inception_resnet_v2.tf_ens", 1.0),
    ],
)
def test_weights_of_timm_by_name(timm: _Timm, name: str, weights: str, asked: str, bias: float) -> None:
    network = build_model(f"timm:{name}", 3, weights=weights)
    assert timm.created == [(asked, True, {"num_classes": 0})]
    assert torch.equal(network.state_dict()["body.layer.bias"], torch.full((4,), bias))


def test_a_network_of_timm_from_a_file_drops_the_files_classifier(timm: _Timm, tmp_path: Path) -> None:
    source = _TimmNetwork(11)
    save_file(source.state_dict(), tmp_path / "a.safetensors")
    network = build_model("timm:inception_resnet_v2", 3, weights=str(tmp_path / "a.safetensors"))
    assert timm.created == [("inception_resnet_v2", False, {"num_classes": 0})]
    source.classif = nn.Identity()
    assert torch.equal(network.features(_images()), source(_images()))
    save_file({"layer.weight": torch.zeros(4, 3)}, tmp_path / "part.safetensors")
    with pytest.raises(ConfigError, match=r"expected timm's state dict of timm:vit_fixed.*Missing key"):
        build_model("timm:vit_fixed", 3, weights=str(tmp_path / "part.safetensors"))


@pytest.mark.parametrize(
    ("name", "weights", "said"),
    [
        ("inception_resnet_v3", None, "did you mean 'timm:inception_resnet_v2'"),
        ("inception_resnet_v2.tf_in1", None, r"did you mean 'timm:inception_resnet_v2\.tf_in1k'"),
        ("an_old_name", None, r"timm:an_old_name: .*the name that timm.list_models\(\) has"),
        ("inception_resnet_v2", "DEFUALT", "model.weights of timm:inception_resnet_v2 .*did you mean 'DEFAULT'"),
        ("inception_resnet_v2.tf_ens", "tf_in1k", "did you mean 'tf_ens'"),
        ("inception_resnet_v2", "no/file.pth", r"no/file\.pth: there is no such file"),
        ("vit_fixed", "DEFAULT", "timm has no weights of timm:vit_fixed; give a file"),
        ("broken", None, "timm cannot build it .RuntimeError: out of order"),
        (
            "broken",
            "DEFAULT",
            r"RuntimeError: no route to the hub.; fetch https://huggingface.co/timm/fake\.in1k where",
        ),
    ],
)
def test_what_timm_does_not_have_is_refused(timm: _Timm, name: str, weights: str | None, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        build_model(f"timm:{name}", 3, weights=weights)


def test_without_timm_the_error_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    for call in (model_defaults, lambda name: build_model(name, 3)):
        with pytest.raises(ConfigError, match=r"timm:inception_resnet_v2: timm cannot.*pip install 'rayclean\[timm\]'"):
            call("timm:inception_resnet_v2")


def test_of_a_thousand_names_only_some_are_shown() -> None:
    names = [f"network{index}" for index in range(1000)]
    text = str(unknown_name("model.name", "zzzzzz", names))
    assert "network0, network1, " in text
    assert text.endswith("network199, and 800 more")


class _Own(nn.Module):
    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 6)
        self.head = nn.Linear(6, num_classes)

    def features(self, images: torch.Tensor) -> torch.Tensor:
        return torch.tanh(self.layer(images.mean(dim=(2, 3))))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(self.features(images))  # type: ignore[no-any-return]


class _Flat(_Own):
    def features(self, images: torch.Tensor) -> torch.Tensor:
        return images.flatten(1)


class _Headless(_Own):
    def __init__(self, num_classes: int) -> None:
        super().__init__(num_classes)
        self.head = nn.Sequential(self.head)  # type: ignore[assignment]


def _fail(num_classes: int) -> nn.Module:
    raise RuntimeError("out of luck")


@pytest.fixture
def own_module(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    module = ModuleType("own_networks")
    parts = {
        "own": _Own,
        "flat": _Flat,
        "headless": _Headless,
        "failing": _fail,
        "two": lambda num_classes: _Own(2),
        "linear": lambda num_classes: nn.Linear(3, num_classes),
        "text": lambda num_classes: "a network",
        "number": 3,
    }
    for name, value in parts.items():
        setattr(module, name, value)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return module


def test_a_users_network_keeps_its_weights_and_owns_its_head_once(own_module: ModuleType, tmp_path: Path) -> None:
    source = _Own(4)
    save_file(source.state_dict(), tmp_path / "own.safetensors")
    network = build_model("own_networks:own", 4, weights=str(tmp_path / "own.safetensors"))
    assert isinstance(network.body, CustomBody)
    assert network.feature_dim == 6
    assert torch.equal(network(_images()), source(_images()))
    assert len(network.state_dict()) == len(source.state_dict())
    assert _same(build_model("own_networks:own", 4, seed=2), build_model("own_networks:own", 4, seed=2))
    assert build_model("own_networks:own", 4, bottleneck=5)(_images()).shape == (2, 4)


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("own_networks:", "expected package.module:factory"),
        ("no_such_module_here:f", "no_such_module_here cannot be imported"),
        ("own_networks:nothing", "found nothing as nothing in own_networks; expected factory"),
        ("own_networks:number", "found int as number"),
        ("own_networks:failing", "RuntimeError: out of luck"),
        ("own_networks:text", "returned str"),
        ("own_networks:linear", "Linear has no method features"),
        ("own_networks:headless", "found Sequential as head"),
        ("own_networks:two", "has 2 outputs, expected one for each of the 4 classes"),
    ],
)
def test_a_users_network_that_lacks_a_part_is_refused(own_module: ModuleType, path: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        build_model(path, 4)


def test_features_of_another_shape_are_refused_when_they_come(own_module: ModuleType) -> None:
    network = build_model("own_networks:flat", 4)
    with pytest.raises(ConfigError, match=r"gave shape \(2, 3072\), expected \(2, 6\)"):
        network(_images())


def test_networks_need_torch_alone() -> None:
    code = (
        "import sys; from rayclean.train.models import build_model; import rayclean.train.augment, "
        "rayclean.train.losses, rayclean.train.precision; build_model('small_resnet', 3); "
        "print(*sorted({'ray', 'timm', 'torchvision', 'safetensors', 'faiss', 'webdataset'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert result.stdout.split() == []
