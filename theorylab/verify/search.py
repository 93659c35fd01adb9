"""Attack an inequality before proving it: search its hypotheses for a counterexample."""

import inspect
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np

from theorylab._validation import FloatArray, as_count, as_function, as_real
from theorylab.verify.claims import Claim
from theorylab.verify.comparison import Part, compare
from theorylab.verify.enclosures import Grade, within
from theorylab.verify.kernel import evaluate
from theorylab.verify.simulations import forget
from theorylab.verify.spaces import Domain, Int, as_space, dimension, instance_at, simpler

__all__ = ["Falsification", "SearchStatus", "falsify"]

EVOLUTION_DIMENSION = 8
FRESH_SEEDS, MORE_SAMPLES, FEW = 5, 4, 50
SEEDS = Int(0, 2**16)


class SearchStatus(StrEnum):
    """How a search ended."""

    COUNTEREXAMPLE = "a counterexample was found, confirmed and shrunk"
    NONE_FOUND = "no counterexample within the budget; the tightest instance is returned"
    TOO_FEW = "the budget ended after fewer than 50 instances, which says little; raise it"
    UNDECIDED = "every instance tried was inconclusive"


@dataclass(frozen=True, eq=False)
class Falsification:
    """The end of a search: the (shrunk) counterexample or the instance with the least margin.

    It is None, like its ``seed`` and worst ``part``, if all ``evaluations`` were ``inconclusive``.
    """

    status: SearchStatus
    instance: Mapping[str, Any] | None
    seed: int | None
    part: Part | None
    evaluations: int
    inconclusive: int

    @property
    def found(self) -> bool:
        """Whether there is a counterexample."""
        return self.status is SearchStatus.COUNTEREXAMPLE


class _Stop(Exception):
    """The budget is used up, or a counterexample was found."""


class _Search:
    """The state of one search: the point with the least margin so far, counts, and the clock,
    which counts instances if it is told to."""

    def __init__(
        self,
        check: Callable[..., Any],
        space: Mapping[str, Domain],
        budget: float,
        counted: bool = False,
    ):
        self.target = check.check if isinstance(check, Claim) else check
        taken = inspect.signature(self.target).parameters
        self.space = {**space, **({"seed": SEEDS} if "seed" in taken else {})}
        self.draws = taken.get("n_draws")
        self.evaluations = self.undecided = 0
        self.now = (lambda: self.evaluations) if counted else time.monotonic
        self.budget, self.deadline = budget, self.now() + budget
        self.best: tuple[FloatArray, Part] | None = None

    def judge(self, u: FloatArray) -> Part | None:
        """Return the part with the least margin, a confirmed one if false; None if none decides."""
        self.evaluations += 1
        if self.evaluations % 64 == 0:
            forget()
        instance = instance_at(self.space, u)
        parts = _parts(self.target, instance)
        false = [p for p in parts.values() if p.holds is False]
        if not false and any(p.holds is None for p in parts.values()):
            return None
        worst = min(false or parts.values(), key=lambda p: p.margin)
        if false and worst.grade is Grade.STATISTICAL and not self._confirmed(instance):
            return None
        return worst

    def _confirmed(self, instance: dict[str, Any]) -> bool:
        """Judge a statistical candidate again on fresh seeds, with more draws if it takes them."""
        more = dict(instance)
        if self.draws is not None:
            more["n_draws"] = MORE_SAMPLES * int(instance.get("n_draws", self.draws.default))
        tries = [more]
        if "seed" in self.space:
            fresh = np.random.SeedSequence([instance["seed"], 1]).generate_state(FRESH_SEEDS)
            tries = [{**more, "seed": int(seed)} for seed in fresh]
        again = (_parts(self.target, one).values() for one in tries)
        return all(any(p.holds is False for p in parts) for parts in again)

    def margin(self, u: FloatArray) -> float:
        """Objective of the minimisers; an inconclusive instance is no better than a certain one."""
        if self.now() >= self.deadline:
            raise _Stop
        point = np.clip(u, 0.0, 1.0)
        part = self.judge(point)
        if part is None:
            self.undecided += 1
            return 1.0
        if self.best is None or part.margin < self.best[1].margin:
            self.best = (point, part)
        if not part.holds:
            raise _Stop
        return part.margin

    def shrink(self, u: FloatArray, part: Part) -> tuple[FloatArray, Part]:
        """Take simpler values as long as the claim stays false, for at most the budget again."""
        deadline = self.now() + self.budget
        candidates = simpler(self.space, u)
        while self.now() < deadline and (candidate := next(candidates, None)) is not None:
            again = self.judge(candidate)
            if again is not None and not again.holds:
                u, part, candidates = candidate, again, simpler(self.space, candidate)
        return u, part


def _parts(target: Callable[..., Any], instance: Mapping[str, Any]) -> Mapping[str, Part]:
    """Return the parts of a check; a pair (lhs, rhs) is read as lhs <= rhs."""

    def read(**given: Any) -> Any:
        result = target(**given)
        if not (isinstance(result, tuple) and len(result) == 2):
            return result
        lhs, rhs = (np.asarray(side, dtype=float) for side in result)
        return compare(within(lhs, 0.0, "rounding"), "<=", rhs)

    return evaluate(read, instance, 0)


def falsify(
    check: Callable[..., Any],
    space: Mapping[str, Domain] | None = None,
    *,
    budget: float = 10.0,
    instances: int | None = None,
    seed: int = 0,
) -> Falsification:
    """Search the space of hypotheses for an instance in which a check is false.

    Differential evolution up to 8 coordinates, multi-start quasi-Newton above, both on the margin
    over the unit cube, of which the seed of a check that takes one is a coordinate. A statistical
    candidate is judged again on fresh seeds (with four times the draws if the check takes
    ``n_draws``) before it counts. A counterexample is shrunk to simpler values that still refute.

    Parameters
    ----------
    check, space
        A claim, or any function of an instance that returns a part, named parts, or a pair
        (lhs, rhs) for lhs <= rhs; and keyword -> domain, by default the claim's own.
    budget, instances, seed
        Seconds of search, between two calls of the check, and as many for shrinking; the number of
        instances in place of seconds, so that a search is the same on every machine; its seed.

    Examples
    --------
    >>> from theorylab.verify import falsify
    >>> from theorylab.verify import Real
    >>> falsify(lambda x: (x, x**3 + 0.3), {"x": Real(0.0, 1.0)}, budget=2.0).found
    True
    """
    from scipy.optimize import Bounds, differential_evolution, minimize
    from scipy.stats import qmc

    as_function(check, "check")
    hypotheses = space if space is not None else getattr(check, "space", None)
    if not hypotheses:
        raise ValueError("space: expected the space of the hypotheses, got none")
    limit = as_real(budget, "budget", above=0.0)
    if instances is not None:
        limit = as_count(instances, "instances")
    search = _Search(check, as_space(hypotheses), limit, counted=instances is not None)
    d = dimension(search.space)
    box = Bounds(np.zeros(d), np.ones(d))
    rng = np.random.default_rng(as_count(seed, "seed", minimum=0))
    try:
        # Corners first: extremal instances sit there more often than a random start finds them.
        for corner in (0.0, 1.0):
            search.margin(np.full(d, corner))
        while d <= EVOLUTION_DIMENSION:
            differential_evolution(search.margin, box, rng=rng, popsize=12, maxiter=60, tol=1e-10)
        sobol = qmc.Sobol(d, rng=rng)
        few: Any = {"method": "L-BFGS-B", "bounds": box, "options": {"maxfun": 40 * d}}
        while True:
            minimize(search.margin, sobol.random()[0], **few)
    except _Stop:
        pass
    except RuntimeError as error:
        # SciPy takes what the check raises for an error in its own call.
        cause = error.__cause__
        raise (cause if isinstance(cause, TypeError | ValueError) else error) from None
    status = SearchStatus.TOO_FEW if search.evaluations < FEW else SearchStatus.NONE_FOUND
    if search.best is None:
        instance, part, status = {}, None, SearchStatus.UNDECIDED
    else:
        u, part = search.best
        if not part.holds:
            status = SearchStatus.COUNTEREXAMPLE
            u, part = search.shrink(u, part)
        instance = instance_at(search.space, u)
    forget()
    found, ended = instance.pop("seed", None), (search.evaluations, search.undecided)
    return Falsification(status, instance if part else None, found, part, *ended)
