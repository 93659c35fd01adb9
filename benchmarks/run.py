"""Run every benchmark of this folder and print one table: ours, the named peer, their ratio, and
the target.

Each ``bench_*.py`` has a function ``rows()`` that returns dictionaries with ``task``,
``ours_seconds``, ``peer``, ``peer_seconds``, ``ratio`` and ``target``: medians of one run, one
thread. Pass parts of file names to run only those."""

import importlib.util
import os
import sys
from pathlib import Path

import scipy.linalg  # noqa: F401  (its BLAS must be loaded for the limit to reach it)
from rich.console import Console
from rich.table import Table
from threadpoolctl import threadpool_limits


def main(wanted: list[str]) -> None:
    os.environ["THEORYLAB_KERNELS"] = "compiled"  # what is timed is machine code
    table = Table(
        "task", "ours (s)", "peer", "peer (s)", "ratio", "target", box=None, header_style="bold"
    )
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
                table.add_row(
                    row["task"], ours, row["peer"], peer, f"{row['ratio']:.3g}", str(row["target"])
                )
    Console(width=160).print(table)


if __name__ == "__main__":
    main(sys.argv[1:])
