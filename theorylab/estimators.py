"""scikit-learn estimators: small ReLU networks trained to certified global optimality (needs the
package scikit-learn).

Both solve the problem of :func:`theorylab.convex_relu.train` on standardised inputs with penalised
biases. The penalty is given relative to the smallest one at which the network vanishes, so that it
means the same on every data set. Up to 50 samples or three features the network is optimal up to
``tol``; beyond, neurons are sought by local searches, and ``gap_`` is what a semidefinite bound
proves, an upper end that may be far above the truth. With sampled arrangements ``gap_`` is that of
the restricted problem, and ``global_gap_`` bounds how far the network is from optimal among all."""

from __future__ import annotations

import warnings
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit, log_expit, softmax

try:
    from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
    from sklearn.preprocessing import StandardScaler
    from sklearn.utils import check_random_state
    from sklearn.utils.multiclass import check_classification_targets, unique_labels
    from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data
except ImportError as error:
    raise ImportError(
        "theorylab.estimators needs scikit-learn: pip install 'theorylab[sklearn]'"
    ) from error

from theorylab._validation import FloatArray, as_count, as_flag, as_real
from theorylab.convex_relu import (
    Round,
    TrainingResult,
    Weighted,
    sample_arrangements,
    train,
    zero_threshold,
)

__all__ = ["ConvexReLUClassifier", "ConvexReLURegressor"]

LARGE_GAP = 0.1
# Beyond both of these an exhaustive search for neurons is out of reach, the bias counted as one of
# the columns.
MAX_EXACT_SAMPLES = 50
MAX_EXACT_COLUMNS = 4
LOCAL_ROUNDS = 10


class _ConvexReLU(BaseEstimator):  # type: ignore[misc]
    """What the regressor and the classifier share: scaling, the choice of arrangements,
    training."""

    def __init__(
        self,
        *,
        relative_beta: float = 0.05,
        n_arrangements: int | None = None,
        skip: bool = False,
        tol: float = 1e-6,
        random_state: Any = None,
        verbose: int = 0,
    ) -> None:
        self.relative_beta = relative_beta
        self.n_arrangements = n_arrangements
        self.skip = skip
        self.tol = tol
        self.random_state = random_state
        self.verbose = verbose

    def _samples(
        self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None, **checks: bool
    ) -> tuple[FloatArray, NDArray[Any], FloatArray | None]:
        """Validate data, targets and weights; leave out samples without weight, which could not be
        standardised and tell nothing."""
        data, targets = validate_data(self, X, y, dtype=np.float64, ensure_min_samples=2, **checks)
        if sample_weight is None:
            return data, targets, None
        weights = _check_sample_weight(
            sample_weight, data, dtype=np.float64, ensure_non_negative=True
        )
        kept = weights > 0
        return data[kept], targets[kept], weights[kept]

    def _train(
        self, X: FloatArray, targets: FloatArray, loss: str, weights: FloatArray | None
    ) -> None:
        relative = as_real(self.relative_beta, "relative_beta", above=0.0)
        skip, tol = as_flag(self.skip, "skip"), as_real(self.tol, "tol", above=0.0, below=1.0)
        # A scaler takes large weights for many samples, and their rounding for all of the variance.
        shares = None if weights is None else weights / weights.max()
        self.scaler_ = StandardScaler().fit(X, sample_weight=shares)
        scaled = self.scaler_.transform(X)
        arrangements: str | NDArray[np.bool_] = "all"
        exhaustive = len(X) <= MAX_EXACT_SAMPLES or X.shape[1] < MAX_EXACT_COLUMNS
        if self.n_arrangements is not None:
            rng = np.random.default_rng(check_random_state(self.random_state).randint(2**31))
            arrangements = sample_arrangements(
                np.column_stack([scaled, np.ones(len(X))]),
                as_count(self.n_arrangements, "n_arrangements"),
                rng=rng,
            )
        weighted = loss if weights is None else Weighted(loss, weights)
        options: dict[str, Any] = {"loss": weighted, "arrangements": arrangements, "bias": True}
        threshold = zero_threshold(scaled, targets, exhaustive=exhaustive, **options)
        if self.n_arrangements is None and not exhaustive:
            options |= {"bound": "root", "max_rounds": LOCAL_ROUNDS}
        if as_count(int(self.verbose is True) or self.verbose, "verbose", minimum=0):
            options["callback"] = self._report
        # Constant targets are fitted by the zero network at any penalty.
        self.beta_ = relative * (threshold if threshold > 0 else 1.0)
        with warnings.catch_warnings():
            if "bound" in options:  # the rounds are meant to be few
                warnings.filterwarnings("ignore", "relative gap .*: stopped after max_rounds")
            self.result_: TrainingResult = train(
                scaled, targets, self.beta_, skip=skip, tol=tol, **options
            )
        self.n_iter_ = max(len(self.result_.history), 1)
        certificate = self.result_.certificate
        if certificate.patterns is not None:
            certificate = certificate.unrestricted(max_nodes=20_000 if exhaustive else 1)
        self.global_gap_ = certificate.gap
        # Where all patterns were used, gap_ says the same.
        if self.n_arrangements is not None and self.global_gap_ > LARGE_GAP:
            warnings.warn(
                f"on the activation patterns used the relative gap is {self.gap_:.1e}, among all "
                f"networks only one of {self.global_gap_:.2g} is certified",
                RuntimeWarning,
                stacklevel=3,
            )

    def _report(self, found: Round) -> None:
        print(
            f"[{type(self).__name__}] objective {found.objective:.6g}, neurons {found.n_neurons}, "
            f"violation {found.violation:.1e}"
        )

    @property
    def gap_(self) -> float:
        """Certified relative duality gap of the problem that was solved."""
        check_is_fitted(self)
        return self.result_.gap

    def _output(self, X: ArrayLike) -> FloatArray:
        check_is_fitted(self)
        data = validate_data(self, X, reset=False, dtype=np.float64)
        return self.result_.network(self.scaler_.transform(data))


class ConvexReLURegressor(RegressorMixin, _ConvexReLU):  # type: ignore[misc]
    """Regression by two-layer ReLU networks of least squares, globally optimal up to
    ``global_gap_``; one network for each output.

    Parameters
    ----------
    relative_beta
        Penalty as a fraction of the smallest one at which the network vanishes.
    n_arrangements
        Number of random directions to whose activation patterns neurons are confined; None for all
        patterns, exhaustively up to 50 samples or three features, and by ten rounds of local
        searches above.
    skip
        Add an unpenalised affine map of the input.
    tol
        Certified relative duality gap.
    random_state
        For the sampled patterns.
    verbose
        Above zero, print the objective, the neurons and the violation of each round.

    Attributes
    ----------
    result_
        The :class:`theorylab.convex_relu.TrainingResult` on standardised inputs, with network and
        certificate.
    gap_, global_gap_
        Certified relative duality gaps: of the problem on the patterns used, and among all
        networks. They agree where all patterns are used; a global gap above 0.1 is warned about.
    beta_
        The penalty that was used.

    Examples
    --------
    >>> model = ConvexReLURegressor(relative_beta=0.1).fit([[-1.0], [0.0], [1.0]], [1.0, 0.0, 1.0])
    >>> model.global_gap_ < 1e-6
    True
    """

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags

    def fit(self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None) -> Self:
        """Train on data of shape (n, d) and targets of shape (n,), or (n, K) for K outputs; the
        squared errors are weighted by ``sample_weight``, shape (n,)."""
        data, targets, weights = self._samples(
            X, y, sample_weight, y_numeric=True, multi_output=True
        )
        targets = np.asarray(targets, dtype=np.float64)
        self.mean_ = np.average(targets, axis=0, weights=weights)
        self._train(data, targets - self.mean_, "squared", weights)
        return self

    def predict(self, X: ArrayLike) -> FloatArray:
        """Return predictions of the shape of the targets."""
        result: FloatArray = self._output(X) + self.mean_
        return result


class ConvexReLUClassifier(ClassifierMixin, _ConvexReLU):  # type: ignore[misc]
    """Classification by two-layer ReLU networks with the logistic loss, one against the rest,
    globally optimal up to ``global_gap_``.

    Parameters and attributes are those of :class:`ConvexReLURegressor`, and ``classes_``.
    """

    def fit(self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None) -> Self:
        """Train on data of shape (n, d) and labels of shape (n,), at least two of them different;
        the losses are weighted by ``sample_weight``, shape (n,)."""
        data, labels, weights = self._samples(X, y, sample_weight)
        check_classification_targets(labels)
        self.classes_ = unique_labels(labels)
        if len(self.classes_) < 2:
            raise ValueError(
                f"y: expected at least two classes, got one class, {self.classes_[0]!r}"
            )
        against_rest = np.where(labels[:, None] == self.classes_, 1.0, -1.0)
        targets = against_rest if len(self.classes_) > 2 else against_rest[:, 1]
        self._train(data, targets, "logistic", weights)
        return self

    def decision_function(self, X: ArrayLike) -> FloatArray:
        """Return the networks' outputs: shape (n,) for two classes, (n, classes) for more."""
        return self._output(X)

    def predict_proba(self, X: ArrayLike) -> FloatArray:
        """Return probabilities of the classes, shape (n, classes): the logistic model's; for more
        than two classes those of one against the rest, divided by their sum."""
        scores = self.decision_function(X)
        if scores.ndim == 1:
            return np.column_stack([expit(-scores), expit(scores)])
        # Far from the data all of them may underflow.
        result: FloatArray = softmax(log_expit(scores), axis=1)
        return result

    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """Return the predicted labels, shape (n,)."""
        scores = self.decision_function(X)
        chosen = (scores > 0).astype(int) if scores.ndim == 1 else scores.argmax(axis=1)
        labels: NDArray[Any] = self.classes_[chosen]
        return labels
