"""A numerical laboratory for machine-learning theory.

Every theme is a subpackage of plain functions on NumPy arrays (``theorylab.convex_relu``,
``theorylab.matrix_sensing``, ...); ``theorylab.verify`` knows what a claim is; ``theorylab.corpus``
holds the papers. Subpackages load on first use."""

import lazy_loader

__version__ = "0.2.0"

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
