"""Compile every kernel once, before the test workers start: two would do it twice, side by side.

Every public function of a theme is called once, as in the fuzz test; what is compiled stays in the
cache that the workers read."""

import os
import warnings
from pathlib import Path

from test_fuzz import load_calls

if __name__ == "__main__":
    os.environ["THEORYLAB_KERNELS"] = "compiled"
    warnings.simplefilter("ignore")  # small calls stop short of their tolerance
    for path in sorted(Path(__file__).parent.glob("*/calls_*.py")):
        if path.parent.name != "verify":
            for function, arguments in load_calls(path).CALLS.items():
                function(**arguments())
