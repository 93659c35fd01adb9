import os

# The suite runs one process a core; Hypothesis examples are the same on every run.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ["THEORYLAB_KERNELS"] = "compiled"

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile(
    "theorylab",
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
settings.load_profile("theorylab")

collect_ignore = ["compile_kernels.py"]  # a script


@pytest.fixture
def minute(monkeypatch):
    """Return a function that lets a number of steps take a minute in a module, and returns the list
    of the costs of a step that the module will tell."""

    def allow(module, steps, most):
        costs = []

        def told(nanoseconds, **limit):
            costs.append(nanoseconds)
            assert limit == {"most": most}
            return steps

        monkeypatch.setattr(module, "steps_in_a_minute", told)
        return costs

    return allow
