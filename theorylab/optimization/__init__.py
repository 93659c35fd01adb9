"""First-order methods: step bounds, regret, worst cases."""

import sys
from collections.abc import Callable
from importlib import import_module
from types import ModuleType
from typing import Any

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)


class _Package(ModuleType):
    """``adam`` names a function and the module that defines it; here it is the function, whatever
    was imported before."""

    @property
    def adam(self) -> Callable[..., Any]:
        function: Callable[..., Any] = import_module(f"{__name__}.adam").adam
        return function

    @adam.setter
    def adam(self, module: ModuleType) -> None:
        """Python binds the module on its import."""


sys.modules[__name__].__class__ = _Package
