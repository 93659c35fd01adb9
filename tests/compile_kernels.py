"""Compile every kernel once, before the test workers start: two would do it twice, side by side.

Every public function of a theme is called once, as in the fuzz test; what is compiled stays in the
cache that the workers read."""

import os
import warnings

from examples import arguments
from test_fuzz import FUNCTIONS

if __name__ == "__main__":
    os.environ["THEORYLAB_KERNELS"] = "compiled"
    warnings.simplefilter("ignore")  # small calls stop short of their tolerance
    for function in FUNCTIONS:
        if function.__module__.split(".")[1] not in ("verify", "corpus"):
            function(**arguments(function))
