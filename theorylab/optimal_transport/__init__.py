"""Optimal transport and sparsity: exact, entropic and sparse plans with certified gaps."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
