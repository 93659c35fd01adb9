"""Claims, evidence, spaces, judging, counterexample search: the only part of the package that knows
what a claim is."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
