"""Grids of cells: order, shapes, seeds, and the same numbers from several processes."""

import subprocess
import sys

import numpy as np
import pytest

from theorylab.verify import sweep


def test_the_axes_are_in_the_order_of_the_grid():
    found = sweep(lambda b, a: 10 * a + b, {"a": range(3), "b": np.arange(2)})
    np.testing.assert_array_equal(found, [[0, 1], [10, 11], [20, 21]])
    found = sweep(lambda a, b: [a, b, a * b], {"a": (1, 2), "b": (3.0, 4.0, 5.0)})
    assert found.shape == (2, 3, 3)
    np.testing.assert_array_equal(found[1, 2], [2, 5, 10])
    assert sweep(lambda a: a > 1, {"a": [1, 2]}).dtype == bool


def test_each_cell_has_a_seed_of_its_own_that_depends_on_its_place():
    found = sweep(lambda a, b, seed: seed, {"a": [0, 0], "b": [5, 5, 5]}, seed=3)
    assert np.unique(found).size == 6
    longer = sweep(lambda a, b, seed: seed, {"a": range(4), "b": range(5)}, seed=3)
    np.testing.assert_array_equal(longer[:2, :3], found)
    for i, j in ((0, 0), (1, 2)):
        own = np.random.SeedSequence(3, spawn_key=(i, j)).generate_state(1)[0]
        assert found[i, j] == own
    assert not np.isin(sweep(lambda a, b, seed: seed, {"a": [0], "b": [5]}, seed=4), longer).any()
    assert sweep(lambda a: a, {"a": [1, 2]}).tolist() == [1, 2]
    assert sweep(lambda seed: seed, {"seed": [5, 6]}).tolist() == [5, 6]
    with pytest.raises(ValueError, match=r"^seed"):
        sweep(lambda seed: seed, {"seed": [5, 6]}, seed=0)
    assert sweep(lambda a, seed: seed, {"a": [0]}, seed=0) != longer[0, 0]


@pytest.mark.parametrize("grid", [{}, {"a": []}, {"a": [1], "b": ()}, [("a", [1])], {"a": 3}])
def test_a_grid_has_values_of_each_parameter(grid):
    with pytest.raises(ValueError, match="grid"):
        sweep(lambda a, b=0: a, grid)


PROGRAM = """
import joblib, numpy as np
from theorylab.verify import sweep

def cell(n, seed):
    return [n, *np.random.default_rng(seed).normal(size=2)]

def diagram():
    return sweep(cell, {"n": range(5)}, seed=1)

if __name__ == "__main__":
    alone = diagram()
    with joblib.parallel_config("loky", n_jobs=2):
        assert (diagram() == alone).all()
    if CLUSTER:
        from distributed import Client, LocalCluster
        with LocalCluster(2, threads_per_worker=1, dashboard_address=None) as c, Client(c):
            with joblib.parallel_config("dask"):
                assert (diagram() == alone).all()
    print(alone.shape)
"""


@pytest.mark.parametrize("cluster", [False, pytest.param(True, marks=pytest.mark.long)])
def test_other_processes_give_the_same_numbers(tmp_path, cluster):
    if cluster:
        pytest.importorskip("distributed")
    path = tmp_path / "program.py"
    path.write_text(PROGRAM.replace("CLUSTER", str(cluster)))
    done = subprocess.run(
        [sys.executable, path], capture_output=True, text=True, timeout=240, check=False
    )
    assert (done.returncode, done.stdout) == (0, "(5, 3)\n"), done.stderr
