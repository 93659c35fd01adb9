import os

# The suite runs one process a core; Hypothesis examples are the same on every run.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ["THEORYLAB_KERNELS"] = "compiled"

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
