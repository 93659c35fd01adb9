"""Run every benchmark of this folder, print one table (ours, the named peer, their ratio, and the
target), and write it to ``results.md`` with the machine and the versions.

Each ``bench_*.py`` has a function ``rows()`` that returns dictionaries with ``task``,
``ours_seconds``, ``peer``, ``peer_seconds``, ``ratio`` and ``target``: medians of one run, one
thread. Pass parts of file names to run
only those; nothing is written then."""

import importlib.metadata
import importlib.util
import os
import platform
import sys
from pathlib import Path

import scipy.linalg  # noqa: F401  (its BLAS must be loaded for the limit to reach it)
from rich.console import Console
from rich.table import Table
from threadpoolctl import threadpool_limits

HEADINGS = ("task", "ours (s)", "peer", "peer (s)", "ratio", "target")
PEERS = ("POT", "celer", "clarabel", "cvxpy", "numba", "numpy", "scikit-learn", "scipy", "skglm")


def machine() -> str:
    """Return what the numbers depend on, but for the code."""
    cpu = Path("/proc/cpuinfo")
    lines = cpu.read_text().splitlines() if cpu.exists() else []
    model = next((x.split(":")[1].strip() for x in lines if x.startswith("model name")), "unknown")
    versions = ", ".join(f"{p} {importlib.metadata.version(p)}" for p in PEERS)
    return (
        f"One thread of {os.cpu_count()} cores ({model}), {platform.system()} {platform.machine()}"
        f", Python {platform.python_version()}, {versions}."
    )


def markdown(rows: list[tuple[str, ...]]) -> str:
    """Return the table for people who did not run it."""
    lines = [" | ".join(cells).replace("\n", " ") for cells in (HEADINGS, ("---",) * 6, *rows)]
    table = "\n".join(f"| {line} |" for line in lines)
    return f"# Speed against named peers\n\nBy `make bench`. {machine()}\n\n{table}\n"


def main(wanted: list[str]) -> None:
    os.environ["THEORYLAB_KERNELS"] = "compiled"  # what is timed is machine code
    found: list[tuple[str, ...]] = []
    for path in sorted(Path(__file__).parent.glob("bench_*.py")):
        if wanted and not any(part in path.stem for part in wanted):
            continue
        spec = importlib.util.spec_from_file_location(path.stem, path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        with threadpool_limits(1):
            for row in module.rows():
                ours, peer = (f"{row[key]:.3g}" for key in ("ours_seconds", "peer_seconds"))
                ratio = f"{row['ratio']:.3g}"
                found.append((row["task"], ours, row["peer"], peer, ratio, str(row["target"])))
    table = Table(*HEADINGS, box=None, header_style="bold")
    for cells in found:
        table.add_row(*cells)
    Console(width=160).print(table)
    if not wanted:
        Path(__file__).with_name("results.md").write_text(markdown(found), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
