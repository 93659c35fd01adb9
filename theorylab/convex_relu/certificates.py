r"""Certificates of global optimality for two-layer ReLU networks.

For any dual point $v$ with $\max_{\|u\|\le1}|v^\top(Xu)_+|\le\beta$ the number
$-L^*(-v)$ is a lower bound of

$$p^\star=\min\;L\Big(\sum_j(Xu_j)_+a_j\Big)+\frac\beta2\sum_j\big(\|u_j\|^2+a_j^2\big),$$

so a network and a dual point prove each other's quality. The constraint is decided over the whole
sphere, or over the cones of given patterns, and bounds the networks with neurons there."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike

from theorylab._validation import FloatArray, as_array, as_flag
from theorylab.convex_relu._dual_norm import node_budget, norm_over_cones, norm_over_sphere
from theorylab.convex_relu._dual_point import dual_error, project_skip, scale_dual
from theorylab.convex_relu._network import Network, as_network, columns, value_error
from theorylab.convex_relu._problem import BoolArray, as_budget, as_patterns, as_problem, augment
from theorylab.convex_relu._reduction import Reduction, reduce_rows
from theorylab.convex_relu._verification import Verification, gap_floor, verify, with_digits
from theorylab.convex_relu.losses import Loss
from theorylab.numerics.bounds import relative_gap
from theorylab.numerics.results import result

__all__ = ["Certificate", "certify"]

_EPS = float(np.finfo(np.float64).eps)


@result
class Certificate:
    """A network, a dual point, and the problem for which they prove each other's quality.

    Parameters
    ----------
    X, y, beta, loss, bias, skip, patterns
        The problem, as given to ``train``.
    network
        The network.
    dual
        Dual point, shape of ``y``.
    objective, dual_objective
        Values of the two.
    """

    X: FloatArray
    y: FloatArray
    beta: float
    loss: Loss
    bias: bool
    skip: bool
    patterns: BoolArray | None
    network: Network
    dual: FloatArray
    objective: float
    dual_objective: float

    @property
    def gap(self) -> float:
        """Relative duality gap; values below the rounding error of the loss at zero count as that
        error.

        Raises
        ------
        ArithmeticError
            If the dual value exceeds the objective by more than the rounding of both.
        """
        return relative_gap(
            self.objective,
            self.dual_objective,
            floor=gap_floor(self.loss, self.y),
            # Only rounding may have the two in the other order.
            rounding=_rounding(self) if self.dual_objective > self.objective else 0.0,
        )

    def unrestricted(self, *, max_nodes: int | None = None) -> Certificate:
        """Return the certificate of the same network over all activation patterns.

        Parameters
        ----------
        max_nodes
            Nodes spent on deciding the dual constraint, by default about a third of a second;
            beyond that looser thresholds and the semidefinite bound of the root are used.

        Raises
        ------
        ValueError
            If the count is below one.
        """
        # Copies: kernels are compiled for arrays that are not read-only.
        X, y, beta, loss = as_problem(self.X, self.y, self.beta, self.loss)
        budget = as_budget(max_nodes)
        if budget is None:
            budget = node_budget(reduce_rows(augment(X, self.bias)), None) // 50
        dual = as_array(self.dual, "dual", shape=y.shape)
        return _certificate(
            X, y, beta, loss, self.bias, self.skip, None, self.network, dual, budget
        )

    def verify(self, *, max_nodes: int | None = None) -> Verification:
        """Check everything from scratch, rigorously.

        Parameters
        ----------
        max_nodes
            Largest number of nodes of a search, per sign; by default about a quarter of a minute.

        Returns
        -------
        Verification
            True if accepted; otherwise it says which check failed.

        Raises
        ------
        ValueError
            If an array of the certificate is malformed.
        """
        return verify(self, as_budget(max_nodes))


def certify(
    X: ArrayLike,
    y: ArrayLike,
    beta: float,
    network: Network | tuple[ArrayLike, ArrayLike],
    *,
    loss: str | Loss = "squared",
    arrangements: str | ArrayLike = "all",
    bias: bool = False,
    skip: bool = False,
    dual: ArrayLike | None = None,
    max_nodes: int | None = None,
) -> Certificate:
    """Bound the suboptimality of any network.

    Parameters
    ----------
    X, y, beta, loss, arrangements, bias, skip
        The problem, as for ``train``.
    network
        A ``Network`` or the pair of its weights (m, d) and output weights (m,).
    dual
        Dual point to use, shape of ``y``; scaled into the constraint. By default minus the loss's
        derivative at the network's outputs, which is optimal where the network is. The dual point
        of a trained solution gives the exact suboptimality.
    max_nodes
        Nodes spent on the dual constraint, by default about a quarter of a minute; if they do not
        suffice, as many are spent on looser thresholds and the gap is loose.

    Returns
    -------
    Certificate
        With ``objective``, ``dual_objective``, ``gap`` and ``verify()``.

    Raises
    ------
    ValueError
        For malformed data, a non-positive ``beta``, or a network of the wrong shape.

    Notes
    -----
    bai2022-efficient, Section 2 (the convex program and its dual); weak duality.

    Examples
    --------
    >>> import numpy as np
    >>> from theorylab.convex_relu import certify, Network
    >>> X, y = [[1.0, 0.5], [-0.5, 1.0], [0.3, -1.2]], [0.5, -1.0, 0.3]
    >>> certificate = certify(X, y, 0.1, Network(np.array([[1.0, 0.0]]), np.array([0.4])))
    >>> certificate.verify().accepted, certificate.dual_objective <= certificate.objective
    (True, True)
    """
    X, y, beta, chosen = as_problem(X, y, beta, loss)
    # Copies: what was certified stays what it was.
    X, y = X.copy(), y.copy()
    network = as_network(network, X, y)
    bias, skip = as_flag(bias, "bias"), as_flag(skip, "skip")
    if not bias and np.any(network.biases):
        raise ValueError("network: expected no biases without bias=True, got non-zero ones")
    if not skip and (np.any(network.linear) or np.any(network.offset)):
        raise ValueError("network: expected no skip connection without skip=True, got one")
    patterns = as_patterns(arrangements, X.shape[0])
    start = (
        -chosen.gradient(network(X), y) if dual is None else as_array(dual, "dual", shape=y.shape)
    )
    return _certificate(
        X, y, beta, chosen, bias, skip, patterns, network, start, as_budget(max_nodes)
    )


def _certificate(
    X: FloatArray,
    y: FloatArray,
    beta: float,
    loss: Loss,
    bias: bool,
    skip: bool,
    patterns: BoolArray | None,
    network: Network,
    start: FloatArray,
    max_nodes: int | None,
) -> Certificate:
    """Scale a dual point into the constraint, by the factor that is best for the dual."""
    data = augment(X, bias)
    reduction = reduce_rows(data)
    budget = node_budget(reduction, max_nodes, columns(y).shape[1])
    points = []
    for k, v in enumerate(columns(start).T):
        target = columns(y)[:, k]
        point = project_skip(data, v, target, loss) if skip else v
        points.append(certificate_at(reduction, data, loss, patterns, point, target, beta, budget))
    dual = np.column_stack(points).reshape(y.shape)
    objective = loss.value(network(X), y) + beta * network.penalty
    stated = Certificate(
        X, y, beta, loss, bias, skip, patterns, network, dual, objective, loss.dual(dual, y)
    )
    return with_digits(stated, 0.0)


def certificate_at(
    reduction: Reduction,
    data: FloatArray,
    loss: Loss,
    patterns: BoolArray | None,
    v: FloatArray,
    y: FloatArray,
    beta: float,
    max_nodes: int,
    bound: str = "search",
) -> FloatArray:
    """Return v scaled into the dual constraint, see ``norm_over_sphere``."""
    norm = (
        norm_over_sphere(reduction, v, 1e-10, max_nodes, bound=bound)
        if patterns is None
        else norm_over_cones(data, v, patterns)
    )
    least = min(norm.value, reduction.crude(v))
    scaled = scale_dual(loss, v, y, beta, reduction.rounded(v, least))
    # As it stands v is not rounded.
    feasible = least <= beta * (1.0 - 1e-12)
    return v if feasible and loss.dual(v, y) >= loss.dual(scaled, y) else scaled


def _rounding(c: Certificate) -> float:
    """Bound what float64 takes from the difference of the two values."""
    return dual_error(c.dual, c.y, c.loss) + _value_error(c)


def _value_error(c: Certificate) -> float:
    return value_error(c.network, c.X, c.y, c.beta, c.loss)


def on_the_margin(c: Certificate) -> Certificate:
    """Scale a network so that margins that should be one are certainly not less: at small penalties
    their rounding costs more than the scaling."""
    m = c.y * c.network(c.X)
    close = m[np.abs(m - 1.0) < 1e-6]
    if close.size == 0:
        return c
    w, best, least = c.network, c, c.objective + _value_error(c)
    # Outputs that are differences of large numbers, of a skip connection, need more.
    for excess in (4.0 * _EPS, 1e-13, 1e-11, 1e-9):
        factor = 1.0 / float(close.min()) + excess
        network = Network(
            w.weights, factor * w.output_weights, w.biases, factor * w.linear, factor * w.offset
        )
        # Balanced only up to rounding, which is of second order in the penalty.
        objective = c.loss.value(network(c.X), c.y) + c.beta * network.penalty
        scaled = replace(c, network=network, objective=objective)
        if (most := objective + _value_error(scaled)) < least:
            best, least = scaled, most
    return best
