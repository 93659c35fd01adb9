"""Conic programs written with cvxpy, solved by Clarabel so that Ctrl-C and callbacks are heard."""

from __future__ import annotations

from collections.abc import Callable, Generator
from types import SimpleNamespace
from typing import Any

import numpy as np
from scipy.sparse import csc_array, triu


def cvxpy() -> Any:
    """Import cvxpy when it is used; its names are made at run time, unknown to type checkers."""
    import cvxpy

    return cvxpy


def solve(problem: Any, tol: float, stops: Callable[..., bool] = lambda *told: False) -> bool:
    """Leave the last iterate of the solver in the variables, and say whether it was stopped.

    Whatever the solver thinks of it, callers evaluate its bound rigorously; told are the number of
    the iteration, the two values, and the relative gap between them."""
    cp = cvxpy()
    import clarabel  # type: ignore[import-untyped]
    from cvxpy.reductions.solvers.conic_solvers import clarabel_conif

    cones: Any = clarabel_conif.dims_to_solver_cones
    data, chain, inverse = problem.get_problem_data(cp.CLARABEL, solver_opts={})
    settings = clarabel.DefaultSettings()
    settings.verbose, settings.max_iter = False, 200
    settings.tol_gap_abs = settings.tol_gap_rel = settings.tol_feas = tol
    costs, rows = data["c"], data["A"]
    curvature = csc_array(triu(data["P"]) if "P" in data else (costs.size, costs.size))
    solver = clarabel.DefaultSolver(
        curvature,
        costs,
        rows,
        data["b"],
        cones(data["dims"]),
        settings,
    )
    raised: list[BaseException] = []
    listener = _listener(stops, raised)
    next(listener)
    solver.set_termination_callback(listener.send)
    found = solver.solve()
    listener.close()
    if raised:
        raise raised[0]
    x, z = (np.nan_to_num(np.array(v), posinf=0.0, neginf=0.0) for v in (found.x, found.z))
    value = found.obj_val if np.isfinite(found.obj_val) else 0.0
    last = SimpleNamespace(status="Solved", x=x, z=z, obj_val=value, solve_time=0.0, iterations=0)
    problem.unpack_results(last, chain, inverse)
    return str(found.status) == "CallbackTerminated"


def _listener(
    stops: Callable[..., bool], raised: list[BaseException]
) -> Generator[bool, Any, None]:
    """Answer whether to stop after each iteration that is sent, and keep what is raised meanwhile.

    The solver swallows what its callback raises. An interrupt that came while it was busy is raised
    where Python goes on: at the entrance of a function, before any ``try`` of it, but where a
    generator is resumed, inside this one."""
    stop = False
    while True:
        try:
            info = yield stop
            stop = info.iterations > 0 and stops(
                info.iterations, info.cost_primal, info.cost_dual, info.gap_rel
            )
        except GeneratorExit:
            return
        except BaseException as error:
            raised.append(error)
            stop = True
