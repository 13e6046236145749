"""Libraries that take seconds to import, loaded where they are first used and not where they are named.

A command that only looks at a run names the jobs of its graph, whose modules name these libraries: `from
rayclean.late import torch` gives the same attributes as `import torch`, and costs nothing until one is asked for. A
module that defines classes of theirs (`class X(nn.Module)`) imports them as ever: it loads them anyway.
"""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    import torch.distributed as dist
    from torch import nn
    from torch.nn import functional

__all__ = ["dist", "functional", "nn", "torch"]
_PLACES = {"torch": "torch", "dist": "torch.distributed", "nn": "torch.nn", "functional": "torch.nn.functional"}


class Late(ModuleType):
    """Stands for a module that is imported when something of it is asked for."""

    def __getattr__(self, name: str) -> Any:
        """What the module has; asked of it each time, since its attributes may change."""
        return getattr(importlib.import_module(self.__name__), name)


if not TYPE_CHECKING:
    globals().update({name: Late(place) for name, place in _PLACES.items()})
