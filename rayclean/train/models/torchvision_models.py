"""All that is taken from torchvision: its classification networks and AutoAugment. Imported when asked for."""

from __future__ import annotations

from typing import Any

from rayclean.errors import ConfigError
from rayclean.late import nn, torch
from rayclean.train.models.images import Images
from rayclean.train.models.names import unknown_name
from rayclean.train.models.weights import is_file_name, load_state, read_state

DEFAULT = "DEFAULT"  # of `model.weights`: torchvision's name of the best of a network's weights

# They return several outputs in training mode unless their auxiliary classifiers are off. They also normalise
# once more inside when pre-trained; that is not in the state dict, so it is always on, or a snapshot would
# not be the network that was trained.
WITH_AUXILIARY = ("googlenet", "inception_v3")
AUXILIARY_PREFIXES = ("AuxLogits.", "aux1.", "aux2.")


def torchvision_names() -> list[str]:
    """Names of torchvision's classification networks.

    Raises:
        ConfigError: torchvision is not installed, or does not fit this torch.
    """
    models = _models()
    return [str(name) for name in models.list_models(module=models)]


def torchvision_body(name: str, weights: str | None, image_size: int | None = None) -> tuple[nn.Module, int]:
    """A network of torchvision without its last linear layer.

    Args:
        name: as torchvision lists it.
        weights: None, `DEFAULT` or a name of torchvision's weights (downloaded once), or a local state-dict file.
        image_size: side of the images; only Vision Transformers are built for one size.

    Returns:
        The body, (N, 3, H, W) to (N, d), and d.

    Raises:
        ConfigError: unknown names, weights that cannot be had or do not fit, a network that does not end in a
            linear layer.
    """
    if name not in (names := torchvision_names()):
        raise unknown_name("model.name", name, names)
    options: dict[str, Any] = {}
    if name in WITH_AUXILIARY:
        options = {"aux_logits": False, "transform_input": True}
    if name.startswith("vit_") and image_size is not None:
        options["image_size"] = image_size
    file = weights if weights is not None and is_file_name(weights) else None
    if weights is None or file is not None:
        # Said in words, else these two warn that their default will change.
        random_init = {"init_weights": True} if name in WITH_AUXILIARY else {}
        model = _models().get_model(name, weights=None, **options, **random_init)
    else:
        model = _pretrained(name, weights, options)
    head_name, dim = _remove_head(model, name)
    if file is not None:
        dropped = (f"{head_name}.", *AUXILIARY_PREFIXES)
        state = {key: value for key, value in read_state(file).items() if not key.startswith(dropped)}
        load_state(model, state, file, f"torchvision's state dict of {name} (a snapshot goes to train.from)")
    return model, dim


def torchvision_images(name: str, weights: str | None) -> Images:
    """The images that weights of torchvision are evaluated on.

    Args:
        name: as torchvision lists it.
        weights: as for `torchvision_body`; for a file or None those of the default weights.

    Raises:
        ConfigError: unknown names.
    """
    if name not in (names := torchvision_names()):
        raise unknown_name("model.name", name, names)
    of_file = weights is None or is_file_name(weights)
    found = _member(name, DEFAULT if of_file else str(weights)).transforms()
    (size,), (resized,) = found.crop_size[:1], found.resize_size[:1]
    return Images(size, tuple(found.mean), tuple(found.std), size / resized, found.interpolation.value)


def autoaugment_cifar10(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """AutoAugment's CIFAR-10 policy (Cubuk et al., CVPR 2019), one draw per image.

    Args:
        images: (N, H, W, 3) uint8.
        generator: gives one number, which seeds all draws of the batch.

    Returns:
        (N, H, W, 3) uint8.

    Raises:
        ConfigError: torchvision is not installed, or does not fit this torch.
    """
    _models()
    from torchvision.transforms.v2 import AutoAugment, AutoAugmentPolicy

    policy = AutoAugment(AutoAugmentPolicy.CIFAR10)
    seed = int(torch.randint(2**62, (), generator=generator, device=generator.device))
    # torchvision draws from the global generator only; it is put back after.
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return torch.stack([policy(image.permute(2, 0, 1)).permute(1, 2, 0) for image in images])


def _models() -> Any:
    try:
        import torchvision.models
    except Exception as e:  # a build for another torch fails with RuntimeError or OSError
        raise ConfigError(
            f"torchvision cannot be imported ({e}); install the version that fits torch {torch.__version__}"
        ) from e
    return torchvision.models


def _pretrained(name: str, weights: str, options: dict[str, Any]) -> nn.Module:
    """A network with the weights of torchvision's collection."""
    member = _member(name, weights)
    try:
        model: nn.Module = _models().get_model(name, weights=member, **options)
    except ValueError as e:
        raise ConfigError(f"model.weights {weights} does not fit {name} at this image size: {e}") from e
    except (OSError, RuntimeError) as e:
        raise ConfigError(
            f"model.weights {weights} of {name} cannot be downloaded or read ({e}); fetch "
            f"{member.url} where there is a network and set model.weights to the file"
        ) from e
    return model


def _member(name: str, weights: str) -> Any:
    """Weights of torchvision's collection, by their name."""
    collection = _models().get_model_weights(name)
    if weights not in (names := list(collection.__members__)):
        raise unknown_name(f"model.weights of {name} (a name or a file)", weights, names)
    return collection[weights]


def _remove_head(model: nn.Module, name: str) -> tuple[str, int]:
    """Puts Identity in place of the last linear layer; returns its name and its number of inputs."""
    linear = [(path, module) for path, module in model.named_modules() if isinstance(module, nn.Linear)]
    if not linear:
        raise ConfigError(f"model.name {name}: expected a network that ends in a linear layer, found none in it")
    # By position: its name is fc, classifier or head, as the network has it.
    head_name, head = linear[-1]
    parent, _, child = head_name.rpartition(".")
    setattr(model.get_submodule(parent), child, nn.Identity())
    return head_name, head.in_features
