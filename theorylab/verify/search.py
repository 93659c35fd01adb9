"""Attack an inequality before proving it: search the space of its hypotheses for a
counterexample."""

import inspect
import math
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np

from theorylab._validation import FloatArray, as_count, as_function, as_real
from theorylab.verify.claims import Claim, evaluate
from theorylab.verify.evidence import Evidence, Grade
from theorylab.verify.spaces import Domain, as_space, contains, dimension, instance_at, same

__all__ = ["Falsification", "SearchStatus", "falsify"]

EVOLUTION_DIMENSION = 8
FRESH_SEEDS = 5
MORE_SAMPLES = 4


class SearchStatus(StrEnum):
    """How a search ended."""

    COUNTEREXAMPLE = "a counterexample was found, confirmed and shrunk"
    NONE_FOUND = "no counterexample within the budget; the tightest instance is returned"
    UNDECIDED = "every instance tried was inconclusive"


@dataclass(frozen=True)
class Falsification:
    """The end of a search.

    Attributes
    ----------
    status
        How the search ended.
    instance
        The (shrunk) counterexample, or the instance with the least margin; None if all were
        inconclusive.
    evidence
        The evidence at that instance.
    evaluations, inconclusive
        How many instances were judged, and how many of them decided nothing.
    """

    status: SearchStatus
    instance: Mapping[str, Any] | None
    evidence: Evidence | None
    evaluations: int
    inconclusive: int

    @property
    def found(self) -> bool:
        """Whether there is a counterexample."""
        return self.status is SearchStatus.COUNTEREXAMPLE


class _Stop(Exception):
    """The budget is used up, or a counterexample was found."""


class _Search:
    """The state of one search: the least margin so far, counts, and the clock."""

    def __init__(
        self, check: Callable[..., Evidence], space: Mapping[str, Domain], budget: float, seed: int
    ) -> None:
        self.check, self.space, self.budget, self.seed = check, space, budget, seed
        self.deadline = time.monotonic() + budget
        self.evaluations = self.undecided = 0
        self.best: tuple[dict[str, Any], Evidence] | None = None

    def judge(self, instance: Mapping[str, Any]) -> Evidence:
        self.evaluations += 1
        evidence = evaluate(self.check, instance, self.seed)
        self.undecided += not evidence.decides
        return evidence

    def margin(self, u: FloatArray) -> float:
        """Objective of the minimisers; an inconclusive instance is no better than a certain one."""
        if time.monotonic() > self.deadline:
            raise _Stop
        instance = instance_at(self.space, np.clip(u, 0.0, 1.0))
        evidence = self.judge(instance)
        if not evidence.decides:
            return 1.0
        if self.best is None or evidence.margin < self.best[1].margin:
            if _false(evidence) and not self.confirmed(instance, evidence):
                self.undecided += 1
                return 0.0
            self.best = (instance, evidence)
            if _false(evidence):
                raise _Stop
        return evidence.margin

    def confirmed(self, instance: Mapping[str, Any], evidence: Evidence) -> bool:
        """Judge a statistical candidate again, on fresh seeds and with more samples where the check
        takes ``n_samples``."""
        if evidence.grade is not Grade.STATISTICAL:
            return True
        target = self.check.check if isinstance(self.check, Claim) else self.check
        parameter = inspect.signature(target).parameters.get("n_draws")
        more = dict(instance)
        if parameter is not None:
            more["n_draws"] = MORE_SAMPLES * int(instance.get("n_draws", parameter.default))
        fresh = np.random.SeedSequence([self.seed, 1]).generate_state(FRESH_SEEDS)
        return all(_false(evaluate(self.check, more, int(s))) for s in fresh)

    def shrink(self, instance: dict[str, Any]) -> dict[str, Any]:
        """Replace values by simpler ones as long as the claim stays false, for at most the budget
        once more."""
        deadline = time.monotonic() + self.budget
        for _ in range(3):
            before = self.evaluations
            changed = False
            for name, domain in self.space.items():
                for value in domain.simpler(instance[name], instance):
                    candidate = {**instance, name: value}
                    if time.monotonic() > deadline or self.evaluations - before > 500:
                        break
                    if same(value, instance[name]) or not contains(self.space, candidate):
                        continue
                    evidence = self.judge(candidate)
                    if _false(evidence) and self.confirmed(candidate, evidence):
                        instance, changed = candidate, True
                        break
            if not changed:
                break
        return instance


def falsify(
    check: Callable[..., Evidence],
    space: Mapping[str, Domain] | None = None,
    *,
    budget: float = 10.0,
    seed: int = 0,
) -> Falsification:
    """Search the space of hypotheses for an instance in which the check is decisively false.

    Differential evolution up to 8 coordinates, multi-start quasi-Newton above, both on the margin
    over the unit cube. A candidate of statistical grade is judged again on fresh seeds (with four
    times the draws if the check takes ``n_draws``) before it counts. A counterexample is shrunk to
    simpler values that still refute.

    Parameters
    ----------
    check
        A claim, or any function ``check(**instance[, seed]) -> Evidence``.
    space
        Keyword -> domain; a claim's own space by default.
    budget
        Seconds of search; shrinking takes at most as many again. A check that runs is not
        interrupted.
    seed
        Of the search and of the check.

    Returns
    -------
    Falsification
        With the counterexample, or the tightest instance seen.

    Raises
    ------
    ValueError
        If there is no space to search, or the budget is not positive.
    """
    from scipy.optimize import Bounds, differential_evolution, minimize
    from scipy.stats import qmc

    as_function(check, "check")
    hypotheses = space if space is not None else check.space if isinstance(check, Claim) else None
    if not (isinstance(hypotheses, Mapping) and hypotheses):
        raise ValueError(
            "space: expected the space of the hypotheses, got none; only the "
            "declared cases of this claim are judged"
        )
    search = _Search(
        check,
        as_space(hypotheses),
        as_real(budget, "budget", above=0.0),
        as_count(seed, "seed", minimum=0),
    )
    d = dimension(hypotheses)
    box = Bounds(np.zeros(d), np.ones(d))
    rng = np.random.default_rng(seed)
    try:
        # Corners first: extremal instances sit there more often than a random start finds them.
        for corner in (0.0, 1.0):
            search.margin(np.full(d, corner))
        if d <= EVOLUTION_DIMENSION:
            while True:
                differential_evolution(
                    search.margin, box, rng=rng, popsize=12, maxiter=60, tol=1e-10, polish=True
                )
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore"
            )  # Sobol sizes that are no power of two lose balance, which a search does not need
            sobol = qmc.Sobol(d, rng=rng)
            while True:
                minimize(
                    search.margin,
                    sobol.random()[0],
                    method="L-BFGS-B",
                    bounds=box,
                    options={"maxfun": 40 * d},
                )
    except _Stop:
        pass
    except RuntimeError as error:
        # SciPy takes what the check raises for an error in its own call.
        if isinstance(error.__cause__, TypeError | ValueError):
            raise error.__cause__ from None
        raise
    if search.best is None:
        return Falsification(
            SearchStatus.UNDECIDED, None, None, search.evaluations, search.undecided
        )
    instance, evidence = search.best
    if not _false(evidence):
        return Falsification(
            SearchStatus.NONE_FOUND, instance, evidence, search.evaluations, search.undecided
        )
    instance = search.shrink(instance)
    evidence = search.judge(instance)
    return Falsification(
        SearchStatus.COUNTEREXAMPLE, instance, evidence, search.evaluations, search.undecided
    )


def _false(evidence: Evidence) -> bool:
    return evidence.decides and evidence.holds is False and math.isfinite(evidence.margin)
