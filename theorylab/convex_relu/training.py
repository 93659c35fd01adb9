r"""Globally optimal two-layer ReLU networks, with a certificate.

Training solves

$$p^\star=\min_{\{u_j,a_j\}}\;L\Big(\sum_j(Xu_j)_+a_j\Big)+\frac\beta2\sum_j\big(\|u_j\|^2+a_j^2\big)$$

over networks of any width. With $p_j=|a_j|u_j$ the penalty becomes $\beta\sum_j\|p_j\|$
and the problem is convex in the measure of neurons: the value is that of the finite program over
the cones of the activation patterns of $X$ (bai2022-efficient, Section 2, where it is the
base of the paper), and of the dual

$$\max_v\;-L^*(-v)\quad\text{subject to}\quad\max_{\|u\|\le1}|v^\top(Xu)_+|\le\beta .$$

The method never forms that program. It keeps the few neurons that are active, brings them to a
local minimum by active-set Newton steps on the faces of the arrangement, and asks whether
$v=-L'(f)$ is feasible: by a covering of the sphere with cones, or by branching on the
signs of rows, that either proves it or returns the neurons to add (conditional gradients, fully
corrective). The end is exact up to rounding; the dual point is the certificate.

For small $\beta$ the residual is a small difference of large numbers. So neurons and
$z=v/\beta$ are refined together by Newton's method on the optimality conditions, in which
$z$ keeps its own digits. At $\beta=0$ what is left is the interpolating network of
least norm, whose dual is $\max_zz^\top y$ subject to $\max_{\|u\|\le1}|z^\top(Xu)_+|
\le1$. Data and targets are divided by powers of two first, so that units do not matter."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from theorylab._validation import FloatArray, as_count, as_flag, as_function, as_real, one_of
from theorylab.convex_relu._attainment import separating_map
from theorylab.convex_relu._drawing import draw_network
from theorylab.convex_relu._dual_norm import climb, node_budget, norm_over_cones, norm_over_sphere
from theorylab.convex_relu._minimiser import Minimiser
from theorylab.convex_relu._network import Network, Output, balanced_network, columns
from theorylab.convex_relu._neurons import Neurons
from theorylab.convex_relu._problem import BoolArray, as_budget, as_patterns, as_problem, augment
from theorylab.convex_relu._reduction import Reduction, reduce_rows
from theorylab.convex_relu._rounds import Problem, Round, Settings, TrainingStatus
from theorylab.convex_relu._verification import with_digits
from theorylab.convex_relu.certificates import Certificate, on_the_margin
from theorylab.convex_relu.losses import Hinge, Interpolation, Loss, Squared
from theorylab.numerics.bounds import power_of_two
from theorylab.numerics.results import result

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["TrainingResult", "train", "zero_threshold"]


@result
class TrainingResult:
    """A trained network and the proof of its quality.

    Parameters
    ----------
    objective, dual_objective
        Value of the network, and the certified lower bound for the problem that was solved: over
        all networks, or over those whose neurons lie in the cones of the given patterns.
    network
        The network.
    certificate
        Dual point; ``certificate.verify()`` checks it independently of training.
    history
        The rounds.
    status
        Why training ended.
    """

    objective: float
    dual_objective: float
    network: Network
    certificate: Certificate
    history: tuple[Round, ...]
    status: TrainingStatus

    @property
    def gap(self) -> float:
        """Certified relative duality gap of the problem that was solved."""
        return self.certificate.gap

    @cached_property
    def global_certificate(self) -> Certificate:
        """The certificate over all activation patterns, loose where the dual constraint cannot be
        decided cheaply."""
        return (
            self.certificate
            if self.certificate.patterns is None
            else self.certificate.unrestricted()
        )

    @property
    def global_gap(self) -> float:
        """Certified relative gap to the optimum over all activation patterns."""
        return self.global_certificate.gap

    def summary(self) -> str:
        r"""Return what was solved, how well, and why training ended, in a few lines.

        Examples
        --------
        >>> from theorylab.convex_relu import train
        >>> text = train([[1.0], [2.0]], [1.0, 1.0], 0.1).summary()
        >>> print("\n".join(text.splitlines()[:3]))
        data          2 x 1, squared loss, penalty 0.1
        network       1 neuron
        objective     0.159
        """
        c, m = self.certificate, self.network.n_neurons
        rows = [
            (
                "data",
                f"{' x '.join(map(str, c.X.shape))}, {c.loss.name} loss, penalty {c.beta:.6g}",
            ),
            ("network", f"{m} neuron{'s' * (m != 1)}" + ", skip connection" * c.skip),
            ("objective", f"{self.objective:.10g}"),
            ("lower bound", f"{self.dual_objective:.10g}, relative gap {self.gap:.1e}"),
            ("rounds", f"{len(self.history)}"),
        ]
        return "\n".join([*(f"{name:14}{text}" for name, text in rows), self.status.value])

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw the network on its data: a curve with its kinks for one input, a map with the lines
        where neurons bend for two (one output).

        Parameters
        ----------
        ax
            Where to draw; a new figure by default.

        Raises
        ------
        ValueError
            With more than two inputs, or several outputs.
        """
        return draw_network(self.network, self.certificate.X, self.certificate.y, ax)


def train(
    X: ArrayLike,
    y: ArrayLike,
    beta: float,
    *,
    loss: str | Loss = "squared",
    arrangements: str | ArrayLike = "all",
    bias: bool = False,
    skip: bool = False,
    tol: float = 1e-8,
    max_rounds: int = 200,
    max_nodes: int | None = None,
    bound: str = "search",
    callback: Callable[[Round], object] | None = None,
) -> TrainingResult:
    """Train a two-layer ReLU network to certified global optimality.

    Parameters
    ----------
    X, y
        Data, shape (n, d); targets, shape (n,) or (n, K); labels -1 and 1 for logistic and hinge
        losses. Of several outputs the penalty of a neuron is the squared l1 norm of its weights.
    beta
        Penalty: the objective is ``loss + beta / 2 * sum_j (|u_j|^2 + a_j^2)``. At zero (squared
        loss only) the interpolating network of least penalty, which is then the objective.
    loss
        "squared" (half the squared error), "logistic", "hinge", or ``Loss`` (``Weighted``); summed.
    arrangements
        "all", or patterns (P, n), for instance from ``sample_arrangements``, to whose cones ``(2 D
        - I) X u >= 0`` the neurons are confined; ``global_gap`` is then that of the whole problem.
    bias, skip
        Give every neuron a bias, penalised like a weight; add an unpenalised linear map of the
        input (affine with ``bias``), which needs a minimiser (no separable labels).
    tol
        Relative duality gap, certified.
    max_rounds, max_nodes
        Budgets: rounds, and nodes of an exhaustive search per sign, by default a quarter of a
        minute. A node is a cone up to rank four (five for n > 80), else a choice of signs of rows;
        where they do not suffice, the dual point is scaled to the best bound that is proved.
    bound
        How the dual constraint is decided: "search" exhaustively; "root" by a semidefinite bound
        after local searches for neurons; "sdp" with the dual point that is best for that bound.
    callback
        Called with each :class:`Round`; training stops where it returns True.

    Returns
    -------
    TrainingResult
        Objective, certified bound, balanced network, certificate, history, status. (The convex
        program and its dual: bai2022-efficient, Section 2.)

    Examples
    --------
    >>> from theorylab.convex_relu import train
    >>> solution = train([[1.0, 0.5], [-0.5, 1.0], [0.3, -1.2]], [0.5, -1.0, 0.3], 0.1)
    >>> round(solution.objective, 6), solution.status.name, solution.certificate.verify().accepted
    (0.137378, 'CERTIFIED', True)
    """
    session = Session(
        X,
        y,
        loss=loss,
        arrangements=arrangements,
        bias=bias,
        skip=skip,
        tol=tol,
        max_rounds=max_rounds,
        max_nodes=max_nodes,
        bound=bound,
        callback=callback,
    )
    result = session.train(beta)
    if result.status not in (TrainingStatus.CERTIFIED, TrainingStatus.LOCAL):
        warnings.warn(
            f"relative gap {result.gap:.1e}: {result.status.value}", RuntimeWarning, stacklevel=2
        )
    return result


class Session:
    """Training on the same data at several penalties, each started from the neighbours solved.

    Parameters
    ----------
    X, y, loss, arrangements, bias, skip, tol, max_rounds, max_nodes, bound, callback
        As for ``train``.
    """

    def __init__(
        self,
        X: ArrayLike,
        y: ArrayLike,
        *,
        loss: str | Loss = "squared",
        arrangements: str | ArrayLike = "all",
        bias: bool = False,
        skip: bool = False,
        tol: float = 1e-8,
        max_rounds: int = 200,
        max_nodes: int | None = None,
        bound: str = "search",
        callback: Callable[[Round], object] | None = None,
    ) -> None:
        X, y, _, self.loss = as_problem(X, y, 1.0, loss)
        # Copies: what was certified stays what it was.
        self.X, self.y = X.copy(), y.copy()
        self.patterns = as_patterns(arrangements, self.X.shape[0])
        self.bias, self.skip = as_flag(bias, "bias"), as_flag(skip, "skip")
        self.settings = Settings(
            self.skip,
            as_real(tol, "tol", above=0.0, below=1.0),
            as_count(max_rounds, "max_rounds"),
            as_budget(max_nodes),
            columns(self.y).shape[1],
            one_of(bound, "bound", ["search", "root", "sdp"]),
            as_function((lambda record: None) if callback is None else callback, "callback"),
        )
        self.data = augment(self.X, self.bias)
        # Exact divisions: nothing below depends on units.
        self.unit = power_of_two(np.linalg.norm(self.data, axis=1))
        self.memory: list[_Memory] = [[] for _ in range(self.y.size // len(self.y))]
        self.problem = self._problem(np.ones(len(self.X), dtype=bool))

    def _problem(self, rows: BoolArray) -> Problem:
        patterns = self.patterns
        if patterns is not None:
            patterns = np.ascontiguousarray(patterns[:, rows])
        return Problem(np.ascontiguousarray(self.data[rows] / self.unit), patterns, self.settings)

    def train(self, beta: float) -> TrainingResult:
        """Return the optimum at one penalty, without a warning."""
        beta = as_real(beta, "beta", minimum=0.0)
        loss = self.loss
        if beta == 0.0:
            if not isinstance(loss.base, Squared):
                raise ValueError(f"beta: expected > 0 for the {loss.name} loss, got 0.0")
            loss, beta = Interpolation(), 1.0
        X, y = self.X, self.y
        outputs, duals, histories, statuses = zip(
            *(
                self._output(np.ascontiguousarray(t), beta, loss, memory)
                for t, memory in zip(columns(y).T, self.memory, strict=True)
            ),
            strict=True,
        )
        network = balanced_network(outputs, self.bias, y.ndim)
        dual = np.column_stack(duals).reshape(y.shape)
        certificate = Certificate(
            X,
            y,
            beta,
            loss,
            self.bias,
            self.skip,
            self.patterns,
            network,
            dual,
            loss.value(network(X), y) + beta * network.penalty,
            loss.dual(dual, y),
        )
        if isinstance(loss.base, Hinge):
            certificate = on_the_margin(certificate)
        certificate = with_digits(certificate, self.settings.tol)
        certified, unattained = TrainingStatus.CERTIFIED, TrainingStatus.UNATTAINED
        if unattained in statuses:
            status = unattained
        elif certificate.gap <= self.settings.tol:
            status = certified
        else:
            status = next((s for s in statuses if s is not certified), TrainingStatus.STALLED)
        return TrainingResult(
            certificate.objective,
            certificate.dual_objective,
            certificate.network,
            certificate,
            tuple(r for history in histories for r in history),
            status,
        )

    def forget(self) -> bool:
        """Forget the penalties solved; return whether there were any."""
        known = any(self.memory)
        for memory in self.memory:
            memory.clear()
        return known

    def threshold(self) -> float:
        """Return the least penalty for which the zero network is optimal, over all patterns."""
        return self.unit * _threshold(self.problem.reduction, self.y, self.loss)

    def dual(self) -> FloatArray:
        """Return the dual point of the last training, refined and not scaled into the constraint
        (squared or smooth loss, one output)."""
        beta, state, v = self.memory[0][-1]
        scale = power_of_two(self.y) if self.loss.degree is not None else 1.0
        minimiser = Minimiser(self.problem.pricing, self.loss, beta, self.loss.curvature_bound)
        _, v, _ = minimiser.refine(state, self.y / scale, v, tol=1e-15)
        result: FloatArray = scale ** max((self.loss.degree or 0) - 1, 0) * v
        return result

    def _output(
        self, y: FloatArray, beta: float, loss: Loss, memory: _Memory
    ) -> tuple[Output, FloatArray, list[Round], TrainingStatus]:
        """Train one output in normalised units."""
        problem, rest = self.problem, np.ones(len(y), dtype=bool)
        escape = np.zeros(self.data.shape[1])
        if self.skip and not loss.attained:
            escape = separating_map(problem.data, y)
            rest = ~(y * (problem.data @ escape) > 0.5)
            if not rest.all():
                # What is left of the infimum is the optimum on the other rows.
                problem = self._problem(rest) if rest.any() else problem
                memory = []
        scale = power_of_two(y) if loss.degree is not None else 1.0
        degree = loss.degree or 0
        if isinstance(loss, Interpolation):
            # Any weight of the norm will do; a small one starts close to the constraint.
            size = float(np.linalg.norm(problem.data.T @ (y / scale)))
            level = 1e-3 * (size if size > 0.0 else 1.0)
            over, back = level, beta / self.unit
            unit = beta * scale / (self.unit * level)
        else:
            level = beta / self.unit * scale ** (1 - degree)
            over, back = 1.0, scale ** max(degree - 1, 0)
            unit = scale**degree
        dual, history, status = np.zeros(len(y)), list[Round](), TrainingStatus.CERTIFIED
        points, sigma, first = np.zeros((0, len(escape))), np.zeros(0), np.zeros(len(escape))
        if rest.any():
            start = _between(memory, level)
            fit = problem.solve(y[rest] / scale, level, loss.on_rows(rest), start, unit)
            memory.append((level, fit.neurons, fit.found))
            k = fit.neurons.linear
            points, sigma = fit.neurons.p @ problem.reduction.basis, fit.neurons.sigma[k:]
            points, first = points[k:], points[:k].sum(axis=0)
            dual[rest], history, status = fit.dual / over * back, fit.history, fit.status
        if not rest.all():
            status = TrainingStatus.UNATTAINED
            beaten = self.problem.data[~rest]
            needed = 50.0 + np.abs(np.maximum(beaten @ points.T, 0.0) @ sigma + beaten @ first)
            first = first + escape * float((needed / np.abs(beaten @ escape)).max())
        factor = scale / self.unit
        return Output(factor * points, sigma, factor * first), dual, history, status


def zero_threshold(
    X: ArrayLike,
    y: ArrayLike,
    *,
    loss: str | Loss = "squared",
    arrangements: str | ArrayLike = "all",
    bias: bool = False,
    exhaustive: bool = True,
) -> float:
    """Return the smallest ``beta`` for which the zero network is optimal, the dual norm of
    ``-L'(0)``.

    Parameters
    ----------
    X, y, loss, arrangements, bias
        The problem, as for ``train``.
    exhaustive
        Whether all activation patterns are searched; otherwise the largest value that local
        searches find is returned, a lower bound.

    Returns
    -------
    float
        The threshold, an upper bound within 1e-10 where the search ends within its budget (where
        terms cancel, within the rounding of their sum); zero where it is not told from the rounding
        of the data and the labels.

    Raises
    ------
    ValueError
        For malformed data or labels.

    Examples
    --------
    >>> from theorylab.convex_relu import train, zero_threshold
    >>> X, y = [[1.0, 0.5], [-0.5, 1.0], [0.3, -1.2]], [0.5, -1.0, 0.3]
    >>> beta = zero_threshold(X, y)
    >>> [len(train(X, y, t * beta).network.output_weights) for t in (1.01, 0.99)]
    [0, 1]
    """
    X, y, _, loss = as_problem(X, y, 1.0, loss)
    patterns = as_patterns(arrangements, X.shape[0])
    data, exhaustive = augment(X, as_flag(bias, "bias")), as_flag(exhaustive, "exhaustive")
    reduction = reduce_rows(data)
    if patterns is None and exhaustive:
        return _threshold(reduction, y, loss)

    def norm(v: FloatArray) -> float:
        if reduction.cancels(v):
            return 0.0
        if patterns is None:
            return climb(reduction.data, v)[0]
        found = norm_over_cones(data, v, patterns)
        # The upper bound is larger by the rounding of both.
        known = found.value > 2.0 * (found.value - found.attained)
        return min(found.value, reduction.crude(v)) if known else 0.0

    return max(norm(v) for v in _at_zero(y, loss))


def _threshold(reduction: Reduction, y: FloatArray, loss: Loss) -> float:
    """Return the threshold over all patterns."""
    points = _at_zero(y, loss)
    nodes = node_budget(reduction, None, len(points))
    return max(
        0.0
        if reduction.cancels(v)
        else min(norm_over_sphere(reduction, v, 1e-10, nodes).value, reduction.crude(v))
        for v in points
    )


def _at_zero(y: FloatArray, loss: Loss) -> FloatArray:
    """Return the dual points of the zero network, one a row."""
    if isinstance(loss, Interpolation):
        raise ValueError("loss: expected one that is finite at zero, got interpolation")
    return columns(-loss.gradient(np.zeros_like(y), y)).T


_Memory = list[tuple[float, Neurons, FloatArray]]


def _between(memory: _Memory, beta: float) -> tuple[float, Neurons, FloatArray] | None:
    """Return the mixture for this penalty of its neighbours among those solved, see
    ``solution_path``; the only neighbour, if it has neurons, or None."""
    above = min((m for m in memory if m[0] >= beta), key=lambda m: m[0], default=None)
    below = max((m for m in memory if m[0] < beta), key=lambda m: m[0], default=None)
    if above is None or below is None:
        neighbour = above or below
        return neighbour if neighbour is not None and neighbour[1].norm > 0.0 else None
    weight = (above[0] - beta) / (above[0] - below[0])
    v = (1.0 - weight) * above[2] + weight * below[2]
    return beta, above[1].blend(below[1], weight).pruned(), v
