"""Assumptions of theorems: held on the spaces of the claims, broken one at a time, and against
independent routes."""

import itertools
import sys
from fractions import Fraction
from functools import cache
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import sympy
from scipy.optimize import linprog

from theorylab import convex_relu, matrix_sensing, neural_collapse
from theorylab import implicit_regularization as ir
from theorylab.implicit_regularization import _assumptions as separation
from theorylab.matrix_sensing import lifting
from theorylab.numerics.assumptions import (
    distinct_eigenvalues,
    independent_rows,
    positive_definite,
    singular_value_gap,
)
from theorylab.verify import applies, checkable_theorems
from theorylab.verify.checkout import load
from theorylab.verify.spaces import edges

ROOT = Path(__file__).parents[2]


@cache
def script(name):
    """Return the claims of an experiment by slug, and its module."""
    experiment = load(ROOT / "experiments" / f"{name}.py")
    module = sys.modules["theorylab_experiment_" + name.replace("/", "_")]
    return {claim.slug: claim for claim in experiment.claims}, module


def helper(name, function):
    return getattr(script(name)[1], function)


def orthogonal(rng, n, k=None):
    return np.linalg.qr(rng.standard_normal((n, k or n)))[0]


# ------------------------------------------------- data inside the hypotheses, from a claim's space
def whitened(c, rng):
    return {"X": orthogonal(rng, 5, len(c["sigma"]))}


def fitted(c, rng):
    sigma = np.array(c["singular_values"])
    X, Y = helper("convex_relu/parallel_networks", "linear_data")(
        sigma, int(rng.integers(99)), c["n_inputs"]
    )
    return {"X": X, "Y": Y, "widths": np.full(c["depth"] - 1, len(sigma))}


def on_a_line(c, rng):
    line = helper("convex_relu/parallel_networks", "line")
    x = line(c["positive"], c["negative"], int(rng.integers(99)))
    a = c["length"] * orthogonal(rng, 3, 1)[:, 0]
    return {
        "X": np.outer(x, a),
        "y": c["alpha"] * np.maximum(x, 0) + c["gamma"] * np.maximum(-x, 0),
    }


def stable_network(c, rng):
    X = rng.standard_normal((c["n"], c["d"]))
    draw = convex_relu.random_stable_network
    network = draw(X, 1.01 * c["eps"], n_neurons=3, ball=c["ball"], rng=rng)
    return {"network": network, "X": X, "eps": c["eps"], "ball": c["ball"]}


def neuron(c, rng):
    w = np.where(np.arange(c["n_inputs"]) < c["sparsity"], rng.standard_normal(c["n_inputs"]), 0)
    return {"X": rng.standard_normal((c["n_samples"], c["n_inputs"])), "w": w}


def strict_saddle(c, rng):
    problem = matrix_sensing.perturbed_completion(rng.uniform(0.8, 0.99))
    low, high = matrix_sensing.isometry_bounds(problem.matrices)
    return {
        "matrices": problem.matrices,
        "truth": problem.truth,
        "point": problem.spurious,
        "lower": low,
        "upper": high,
    }


def lifted(c, rng):
    A, x = helper("matrix_sensing/lifting", "perturbed")(c["eps"], c["noise"], 3)
    z = np.array([1.0, 0.0, 1.0])
    order = helper("matrix_sensing/lifting", "sufficient")(lifting.escape_ratio(A, z, x, z))
    return {"matrices": A, "truth": z, "point": x, "direction": z, "order": order}


def covariance(c, rng):
    Q = orthogonal(rng, c["n"])
    return {"covariance": (Q * np.cumsum(c["gaps"])) @ Q.T}


def covariance_and_factor(c, rng):
    S = matrix_sensing.random_covariance(np.linspace(c["low"], 3, c["n"]), rng=rng)
    return {"covariance": S, "factor": c["size"] * rng.standard_normal((c["n"], c["k"]))}


def deep_classes(c, rng):
    n, M = np.array(c["counts"]).astype(int), c["n_layers"]
    level = c["level"] * neural_collapse.jump_threshold(M)
    decays = helper("neural_collapse/deep_linear", "decays")(
        level, n.min(), n.sum(), M, c["uneven"]
    )
    return {"counts": n, "widths": np.full(M, len(n) + c["wider"]), "decays": decays}


def balanced(c, rng):
    return {"counts": np.full(c["n_classes"], c["n"]), "dimension": c["d"]}


def smoothed(c, rng):
    return {**balanced(c, rng), "alpha": c["alpha"], "lam": c["lam"]}


def majorities(c, rng):
    counts = rng.permutation([c["large"]] * 2 + [c["small"]] * c["n_small"])
    return {"counts": counts, "dimension": len(counts)}


def masses(c, rng):
    return {"a": rng.dirichlet(np.ones(c["n"])), "b": rng.dirichlet(np.ones(c["m"]))}


def two_least(C):
    """Return the gap of the two least vertices, over all permutations."""
    n = len(C)
    sums = sorted(sum(C[range(n), p]) / n for p in itertools.permutations(range(n)))
    return sums[1] - sums[0]


def cold(c, rng):
    C = rng.random((c["n"], c["n"]))
    return {"C": C, "eta": rng.uniform(1.0, 2.5) * (1 + np.log(c["n"])) / two_least(C)}


def recovered(c, rng):
    clouds = helper("optimal_transport/sum_of_norms", "clouds")
    C, labels = clouds(c["n_classes"], c["size"], c["separation"], int(rng.integers(99)))
    window = import_module("theorylab.optimal_transport").recovery_window(C, labels=labels)
    low = max(window.lower, window.upper / 50)
    assert window.upper > 0
    return {"C": C, "labels": labels, "lam": np.sqrt(low * max(window.upper, low))}


def sorted_pairs(c, rng):
    a, b = np.sort(rng.standard_normal((2, c["n"])) + c["offset"])
    order = rng.permutation(c["n"])
    return {"a": a[order], "b": b[order]}


def particles(c, rng):
    return {
        "particles": c["shift"] + c["stretch"] * rng.random(c["n"]),
        "step_size": c["step"],
    }


def rows(c, rng):
    return {"Z": c["rows"](c["n"], c["d"], c["push"], int(rng.integers(99)))}


def descended(c, rng):
    Z = ir.separable_rows(c["n"], c["d"], push=c["push"], seed=int(rng.integers(99)))
    step = c["share"] * 4 / np.max(np.sum(Z**2, axis=1))
    enough = int(1 / (step * ir.max_margin(Z, np.ones(len(Z))).margin ** 2)) + 1
    return {"Z": Z, "step_size": step, "steps": max(c["steps"], enough)}


def tasks(c, rng):
    drawn = (c["T"], c["n"])
    law = {"d": c["d"], "margin": c["margin"], "spread": c["spread"]}
    return {"tasks": ir.random_tasks(*drawn, **law, seed=int(rng.integers(99)))}


def preconditioned(c, rng):
    problem = helper("implicit_regularization/preconditioned_descent", "problem")
    names = ("n", "spare", "condition", "ratio", "scale")
    X, y, M, _ = problem(*(c[name] for name in names), int(rng.integers(99)))
    step = c["step"] / 2 * ir.metric_step_limit(X, metric=M)
    return {"X": X, "y": y, "metric": M, "step_size": step}


def acute(c, rng):
    X, labels = c["layout"](rng, c["n"], c["mu"], c["jitter"], c["spread"])
    return {"X": X, "labels": labels}


def features(c, rng):
    sizes = 10 ** (c["spread"] * rng.uniform(-1, 1, c["n"]))
    wide = orthogonal(rng, c["n"] + c["spare"])[: c["n"]]
    return {"features": (orthogonal(rng, c["n"]) * sizes) @ wide}


def autoencoder(c, rng):
    n, p = c["n"], c["p"]
    values = c["scale"] / np.cumprod(np.append(1.0, c["decay"])[: min(n, p)])
    after = np.append(values, values[-1] / 1.5)
    lam = after[c["active"] - 1] ** (1 - c["place"]) * after[c["active"]] ** c["place"]
    X = (orthogonal(rng, n, len(values)) * values) @ orthogonal(rng, p, len(values)).T
    return {"X": X, "width": c["k"], "lam": lam}


def power_laws(c, rng):
    return {"alpha": c["alpha"], "beta": c["beta"]}


def modes(c, rng):
    return {
        "eigenvalues": c["eigenvalues"],
        "coefficients": c["coefficients"],
        "noise_variance": c["noise"],
    }


def sphere(c, rng):
    X = rng.standard_normal((c["points"], c["d"]))
    X *= 3.0 / np.linalg.norm(X, axis=1, keepdims=True)
    activation = "relu" if c["phi"] in ("quadratic", "cubic") else c["phi"]  # another conclusion
    law = {"depth": c["depth"], "bias_variance": c["bias"], "activation": activation}
    return {"X": X, **law}


def orthant(c, rng):
    module = "random_features/deep_classifiers"
    X, _, Z = helper(module, "orthant")(c["n"], c["dimension"], int(rng.integers(99)))
    return {"X": X, "X_test": Z, "weights": helper(module, "weights")(c["a"], c["share"])}


def regression(c, rng):
    order = {"frobenius": 2, "nuclear": 1, "spectral": np.inf}[c["norm"]]
    design = helper("random_features/linear_estimators", "design")
    return {
        "X": design(c["n"], c["p"], c["grade"], int(rng.integers(99))),
        "bound": c["share"] * float(np.linalg.norm(np.ones(c["p"]), order)),
        "norm": c["norm"],
    }


# ---------------------------------------------------------- what breaks one assumption, by its name
def skewed(data):
    A = np.array(data["matrices"])
    A[0, 0, 1] += 0.3
    A[0, 1, 0] -= 0.3
    return {"matrices": A}


def weak_direction(data):
    A, z, x = data["matrices"], data["truth"], data["point"]
    ratios = {
        t: lifting.escape_ratio(A, z, x, z + t * np.array([0.0, 1.0, 0.0])) for t in (1.0, 2.0, 4.0)
    }
    worst = max(ratios, key=ratios.get)
    assert ratios[worst] > 1
    return {"direction": z + worst * np.array([0.0, 1.0, 0.0])}


def off_the_line(data):
    left, _, right = np.linalg.svd(data["X"])
    away = left[:, 1] - left[:, :1] @ left[:, :1].T @ left[:, 1]
    return {"X": data["X"] + 0.1 * np.outer(away, right[1])}


def one_sided(data):
    c = np.abs(data["X"] @ np.ones(data["X"].shape[1]))
    return {"X": np.outer(c, np.ones(3)), "y": 2 * c}


def with_entry(name, index, value):
    def change(data):
        array = np.array(data[name], dtype=float)
        array[index] = value(array) if callable(value) else value
        return {name: array}

    return change


def scaled(name, factor):
    return lambda data: {name: factor * np.asarray(data[name])}


def fixed(**values):
    return lambda data: values


SEPARABLE = {"some w separates the rows": lambda data: {"Z": np.vstack([data["Z"], -data["Z"]])}}
STABLE = {
    "every neuron stable: |w.x + b| >= eps |w|_q on all data": lambda data: {
        "eps": 1.01
        * convex_relu.stability_radii(data["network"], data["X"], ball=data["ball"]).min()
    }
}
STATIONARY = {"x is stationary": lambda data: {"point": data["point"] + [0.05, 0.0, 0.0]}}
UNEQUAL = {"classes of equal size": with_entry("counts", 0, lambda n: n[0] + 1)}
NARROW = {
    "dimension at least K - 1": lambda data: {"dimension": len(data["counts"]) - 2},
}

CASES = {
    "convex_relu/parallel_networks:weight-decay-low-rank": (
        whitened,
        {"X'X = I": scaled("X", 1 + 1e-6)},
    ),
    "convex_relu/parallel_networks:deep-linear-gap": (
        fitted,
        {
            "Y in the range of X": lambda d: {
                "Y": d["Y"]
                + 1e-6
                * np.linalg.svd(d["X"])[0][:, np.linalg.matrix_rank(d["X"]) :].sum(1)[:, None]
            },
            "widths at least the rank of X^+ Y": lambda d: {"widths": d["widths"] - 1},
        },
    ),
    "convex_relu/parallel_networks:rank1-three-layer-relu": (
        on_a_line,
        {
            "X of rank one, c a'": off_the_line,
            "c of both signs": one_sided,
            "y = alpha c_+ + gamma c_-": with_entry("y", 0, lambda y: y[0] + 0.01),
        },
    ),
    "convex_relu/robust_training:robust-hinge-identity": (stable_network, STABLE),
    "convex_relu/robust_training:robust-squared-loss": (stable_network, STABLE),
    "convex_relu/layer_pruning:nettrim-equals-basis-pursuit": (
        neuron,
        {"no w . x is 0": with_entry("X", 0, 0.0)},
    ),
    "matrix_sensing/lifting:saddle-bound": (
        strict_saddle,
        {
            "restricted isometry from below: sum <A_i, M>^2 >= lower |M|^2 at rank 2": lambda d: {
                "lower": 1.001 * d["lower"]
            },
            "restricted isometry from above: sum <A_i, M>^2 <= upper |M|^2 at rank 2": fixed(
                upper=0.999
            ),
            **STATIONARY,
            "x is neither z nor -z": lambda d: {"point": -d["truth"]},
            "beta < 1": fixed(lower=1e-3),
        },
    ),
    "matrix_sensing/lifting:sufficient-lifting-order": (
        lifted,
        {
            "A_i symmetric": skewed,
            **STATIONARY,
            "u'K_z u positive": fixed(direction=np.zeros(3)),
            "rho < 1": weak_direction,
            "order above log 3 / log(1 / rho)": lambda d: {"order": d["order"] - 1},
        },
    ),
    "matrix_sensing/bures_wasserstein:critical-points-are-spectral-selections": (
        covariance,
        {
            "the covariance is positive definite": lambda d: {
                "covariance": np.diag(np.arange(len(d["covariance"]), dtype=float))
            },
            "its eigenvalues are distinct": lambda d: {
                "covariance": np.diag(np.append(np.ones(2), np.arange(2, len(d["covariance"]))))
            },
        },
    ),
    "matrix_sensing/bures_wasserstein:bures-nuclear-norm-form": (
        covariance_and_factor,
        {
            "the covariance is positive definite": lambda d: {
                "covariance": d["covariance"] - 2 * np.eye(len(d["covariance"]))
            },
            "Sigma_0^1/2 W of full rank": lambda d: {
                "factor": 0.5 * np.ones((len(d["factor"]), 2))
            },
        },
    ),
    "neural_collapse/deep_linear:collapse-at-every-layer": (
        deep_classes,
        {
            "every width at least K": lambda d: {
                "widths": np.append(d["widths"][1:], len(d["counts"]) - 1)
            },
            "every tau_k below the collapse threshold": scaled("decays", 40.0),
        },
    ),
    "neural_collapse/unconstrained_features:ce-balanced-ufm-closed-form": (
        balanced,
        {**UNEQUAL, **NARROW},
    ),
    "neural_collapse/unconstrained_features:universal-minority-collapse-threshold": (
        majorities,
        {
            "two classes larger than the others, of one size": lambda d: {
                "counts": np.where(
                    np.arange(len(d["counts"])) == np.argmax(d["counts"]), 50, d["counts"]
                )
            },
            "at least two minority classes": fixed(counts=[6, 6, 2]),
            "minority classes of one size": fixed(counts=[6, 1, 6, 2]),
            "dimension at least K": lambda d: {"dimension": len(d["counts"]) - 1},
        },
    ),
    "neural_collapse/label_smoothing:ufm-minimisers-coincide": (
        smoothed,
        {
            **UNEQUAL,
            **NARROW,
            "K t < 1 for t = alpha / K + sqrt(n) lambda": lambda d: {
                "lam": 1.01 * (1 - d["alpha"]) / len(d["counts"]) / np.sqrt(d["counts"][0])
            },
        },
    ),
    "optimal_transport/sinkhorn_newton:lyapunov-hessian": (
        masses,
        {
            "a and b positive": lambda d: {"b": np.append(d["b"], 0.0)},
            "a and b of sum 1": scaled("a", 1.1),
        },
    ),
    "optimal_transport/sinkhorn_newton:vertex-gap-bound-on-plan": (
        cold,
        {
            "one optimal assignment": lambda d: {
                "C": np.add.outer(np.arange(len(d["C"])), np.ones(len(d["C"])))
            },
            "eta >= (1 + log n) / Delta": scaled("eta", 0.38),
        },
    ),
    "optimal_transport/sum_of_norms:class-recovery-window": (
        recovered,
        {
            "classes of equal size": with_entry("labels", -1, 0),
            "lambda at or above the lower end of the window": scaled("lam", 0.001),
            "lambda at or below the upper end of the window": scaled("lam", 1000.0),
        },
    ),
    "optimal_transport/particle_flows:displacement-convexity-needs-sorting": (
        sorted_pairs,
        {"one permutation sorts a and b": scaled("a", -1.0)},
    ),
    "optimal_transport/particle_flows:particle-gd-rate": (
        particles,
        {
            "distinct particles": with_entry("particles", 0, lambda w: w[-1]),
            "step in (0, 1/2]": fixed(step_size=0.51),
        },
    ),
    "implicit_regularization/perceptron_limit:batch-perceptron-complexity": (rows, SEPARABLE),
    "implicit_regularization/perceptron_limit:vanishing-loss-needs-large-weights": (
        descended,
        {
            **SEPARABLE,
            "steps at most 4 / R^2": lambda d: {
                "step_size": 4.04 / np.max(np.sum(d["Z"] ** 2, axis=1))
            },
            "mu^2 eta t at least 1": lambda d: {"step_size": 1e-6 * d["step_size"]},
        },
    ),
    "implicit_regularization/sequential_projections:fejer-and-step-summability": (
        tasks,
        {
            "the tasks have a common separator": lambda d: {
                "tasks": [*d["tasks"], -np.asarray(d["tasks"][0])]
            }
        },
    ),
    "implicit_regularization/preconditioned_descent:preconditioned-gd-min-norm": (
        preconditioned,
        {
            "X of full row rank": with_entry("X", 0, 0.0),
            "y is not 0": scaled("y", 0.0),
            "the metric is positive definite": with_entry("metric", (0, 0), 0.0),
            "step positive and below 2 / lambda_max": lambda d: {
                "step_size": 1.01 * ir.metric_step_limit(d["X"], metric=d["metric"])
            },
        },
    ),
    "implicit_regularization/neuron_alignment:early-alignment": (
        acute,
        {
            "all cosines of two y_i x_i positive": with_entry("labels", 0, lambda y: -y[0]),
            "at least two samples": lambda d: {"X": d["X"][:1], "labels": d["labels"][:1]},
        },
    ),
    "implicit_regularization/logistic_features:spectral-decoupling": (
        features,
        {"linearly independent rows": with_entry("features", -1, lambda A: 2 * A[0])},
    ),
    "implicit_regularization/linear_autoencoders:separately-regularised-unique": (
        autoencoder,
        {
            "lambda positive": fixed(lam=-0.1),
            "sigma_k > sigma_k+1, or sigma_k+1 <= lambda < sigma_1": fixed(
                X=np.diag([3.0, 2.0, 2.0, 1.0]), width=2, lam=0.5
            ),
        },
    ),
    "random_features/eigenframework:overfitting-obligatory-fitting-ratio": (
        power_laws,
        {
            "alpha above 1": fixed(alpha=1.0, beta=1.5),
            "beta above 1 and at most 2 alpha": lambda d: {"beta": 2.01 * d["alpha"]},
        },
    ),
    "random_features/eigenframework:more-is-better-monotone": (
        modes,
        {
            "sum of lambda_i v_i^2 positive": scaled("coefficients", 0.0),
            "noise positive": fixed(noise_variance=0.0),
        },
    ),
    "random_features/neural_tangent:ntk-positive-definite": (
        sphere,
        {
            "points on a sphere": with_entry("X", 0, lambda X: 1.001 * X[0]),
            "distinct points": with_entry("X", 0, lambda X: X[-1]),
            "at least one hidden layer": fixed(depth=0),
            "biases: sigma_b positive": fixed(bias_variance=0.0),
            "activation relu, leaky, erf or sine": fixed(activation="quadratic"),
        },
    ),
    "random_features/deep_classifiers:infinite-depth-regression-collapses": (
        orthant,
        {
            "points on the unit sphere": with_entry("X", 0, lambda X: 1.001 * X[0]),
            "inner products not negative": scaled("X", -1.0),
            "no two points equal": lambda d: {"X_test": np.vstack([d["X_test"], d["X"][:1]])},
            "p of sum 1": scaled("weights", 1.01),
            "p_0 = 0": lambda d: {"weights": d["weights"] + [0.1, 0.0, -0.05, -0.05]},
            "0 < p_1 < 1": fixed(weights=[0.0, 0.0, 0.5, 0.5]),
        },
    ),
    "random_features/linear_estimators:extended-gauss-markov": (
        regression,
        {
            "X of full column rank": with_entry("X", (slice(None), -1), 0.0),
            "0 < C < |I|": scaled("bound", 30.0),
        },
    ),
}


def instances(theorem, count, seed=0):
    name, slug = theorem.split(":")
    claim = script(name)[0].get(slug)
    drawn = edges(claim.space, count, seed) if claim else [{}] * count
    return [CASES[theorem][0](c, np.random.default_rng([seed, i])) for i, c in enumerate(drawn)]


def test_every_theorem_is_tested_and_is_a_claim_or_a_public_bound():
    assert set(CASES) == set(checkable_theorems())
    themes = {theorem.split("/")[0] for theorem in CASES}
    assert len(themes) == 6
    for theorem in CASES:
        name, slug = theorem.split(":")
        module = import_module("theorylab." + name.replace("/", "."))
        assert slug in script(name)[0] or slug.replace("-", "_") in module.__all__


@pytest.mark.parametrize("theorem", CASES)
def test_assumptions_hold_on_the_space_of_the_claim(theorem):
    for data in instances(theorem, 12):
        found = applies(theorem, **data)
        assert found, found.summary()
        assert list(found) == []
        assert not found.undecided
        assert found.held == tuple(checkable_theorems()[theorem].assumptions)


@pytest.mark.parametrize("theorem", CASES)
def test_a_broken_assumption_is_named_alone(theorem):
    breaks = CASES[theorem][1]
    assert set(breaks) == set(checkable_theorems()[theorem].assumptions)
    data = CASES[theorem][0](typical(theorem), np.random.default_rng(5))
    assert applies(theorem, **data)
    for name, change in breaks.items():
        found = applies(theorem, **{**data, **change(data)})
        assert found.failed == (name,), found.summary()
        assert not found
        assert found.findings[name].evidence


def typical(theorem):
    """Return an instance of the space with room to break each assumption."""
    name, slug = theorem.split(":")
    claim = script(name)[0].get(slug)
    wide = {"singular_values": (1.5, 0.7), "n_inputs": 3, "n": 4, "k": 2, "size": 3, "p": 3}
    drawn = edges(claim.space, 6, 7)[5] if claim else {}
    changed = {k: v for k, v in wide.items() if k in drawn}
    if "gaps" in drawn:
        changed["gaps"] = [0.4, 0.6, 1.1, 0.3]
    if "decay" in drawn:
        changed["n"] = 9
    if "separation" in drawn:
        changed["separation"] = 3.0
    return {**drawn, **changed, **{k: 3 for k in ("n_classes", "m") if k in drawn}}


# ------------------------------------------------------------------------------ independent routes
def test_separability_is_that_of_a_linear_program():
    seen = set()
    for seed in range(150):
        rng = np.random.default_rng(seed)
        Z = rng.integers(-2, 3, (rng.integers(1, 6), rng.integers(1, 4))).astype(float)
        n, d = Z.shape
        # The largest t with Zw >= t, |w| <= 1.
        program = linprog(
            np.append(np.zeros(d), -1.0),
            A_ub=np.column_stack([-Z, np.ones(n)]),
            b_ub=np.zeros(n),
            bounds=[(-1, 1)] * d + [(None, 1)],
        )
        found = applies("implicit_regularization/perceptron_limit:batch-perceptron-complexity", Z=Z)
        assert not found.undecided
        assert bool(found) == (-program.fun > 1e-9)
        (finding,) = found.findings.values()
        if found:
            assert (Z @ finding.witness > 0).all()
        else:
            assert finding.witness.min() >= 0
            assert finding.witness.sum() > 0.5
            assert np.abs(finding.witness @ Z).max() < 1e-12
        seen.add(bool(found))
    assert seen == {True, False}


def test_ranks_and_spectra_are_those_of_exact_arithmetic():
    seen = []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        A = rng.integers(-1, 2, (rng.integers(1, 5), rng.integers(1, 5)))
        exact, floats = sympy.Matrix(A.tolist()), A.astype(float)
        independent = exact.rank() == len(A)
        assert independent_rows(floats).holds is independent
        S = A @ A.T + rng.integers(-1, 2) * np.eye(len(A), dtype=int)
        definite = bool(sympy.Matrix(S.tolist()).is_positive_definite)
        assert positive_definite(S.astype(float)).holds is definite
        counted = sympy.Poly(sympy.Matrix(S.tolist()).charpoly()).sqf_part().degree()
        assert distinct_eigenvalues(S.astype(float)).holds is (counted == len(S))
        seen.append((independent, definite, counted == len(S)))
        squares = sorted(map(float, np.linalg.eigvalsh((A.T @ A).astype(float))), reverse=True)
        for k in range(1, A.shape[1]):
            apart = squares[k - 1] - squares[k] > 1e-9
            assert singular_value_gap(floats, k).holds is apart
    assert all(len(set(column)) == 2 for column in zip(*seen, strict=True))


def test_floats_that_are_singular_to_rounding_are_left_open():
    A = np.array([[0.1, 0.3], [0.3, 0.9]])  # as floats, 0.1 * 0.9 is not 0.3 * 0.3
    assert sympy.Matrix([[sympy.Rational(x) for x in row] for row in A.tolist()]).rank() == 2
    assert independent_rows(A).holds is None
    assert independent_rows(np.ones((40, 40))).holds is None  # too large to eliminate
    assert positive_definite(np.ones((40, 40))).holds is None
    assert distinct_eigenvalues(np.eye(40)).holds is None
    assert distinct_eigenvalues(np.diag([1.0, 1 + 1e-16, 1 + 3e-16])).holds is None
    assert positive_definite(np.diag([1.0, 1e-16])).holds is None
    assert positive_definite(np.diag([1.0, 1e-14])).holds
    assert positive_definite(np.diag([1.0, -1e-14])).holds is False
    assert singular_value_gap(np.diag([1.0, 1 + 1e-14]), 1).holds


def test_a_search_that_stops_early_decides_nothing(monkeypatch):
    Z = ir.separable_rows(30, 6, push=0.1, seed=0)
    monkeypatch.setattr(
        separation, "max_margin", lambda X, y: ir.max_margin(X, y, max_iter=1, tol=1e-13)
    )
    theorem = "implicit_regularization/perceptron_limit:vanishing-loss-needs-large-weights"
    with pytest.warns(RuntimeWarning, match="margin is too small"):
        found = applies(theorem, Z=np.vstack([Z, -Z[:1]]), step_size=1e-3, steps=10)
    assert "some w separates the rows" in found.undecided
    assert not found.failed or found.failed == ("mu^2 eta t at least 1",)


def test_rows_whose_units_cannot_be_changed_exactly_are_judged_as_they_are():
    theorem = "implicit_regularization/perceptron_limit:batch-perceptron-complexity"
    Z = np.array([[1e10, 5e-324], [-1e10, 5e-324]])  # separated by the second column alone
    with pytest.warns(RuntimeWarning, match="margin is too small"):
        assert applies(theorem, Z=Z).undecided
    assert applies(theorem, Z=Z * [1.0, 0.0]).failed


def test_a_margin_between_two_bounds_decides_only_beyond_them(monkeypatch):
    theorem = "implicit_regularization/perceptron_limit:vanishing-loss-needs-large-weights"
    Z, name = np.eye(2), "mu^2 eta t at least 1"
    real = ir.max_margin(Z, np.ones(2))
    cases = ((0.9, 1.1), None), ((1.0, 1.1), True), ((0.8, 0.99), False), ((0.8, 1.0), None)
    for ends, holds in cases:
        monkeypatch.setattr(separation, "_margin", lambda _, ends=ends: (real, *ends))
        found = applies(theorem, Z=Z, step_size=0.25, steps=4)
        assert found.findings[name].holds is holds


def test_the_largest_step_is_told_from_a_billionth_less():
    theorem = "implicit_regularization/preconditioned_descent:preconditioned-gd-min-norm"
    data = CASES[theorem][0](typical(theorem), np.random.default_rng(5))
    largest = ir.metric_step_limit(data["X"], metric=data["metric"])
    name = "step positive and below 2 / lambda_max"
    for step, holds in ((1 - 1e-9, True), (1 + 1e-9, False), (1.0, None), (-0.5, False)):
        for size in (1.0, 2.0**300):
            moved = {"metric": size * data["metric"], "step_size": step * largest / size}
            assert applies(theorem, **data | moved).findings[name].holds is holds


def test_the_least_number_of_steps_is_that_of_the_margin():
    theorem = "implicit_regularization/perceptron_limit:vanishing-loss-needs-large-weights"
    Z, name = [[0.6, 0.8], [0.6, -0.8]], "mu^2 eta t at least 1"  # mu = 0.6
    least = 1 / 0.36 / 0.01  # 277.8 steps
    assert applies(theorem, Z=Z, step_size=0.01, steps=int(least) + 1)
    assert list(applies(theorem, Z=Z, step_size=0.01, steps=int(least))) == [name]
    none = applies(theorem, Z=[*Z, [-0.6, 0.8], [-0.6, -0.8]], step_size=0.01, steps=500)
    assert none.undecided == (name,)
    assert list(none) == ["some w separates the rows"]


def test_assignments_are_those_of_all_permutations():
    theorem = "optimal_transport/sinkhorn_newton:vertex-gap-bound-on-plan"
    seen = set()
    for seed in range(60):
        rng = np.random.default_rng(seed)
        n = int(rng.integers(2, 6))
        C = rng.integers(0, 6, (n, n)).astype(float)
        gap = two_least(C)
        eta = rng.uniform(0.5, 2) * (1 + np.log(n)) / max(gap, 0.1)
        found = applies(theorem, C=C, eta=eta)
        unique, cold = found.findings.values()
        assert unique.holds is bool(gap > 1e-9)
        if unique.holds:
            assert cold.holds is bool(eta >= (1 + np.log(n)) / gap)
        else:
            assert cold.holds is None
        seen.add((unique.holds, cold.holds))
    assert len(seen) == 3
    assert applies(theorem, C=[[3.0]], eta=0.1)  # one vertex


def test_sorting_is_by_one_of_all_permutations():
    theorem = "optimal_transport/particle_flows:displacement-convexity-needs-sorting"
    seen = set()
    for seed in range(60):
        rng = np.random.default_rng(seed)
        a, b = rng.integers(0, 4, (2, rng.integers(1, 5))).astype(float)
        sorts = any(
            (np.diff(a[list(p)]) >= 0).all() and (np.diff(b[list(p)]) >= 0).all()
            for p in itertools.permutations(range(len(a)))
        )
        assert bool(applies(theorem, a=a, b=b)) is sorts
        seen.add(sorts)
    assert len(seen) == 2


def isometry(matrices, **bounds):
    truth = np.eye(matrices.shape[1])[0]
    given = {"truth": truth, "point": 0 * truth, "lower": 0.01, "upper": 100.0, **bounds}
    found = applies("matrix_sensing/lifting:saddle-bound", matrices=matrices, **given)
    return list(found.findings.values())[:2]


def test_restricted_isometry_is_refuted_by_a_low_rank_matrix_only():
    # sum <A_i, M>^2 = |M|^2 - 0.9 <I, M>^2 / 3: 0.1 at the identity, 1 - 0.9 * 2 / 3 at rank 2.
    n = 3
    rows, columns = np.triu_indices(n)
    basis = np.zeros((len(rows), n, n))
    for i, (j, k) in enumerate(zip(rows, columns, strict=True)):
        basis[i, j, k] = basis[i, k, j] = 1 if j == k else np.sqrt(0.5)
    packed = np.sum(basis * np.eye(n) / np.sqrt(n), axis=(1, 2))
    root = np.eye(len(rows)) - (1 - np.sqrt(0.1)) * np.outer(packed, packed)
    A = np.tensordot(root, basis, 1)
    assert isometry(A, lower=0.0999)[0].holds
    assert isometry(A, lower=0.11)[0].holds is None
    assert isometry(A, lower=0.399)[0].holds is None
    low = isometry(A, lower=0.401)[0]
    assert low.holds is False
    M = low.witness
    assert np.linalg.matrix_rank(M, 1e-9) == 2
    assert np.sum(np.tensordot(A, M, 2) ** 2) < 0.401 * np.sum(M**2)
    grown = np.tensordot(2 * np.eye(len(rows)) - root, basis, 1)  # (1 + 0.684)^2 at I, 1 elsewhere
    top = (2 - np.sqrt(0.1)) ** 2
    most = 1 + (top - 1) * 2 / 3
    assert isometry(grown, upper=top)[1].holds
    assert isometry(grown, upper=1.01 * most)[1].holds is None
    high = isometry(grown, upper=0.99 * most)[1]
    assert high.holds is False
    assert np.sum(np.tensordot(grown, high.witness, 2) ** 2) > 0.99 * most


def test_the_constants_of_the_saddle_bound():
    data = CASES["matrix_sensing/lifting:saddle-bound"][0]({}, np.random.default_rng(0))
    z, x = data["truth"], data["point"]
    distance = np.sum((np.outer(x, x) - np.outer(z, z)) ** 2)
    edge = data["upper"] * (z @ z) * (x @ x) / distance  # the lower constant at which beta is 1
    assert edge < data["lower"]
    theorem = "matrix_sensing/lifting:saddle-bound"
    assert list(applies(theorem, **data | {"lower": 0.99 * edge})) == ["beta < 1"]
    assert applies(theorem, **data | {"lower": 1.01 * edge})
    # A point near the truth, where it is stationary up to the tolerance only.
    near = applies(theorem, **data | {"point": (1 + 1e-13) * z})
    assert near.failed == ("beta < 1",)
    assert applies(theorem, **data | {"point": (1 + 1e-16) * z}).failed == (
        "x is neither z nor -z",
    )


def test_stationarity_is_that_of_the_gradient():
    rng = np.random.default_rng(0)
    A = rng.standard_normal((8, 3, 3))
    A = A + A.transpose(0, 2, 1)
    z, x = rng.standard_normal((2, 3))
    given = {"matrices": A, "truth": z, "point": x, "lower": 1.0, "upper": 2.0}
    found = applies("matrix_sensing/lifting:saddle-bound", **given, tol=0.99)
    residual = float(found.findings["x is stationary"].evidence.split()[-1])
    full = lifting.lifted_gradient(A, z, x)
    parts = [np.einsum("i,ijk,k", np.einsum("ijk,j,k", A, u, u), A, x) for u in (x, z)]
    expected = np.linalg.norm(parts[0] - parts[1]) / sum(map(np.linalg.norm, parts))
    assert residual == pytest.approx(expected, rel=0.06)
    assert np.allclose(full, 4 * (parts[0] - parts[1]))


def test_the_deep_threshold_is_where_a_class_vanishes():
    theorem = "neural_collapse/deep_linear:collapse-at-every-layer"
    counts = np.array([6, 4, 3])
    for M in (1, 2, 3):
        for level, collapsed in ((0.99, False), (1.01, True)):
            tau = level * neural_collapse.jump_threshold(M)
            decay = (tau * 3**M / counts.sum() ** (M + 1)) ** (1 / (M + 1))
            decays = decay * np.exp(np.arange(M + 1) - M / 2)
            found = applies(theorem, counts=counts, widths=[4] * M, decays=decays)
            assert list(found) == ["every tau_k below the collapse threshold"] * collapsed
            best = neural_collapse.deep_linear_minimizer(counts, decays, dimension=4)
            gone = np.abs(np.diag(best.class_logits)).min() < 1e-9
            assert gone == collapsed


@pytest.mark.parametrize("size", [1e-120, 1e-3, 7.0, 1e120])
def test_scale_free_assumptions_do_not_depend_on_units(size):
    scales = {
        "implicit_regularization/perceptron_limit:vanishing-loss-needs-large-weights": {
            "Z": size,
            "step_size": size**-2,
        },
        "implicit_regularization/preconditioned_descent:preconditioned-gd-min-norm": {
            "X": size,
            "step_size": size**-2,
        },
        "implicit_regularization/neuron_alignment:early-alignment": {"X": size},
        "implicit_regularization/linear_autoencoders:separately-regularised-unique": {
            "X": size,
            "lam": size,
        },
        "convex_relu/parallel_networks:deep-linear-gap": {"X": size},
        "convex_relu/parallel_networks:rank1-three-layer-relu": {"X": size, "y": size},
        "convex_relu/layer_pruning:nettrim-equals-basis-pursuit": {"X": size},
        "matrix_sensing/bures_wasserstein:critical-points-are-spectral-selections": {
            "covariance": size
        },
        "matrix_sensing/bures_wasserstein:bures-nuclear-norm-form": {"factor": size},
        "optimal_transport/sinkhorn_newton:vertex-gap-bound-on-plan": {"C": size, "eta": 1 / size},
        "optimal_transport/sum_of_norms:class-recovery-window": {"C": size, "lam": size},
        "random_features/neural_tangent:ntk-positive-definite": {"X": size},
        "random_features/linear_estimators:extended-gauss-markov": {"X": size},
    }
    for theorem, units in scales.items():
        data = CASES[theorem][0](typical(theorem), np.random.default_rng(5))
        for change in (None, *CASES[theorem][1].values()):
            broken = {**data, **(change(data) if change else {})}
            moved = {k: np.asarray(v) * units[k] if k in units else v for k, v in broken.items()}
            moved = {k: v.item() if np.ndim(v) == 0 and k in units else v for k, v in moved.items()}
            before, after = applies(theorem, **broken), applies(theorem, **moved)
            assert before.failed == after.failed, (theorem, after.summary())
            assert before.held == after.held


def test_equalities_hold_up_to_the_tolerance():
    theorem, X = "convex_relu/parallel_networks:weight-decay-low-rank", np.eye(3) * (1 + 1e-6)
    assert list(applies(theorem, X=X)) == ["X'X = I"]
    assert applies(theorem, X=X, tol=2.1e-6)
    assert not applies(theorem, X=X, tol=1.9e-6)
    # Columns that are too short, or not orthogonal.
    for wrong in ([[1.0 - 1e-6, 0.0], [0.0, 1.0]], [[1.0, -1e-6], [0.0, 1.0]]):
        assert applies(theorem, X=wrong, tol=2.1e-6)
        assert not applies(theorem, X=wrong, tol=0.9e-6)


def test_the_narrowest_layer_counts_and_widths_are_whole():
    theorem, data = "convex_relu/parallel_networks:deep-linear-gap", {"X": np.eye(3)}
    for widths, wide in (([2, 5], True), ([5, 1, 5], False), ([2], True), ([1], False)):
        assert bool(applies(theorem, **data, Y=np.diag([1.0, 2.0, 0.0]), widths=widths)) is wide
    with pytest.raises(ValueError, match="widths: expected whole numbers"):
        applies(theorem, **data, Y=np.eye(3), widths=[3.5])


def test_a_line_may_lie_in_a_plane_of_the_coordinates():
    theorem = "convex_relu/parallel_networks:rank1-three-layer-relu"
    X = np.outer([1.0, -2.0, 0.5], [0.0, 3.0, 0.0])
    assert applies(theorem, X=X, y=[2.0, 1.0, 1.0])
    assert applies(theorem, X=X, y=[2.0, 1.0, 1.1]).failed == ("y = alpha c_+ + gamma c_-",)
    assert "X of rank one, c a'" in applies(theorem, X=0.0 * X, y=[2.0, 1.0, 1.0]).failed


def test_stability_ends_at_the_distance_in_the_dual_norm():
    theorem = "convex_relu/robust_training:robust-squared-loss"
    network = convex_relu.Network([[8.0, 0.0], [-3.0, 4.0]], np.ones(2), biases=[9.0, 1.0])
    X = np.array([[1.0, 1.0], [2.0, 0.0]])  # |w . x + b| = 2 and 5 for the second neuron
    for ball, end in (("linf", 2 / 7), ("l2", 2 / 5)):
        for factor, stable in ((1.0 - 1e-9, True), (1.0, True), (1.0 + 1e-9, False)):
            found = applies(theorem, network=network, X=X, eps=factor * end, ball=ball)
            assert bool(found) is stable
            assert f"neuron 1 switches at distance {end:.4g}" in found.summary() or stable
    nothing = convex_relu.Network(np.zeros((0, 2)), np.zeros(0))
    assert applies(theorem, network=nothing, X=X, eps=1.0, ball="l2")
    # Networks that are stable up to their own radius, which is rounded.
    rng = np.random.default_rng(0)
    for ball in 20 * ("linf", "l2"):
        X = rng.standard_normal((4, 3))
        network = convex_relu.Network(rng.standard_normal((5, 3)), np.ones(5), np.ones(5))
        end = float(convex_relu.stability_radii(network, X, ball=ball).min())
        assert applies(theorem, network=network, X=X, eps=end, ball=ball)


def test_a_width_between_the_rank_and_its_noise_is_left_open():
    theorem = "convex_relu/parallel_networks:deep-linear-gap"
    Y = np.diag([1.0, 1e-11, 0.0])
    name = "widths at least the rank of X^+ Y"
    found = [applies(theorem, X=np.eye(3), Y=Y, widths=[w]).findings[name] for w in (1, 2)]
    assert [f.holds for f in found] == [None, True]
    assert applies(theorem, X=np.eye(3), Y=Y, widths=[1], tol=1e-13).failed == (name,)
    assert applies(theorem, X=np.eye(3), Y=0 * Y, widths=[1])


def test_the_rank_behind_ill_conditioned_inputs_is_left_open():
    theorem = "convex_relu/parallel_networks:deep-linear-gap"
    rng = np.random.default_rng(0)
    X = (orthogonal(rng, 4, 2) * [1.0, 1e-8]) @ orthogonal(rng, 2)
    Y = X @ np.outer([1.0, -2.0], [3.0, 1.0])
    found = applies(theorem, X=X, Y=Y, widths=[1], tol=1e-13)
    assert found.undecided == ("widths at least the rank of X^+ Y",)
    assert applies(theorem, X=0 * X, Y=0 * Y, widths=[1])


def test_samples_on_one_side_of_the_line_to_rounding():
    theorem, name = "convex_relu/parallel_networks:rank1-three-layer-relu", "c of both signs"
    found = applies(theorem, X=[[1.0], [2.0], [-1e-17]], y=[1.0, 2.0, 0.0])
    assert found.undecided == (name,)
    assert not found  # for not all of them hold
    assert not list(found)
    assert applies(theorem, X=[[1.0], [0.0], [2.0]], y=[1.0, 0.0, 2.0]).failed == (name,)


def test_three_majorities_are_not_two():
    theorem = "neural_collapse/unconstrained_features:universal-minority-collapse-threshold"
    for counts, failed in (
        ([6, 6, 6, 1, 1], ["two classes larger than the others, of one size"]),
        ([6, 6, 2, 2], []),
        ([6, 5, 2, 2], ["two classes larger than the others, of one size"]),
    ):
        found = list(applies(theorem, counts=counts, dimension=5))
        assert found[:1] == failed


@pytest.mark.parametrize(("seed", "unit"), [(0, 1.0), (1, 1e-200), (2, 1e200), (3, 1e-3)])
def test_the_window_ends_where_it_does(seed, unit):
    theorem = "optimal_transport/sum_of_norms:class-recovery-window"
    C, labels = helper("optimal_transport/sum_of_norms", "clouds")(3, 3, 2.0, seed)
    C = unit * C
    window = import_module("theorylab.optimal_transport").recovery_window(C, labels=labels)
    assert 0 < window.lower < window.upper < 0.999 * window.necessary
    low, high = list(checkable_theorems()[theorem].assumptions)[1:]
    for lam, failed in (
        (window.lower * (1 - 1e-9), [low]),
        (window.lower * (1 + 1e-9), []),
        (window.upper * (1 - 1e-9), []),
        (window.upper * (1 + 1e-9), [high]),
    ):
        assert list(applies(theorem, C=C, labels=labels, lam=lam)) == failed


@pytest.mark.parametrize(("norm", "full"), [("frobenius", 2), ("nuclear", 4), ("spectral", 1)])
def test_a_bound_binds_below_the_norm_of_the_identity(norm, full):
    theorem = "random_features/linear_estimators:extended-gauss-markov"
    for bound, holds in ((0.999 * full, True), (1.001 * full, False), (0.0, False)):
        found = applies(theorem, X=np.eye(5, 4), bound=bound, norm=norm)
        assert bool(found) is holds


def test_ties_are_exact():
    theorem = "convex_relu/layer_pruning:nettrim-equals-basis-pursuit"
    tied = applies(theorem, X=[[1.0, 2.0], [3.0, 1.0]], w=[2.0, -1.0])
    assert tied.failed
    assert "sample 0" in tied.summary()
    assert applies(theorem, X=[[0.1, 0.3]], w=[0.9, -0.3]).undecided  # not 0 as floats
    assert applies(theorem, X=[[1.0, 2.0]], w=[2.0, -1.0 - 1e-12])


def test_orthogonal_samples_are_told_from_nearly_orthogonal_ones():
    theorem = "implicit_regularization/neuron_alignment:early-alignment"
    name = "all cosines of two y_i x_i positive"
    assert applies(theorem, X=[[1.0, 2.0], [2.0, -1.0]], labels=[1.0, 1.0]).failed == (name,)
    assert applies(theorem, X=[[1.0, 0.0], [1e-17, 1.0]], labels=[1.0, 1.0]).undecided == (name,)
    assert applies(theorem, X=[[1.0, 0.0], [1e-14, 1.0]], labels=[1.0, 1.0])
    closed = "random_features/deep_classifiers:infinite-depth-regression-collapses"
    law = {"X_test": [[0.6, 0.8]], "weights": [0.0, 0.5, 0.5]}
    assert applies(closed, X=np.eye(2), **law)
    assert applies(closed, X=[[0.6, 0.8], [0.8, -0.6]], X_test=[[1.0, 0.0]], weights=law["weights"])
    assert applies(closed, X=[[1.0, 0.0], [-1e-14, 1.0]], **law).failed
    assert applies(closed, X=np.eye(40), X_test=np.full((1, 40), 40**-0.5), weights=law["weights"])


def test_points_of_a_sphere_may_share_coordinates():
    law = {"depth": 1, "bias_variance": 0.1, "activation": "erf"}
    assert applies(
        "random_features/neural_tangent:ntk-positive-definite", X=[[3, 4], [3, -4]], **law
    )


def test_an_activation_that_is_linear_is_excluded():
    closed = "random_features/deep_classifiers:infinite-depth-regression-collapses"
    found = applies(closed, X=np.eye(2), X_test=[[0.6, 0.8]], weights=[0.0, 1.0, 0.0])
    assert list(found) == ["0 < p_1 < 1"]


def test_the_spectral_cut_of_an_autoencoder():
    theorem = "implicit_regularization/linear_autoencoders:separately-regularised-unique"
    X = np.diag([3.0, 2.0, 2.0, 1.0])

    def found(width, lam, X=X):
        return (
            applies(theorem, X=X, width=width, lam=lam)
            .findings["sigma_k > sigma_k+1, or sigma_k+1 <= lambda < sigma_1"]
            .holds
        )

    assert [found(k, 0.5) for k in (1, 2, 3, 4)] == [True, False, True, True]
    assert [found(2, lam) for lam in (1.99, 2.0, 2.99, 3.0, 3.01)] == [
        False,
        True,
        True,
        None,
        False,
    ]
    assert found(2, 0.5, X[:3, :3]) is False  # the last two of three
    wide = X[:2]  # the other singular values are 0, exactly
    assert [found(k, 0.5, wide) for k in (3, 4)] == [True, True]
    assert [found(k, 3.5, wide) for k in (1, 2, 3, 4)] == [True, True, False, False]


# ------------------------------------------------------- units, rounding, and what they once broke
def holds(theorem, name, **data):
    return applies(theorem, **data).findings[name].holds


@pytest.mark.parametrize("size", [1e-200, 1e-110, 1e153, 1e160])
def test_equalities_are_judged_in_units_of_the_data(size):
    deep = "convex_relu/parallel_networks:deep-linear-gap"
    for left, inside in ((0.0, True), (0.1, False)):
        Y = size * np.array([[1.0], [left]])
        in_range = "Y in the range of X"
        assert holds(deep, in_range, X=[[2.0], [0.0]], Y=Y, widths=[1]) is inside
        assert holds(deep, in_range, X=[[size], [0.0]], Y=Y, widths=[1]) is inside
    line, slopes = (
        "convex_relu/parallel_networks:rank1-three-layer-relu",
        "y = alpha c_+ + gamma c_-",
    )
    for last, inside in ((3.0, False), (2.0, True)):
        y = size * np.array([1.0, 5.0, last])
        assert holds(line, slopes, X=[[-1.0], [1.0], [0.4]], y=y) is inside
    sphere = "random_features/neural_tangent:ntk-positive-definite"
    law = {"depth": 1, "bias_variance": 1.0, "activation": "relu"}
    for last, round_ in ((5.0, True), (4.0, False)):
        X = size * np.array([[3.0, 4.0], [last, 0.0]])
        assert holds(sphere, "points on a sphere", X=X, **law) is round_


@pytest.mark.parametrize("size", [1e-120, 1e-81, 1e-40, 1e60])
def test_a_saddle_is_judged_in_units_of_the_data(size):
    theorem = "matrix_sensing/lifting:saddle-bound"
    data = CASES[theorem][0]({}, np.random.default_rng(0))
    moved = data | {"truth": size * data["truth"], "point": size * data["point"]}
    assert applies(theorem, **moved)
    beta = [applies(theorem, **d).findings["beta < 1"].evidence for d in (data, moved)]
    assert beta[0] == beta[1]
    away = moved | {"point": moved["point"] + 0.1 * size * np.array([0.0, 1.0, 0.0])}
    assert "x is stationary" in applies(theorem, **away).failed


@pytest.mark.parametrize("seed", range(40))
def test_forms_are_those_of_integers_in_every_unit(seed):
    rng = np.random.default_rng(seed)
    A = rng.integers(-1, 2, (int(rng.integers(1, 4)), 2, 2))
    A, (z, x, u) = A + A.transpose(0, 2, 1), rng.integers(-2, 3, (3, 2))

    def form(v):
        return np.einsum("ijk,j,k", A, v, v)

    q = int(form(z) @ form(u))
    part = max(abs(int(form(x) @ form(u))), int(np.sum(np.einsum("ijk,j,k", A, x, u) ** 2)))
    still = not np.einsum("i,ijk,k", form(x) - form(z), A, x).any()
    order = int(rng.integers(1, 6))
    for a, b, c in ((1.0, 1.0, 1.0), (1e-150, 1e100, 1e-60), (1e60, 1e-90, 1e140)):
        found = applies(
            "matrix_sensing/lifting:sufficient-lifting-order",
            **{"matrices": a * A, "truth": b * z, "point": b * x, "direction": c * u},
            order=order,
        )
        _, stationary, curved, small, high = (f.holds for f in found.findings.values())
        assert stationary is still
        assert curved is (q > 0) or (q == 0 and curved is None)
        if q > 0 and part != q:
            assert small is (part < q)
        if q > 0 and part < q:
            assert high is bool(part == 0 or order > np.log(3) / np.log(q / part))


@pytest.mark.parametrize(("least", "enough"), [(1.99, True), (2.0, None), (2.01, False)])
def test_the_least_order_is_that_of_rho(least, enough):
    theorem = "matrix_sensing/lifting:sufficient-lifting-order"
    x = np.exp(-np.log(3) / least / 2)  # rho is x^2
    data = {"truth": [1.0], "point": [x], "direction": [1.0], "order": 2}
    found = applies(theorem, matrices=np.ones((1, 1, 1)), **data)
    assert found.findings["order above log 3 / log(1 / rho)"].holds is enough
    assert "= " + f"{least:.4g}" in found.summary()


def test_the_zero_matrix_breaks_no_isometry():
    A = np.zeros((2, 2, 2))
    A[0, 0, 0] = A[1, 1, 1] = 1.0
    bound = {"point": [1.0, 0.0, 0.0]}  # the first direction of the search is 0
    n = 3
    B = np.zeros((6, n, n))
    for i, (j, k) in enumerate(zip(*np.triu_indices(n), strict=True)):
        B[i, j, k] = B[i, k, j] = 1 if j == k else np.sqrt(0.5)
    B -= (1 - np.sqrt(0.1)) / n * np.trace(B, axis1=1, axis2=2)[:, None, None] * np.eye(n)
    found = isometry(B, lower=0.2, **bound)[0]
    assert found.holds is None
    assert "0.4 is the extreme one" in found.evidence
    # A constant below the rounding does not hold of a form that vanishes at rank 1.
    data = {"matrices": A, "truth": [1.0, 1.0], "point": [0.0, 0.0], "upper": 2.0}
    for lower in (1e-15, 1e-25):
        found = applies("matrix_sensing/lifting:saddle-bound", **data, lower=lower)
        low = found.findings[found.failed[0]]
        assert len(found.failed) == 1
        assert np.sum(np.tensordot(A, low.witness, 2) ** 2) < lower * np.sum(low.witness**2)


def test_a_neuron_is_judged_by_its_own_rounding():
    theorem = "convex_relu/robust_training:robust-hinge-identity"
    network = convex_relu.Network([[1e-20], [1.0], [0.0]], np.ones(3), biases=[1.0, 0.0, 0.0])
    for eps, stable in ((0.009, True), (0.01, True), (0.011, False)):
        found = applies(theorem, network=network, X=[[0.01], [5.0]], eps=eps, ball="l2")
        assert bool(found) is stable
        assert bool(found.failed) is not stable
    assert "neuron 1 switches at distance 0.01, eps = 0.011" in found.summary()
    # Where w . x + b is 0, no eps is small enough.
    tied = convex_relu.Network([[0.0, -1e-100]], [1.0])
    assert applies(
        theorem, network=tied, X=[[1.0, 1e8], [1.0, 0.0]], eps=1e-150, ball="linf"
    ).failed


def test_products_that_vanish_in_floats_only_are_left_open():
    theorem = "convex_relu/layer_pruning:nettrim-equals-basis-pursuit"
    assert applies(theorem, X=[[1e-200]], w=[1e-200]).undecided
    small = 2.0**-537
    terms = {"X": [[0.75 * small, 0.75 * small, 1.5 * small]], "w": [small, small, -small]}
    assert applies(theorem, **terms).failed
    assert applies(theorem, X=[[1e-200, 0.0]], w=[0.0, 1e-200]).failed


def test_samples_on_one_side_are_told_by_exact_signs():
    theorem, name = "convex_relu/parallel_networks:rank1-three-layer-relu", "c of both signs"
    for c, found in (([1, 0, 2], False), ([-1, 0, -2], False), ([1, -1, 2], True)):
        X = np.outer(c, [0.1, -0.7, 0.3])
        assert holds(theorem, name, X=X, y=np.zeros(3)) is found


def test_rows_that_vanish_are_not_separable_and_have_every_step():
    theorem = "implicit_regularization/perceptron_limit:vanishing-loss-needs-large-weights"
    found = applies(theorem, Z=np.zeros((2, 2)), step_size=0.1, steps=3)
    assert list(found) == ["some w separates the rows"]
    perceptron = "implicit_regularization/perceptron_limit:batch-perceptron-complexity"
    with pytest.raises(ValueError, match=r"^Z: expected magnitudes"):
        applies(perceptron, Z=[[1e150, 2e150], [1e150, -2e150], [0.0, 1e-8], [0.0, 0.0]])


def test_closed_thresholds_hold_at_equality_and_open_ones_fail_there():
    descent = "implicit_regularization/perceptron_limit:vanishing-loss-needs-large-weights"
    rows = [[0.6, 0.8], [0.6, -0.8]]
    assert applies(descent, Z=rows, step_size=1 / 0.36, steps=1)
    assert applies(descent, Z=rows, step_size=4.0, steps=1)
    markov = "random_features/linear_estimators:extended-gauss-markov"
    for norm, full in (("frobenius", 2.0), ("nuclear", 4.0), ("spectral", 1.0)):
        assert applies(markov, X=np.eye(4), bound=full, norm=norm).failed == ("0 < C < |I|",)
        assert applies(markov, X=np.eye(4), bound=np.nextafter(full, 0), norm=norm)
    assert applies(
        markov, X=np.eye(2), bound=np.sqrt(2), norm="frobenius"
    ).failed  # 2.0000000000000004
    powers = "random_features/eigenframework:overfitting-obligatory-fitting-ratio"
    assert applies(powers, alpha=1.5, beta=3.0)
    assert not applies(powers, alpha=1.5, beta=1.0)
    smoothing = "neural_collapse/label_smoothing:ufm-minimisers-coincide"
    assert not applies(smoothing, counts=[4, 4], dimension=1, alpha=0.5, lam=0.125)


def test_the_deep_threshold_of_many_layers_is_within_float64():
    theorem = "neural_collapse/deep_linear:collapse-at-every-layer"
    M = 250
    log_threshold = (M - 1) * np.log(M - 1) - 2 * M * np.log(M)
    for shift, below in ((-0.01, True), (0.01, False)):
        decay = np.exp((log_threshold + M * np.log(2) + shift) / (M + 1)) / 4
        found = applies(theorem, counts=[2, 2], widths=[2] * M, decays=[decay] * (M + 1))
        assert bool(found) is below
        assert bool(found.failed) is not below


def test_assignments_that_differ_by_rounding_are_never_called_tied():
    theorem = "optimal_transport/sinkhorn_newton:vertex-gap-bound-on-plan"
    for seed in (*range(60), 229, 246, 371):
        rng = np.random.default_rng(seed)
        n = int(rng.integers(2, 5))
        size = 10.0 ** rng.choice([-17, -100, 0, 100])
        C = rng.integers(0, 3, (n, n)) * size + rng.integers(0, 3, (n, n))
        exact = [[Fraction(x) for x in row] for row in C.tolist()]
        paths = itertools.permutations(range(n))
        sums = sorted(sum(row[j] for row, j in zip(exact, p, strict=True)) for p in paths)
        found = holds(theorem, "one optimal assignment", C=C, eta=1.0)
        assert found in (None, sums[1] > sums[0])
        assert found is not None or size != 1.0


def test_ties_to_rounding_of_many_rows_are_left_open():
    theorem = "optimal_transport/sinkhorn_newton:vertex-gap-bound-on-plan"
    C = np.add.outer(*np.random.default_rng(0).random((2, 80)))  # every assignment costs the same
    assert len(applies(theorem, C=C, eta=1.0).undecided) == 2


def test_the_symmetric_part_of_a_covariance_in_float32_is_judged():
    theorem = "matrix_sensing/bures_wasserstein:bures-nuclear-norm-form"
    S = np.array([[1, 1 + 1.2e-7], [1 - 1.2e-7, 1]], dtype=np.float32)
    assert (S != S.T).any()
    found = applies(theorem, covariance=S, factor=np.eye(2))
    assert list(found) == ["the covariance is positive definite"]
    assert found.undecided == ("Sigma_0^1/2 W of full rank",)


# ------------------------------------------------------------------------------ what a person sees
def test_a_result_reads_like_a_sentence():
    theorem = "optimal_transport/particle_flows:particle-gd-rate"
    found = applies(theorem, particles=[0.1, 0.1, 0.5], step_size=0.5)
    assert found.failed == tuple(found) == ("distinct particles",)
    assert repr(found) == (
        f"<Assumptions of {theorem}: held: step in (0, 1/2]; failed: distinct particles>"
    )
    assert found.summary().splitlines() == [
        "FAILS: distinct particles (least distance 0)",
        "holds: step in (0, 1/2] (step 0.5)",
    ]
    with pytest.raises(AttributeError):
        found.theorem = "another"


def test_what_is_asked_wrongly_is_refused_by_name():
    theorem = "optimal_transport/particle_flows:particle-gd-rate"
    for words, given in (
        ("theorem: expected one of", ("no/such:theorem", {})),
        ("step_size: expected eta, got nothing", (theorem, {"particles": [0.1]})),
        ("beta: expected only", (theorem, {"particles": [0.1], "step_size": 0.1, "beta": 1})),
        ("particles: expected finite", (theorem, {"particles": [np.nan], "step_size": 0.1})),
    ):
        with pytest.raises(ValueError, match=words):
            applies(given[0], **given[1])
    long = "implicit_regularization/perceptron_limit:vanishing-loss-needs-large-weights"
    with pytest.raises(ValueError, match="Z, step_size, steps: expected magnitudes"):
        applies(long, Z=[[1e200]], step_size=1.0, steps=1)


@pytest.mark.parametrize("theorem", CASES)
def test_bad_data_are_refused_by_name(theorem):
    data = instances(theorem, 1)[0]
    for name in data:
        wrong = [None, object(), np.full((2, 2, 2, 2), "x"), float("nan"), np.zeros((0, 0))]
        if name != "activation":  # any text names one
            wrong.append("no such word")
        for bad in wrong:
            with pytest.raises((ValueError, TypeError), match=name):
                applies(theorem, **{**data, name: bad})
