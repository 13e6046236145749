"""All that is taken from timm: any of its networks, as `timm:NAME`. Imported when asked for.

timm is an optional extra (`pip install 'rayclean[timm]'`): the papers' Inception-ResNet-v2 is in no other library here.
"""

from __future__ import annotations

import importlib
from typing import Any

from rayclean.errors import ConfigError
from rayclean.late import nn
from rayclean.train.models.images import Images
from rayclean.train.models.names import unknown_name
from rayclean.train.models.weights import is_file_name, load_state, read_state

PREFIX = "timm:"
DEFAULT = "DEFAULT"  # of `model.weights`, as torchvision calls the best of a network's weights


def timm_images(name: str, weights: str | None = None) -> Images:
    """The images that timm made a network for.

    Args:
        name: `timm:` and a name that timm lists. With the tag of its weights after it (`timm:NAME.TAG`) the images
            are those of that tag, else those of the default one.
        weights: as for `timm_body`; a tag names the images of these weights.

    Returns:
        Those that it is evaluated on; 299 pixels for Inception-ResNet-v2.

    Raises:
        ConfigError: timm is not installed, or has no such network or weights.
    """
    timm = _timm(name)
    of_file = weights is None or is_file_name(weights)
    found = _pretrained_cfg(timm, name if of_file else _tagged(timm, name, str(weights)))
    return Images(
        found.input_size[1], tuple(found.mean), tuple(found.std), float(found.crop_pct), str(found.interpolation)
    )


def timm_body(name: str, weights: str | None, image_size: int | None = None) -> tuple[nn.Module, int]:
    """A network of timm without its classifier.

    Args:
        name: as for `timm_images`.
        weights: None, `DEFAULT`, a tag of timm's weights (downloaded once), or a local state-dict file, whose
            classifier is dropped.
        image_size: side of the images, for networks that are built for one size.

    Returns:
        The body, (N, 3, H, W) to (N, d), and d.

    Raises:
        ConfigError: timm is not installed, has no such network or weights, cannot build or download it, or the file
            does not fit.
    """
    timm = _timm(name)
    file = weights if weights is not None and is_file_name(weights) else None
    tagged = name
    if weights is not None and file is None:
        tagged = _tagged(timm, name, weights)
    cfg = _pretrained_cfg(timm, tagged)
    size = {"img_size": image_size} if cfg.fixed_input_size and image_size is not None else {}
    pretrained = weights is not None and file is None
    try:
        model: Any = timm.create_model(tagged.removeprefix(PREFIX), pretrained=pretrained, num_classes=0, **size)
    except Exception as e:  # of timm, of the hub that it downloads from, or of the network's own code
        cause = f"{type(e).__name__}: {e}"
        if not pretrained:
            raise ConfigError(f"model.name {name}: timm cannot build it ({cause})") from e
        where = cfg.url or f"https://huggingface.co/{cfg.hf_hub_id}"
        raise ConfigError(
            f"model.weights {weights} of {name} cannot be downloaded or read ({cause}); fetch {where} where there is "
            "a network and set model.weights to the file"
        ) from e
    if file is not None:
        heads = (cfg.classifier,) if isinstance(cfg.classifier, str) else tuple(cfg.classifier or ())
        dropped = tuple(f"{head}." for head in heads)
        state = {key: value for key, value in read_state(file).items() if not key.startswith(dropped)}
        load_state(model, state, file, f"timm's state dict of {name} (a snapshot goes to train.from)")
    # What the classifier would see; it differs from num_features where a layer lies between pooling and classifier.
    return model, int(getattr(model, "head_hidden_size", model.num_features))


def _timm(name: str) -> Any:
    try:
        return importlib.import_module("timm")
    except Exception as e:  # not there, or a build for another torch
        raise ConfigError(
            f"model.name {name}: timm cannot be imported ({e}); on every node: pip install 'rayclean[timm]'"
        ) from e


def _pretrained_cfg(timm: Any, name: str) -> Any:
    """What timm knows of a network's images, weights and classifier.

    Raises:
        ConfigError: there is no such network, or no such tag of it.
    """
    architecture, _, tag = name.removeprefix(PREFIX).partition(".")
    if not timm.is_model(architecture):
        raise unknown_name("model.name", name, [PREFIX + known for known in timm.list_models()])
    if tag and tag not in (tags := _tags(timm, architecture)):
        raise unknown_name("model.name", name, [f"{PREFIX}{architecture}.{known}" for known in tags])
    if (cfg := timm.get_pretrained_cfg(name.removeprefix(PREFIX))) is None:  # an old name, kept for old code
        raise ConfigError(f"model.name {name}: timm knows no images for it; give the name that timm.list_models() has")
    return cfg


def _tagged(timm: Any, name: str, weights: str) -> str:
    """The network's name with the tag of the weights that `model.weights` means.

    Raises:
        ConfigError: there are no such weights.
    """
    architecture, _, own_tag = name.removeprefix(PREFIX).partition(".")
    _pretrained_cfg(timm, name)
    tags = [own_tag] if own_tag else _tags(timm, architecture)
    if not tags:
        raise ConfigError(f"model.weights {weights}: timm has no weights of {name}; give a file")
    if weights == DEFAULT:
        return name
    if weights not in tags:
        raise unknown_name(f"model.weights of {name} (a tag or a file)", weights, [DEFAULT, *tags])
    return f"{PREFIX}{architecture}.{weights}"


def _tags(timm: Any, architecture: str) -> list[str]:
    """Tags of the weights that timm has for a network."""
    return [known.partition(".")[2] for known in timm.list_pretrained(f"{architecture}.*")]
