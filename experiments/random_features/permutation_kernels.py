"""Permutations learnt exactly from the basis vectors by an ensemble of wide networks."""

from math import pi

import numpy as np
from scipy.special import comb, ndtr

from theorylab.random_features import (
    binary_inputs,
    cost_limits,
    ensemble_outputs,
    ensemble_size,
    linear_activation,
    noise_to_margin,
    output_law,
    rectified_power,
    trained_mean,
)
from theorylab.verify import (
    Int,
    Real,
    breaks,
    cases,
    compare,
    family,
    full,
    mean,
    panel,
    paper,
    simulation,
    slope,
    space,
    theory,
    within,
)
from theorylab.verify.cli import run_script

RELU, TINY = rectified_power(1), 1e-9
ensemble = paper(
    "giapitzakis2025-exact",
    r"Infinitely wide two-layer ReLU networks without biases, all weights trained on "
    r"$(e_i,Pe_i)_{i\le k}$ to zero loss for a permutation $P$, tested at $x/\|x\|$, "
    r"$x\in\{0,1\}^k$ with $s\ge1$ ones; $\Theta(u)=\frac1{2\pi}(\sqrt{1-u^2}+2u(\pi-\arccos u))$, "
    r"$c=\Theta(0)=\frac1{2\pi}$, $t=\Theta(1/\sqrt s)$, $D=1+(k-1)c$:",
)


def chosen(k, seed):
    """All inputs for few bits, else one for each number of ones."""
    if k <= 8:
        return binary_inputs(k)
    rng = np.random.default_rng(seed)
    return np.array([rng.permutation(np.arange(k) < s) for s in range(1, k + 1)], float)


@simulation
def means(k, activation, overlap, seed):
    """Inputs, permuted inputs, and mean outputs by the kernel matrix."""
    rng = np.random.default_rng(seed)
    order, inputs = rng.permutation(k), chosen(k, seed)
    training = np.eye(k) + overlap * np.roll(np.eye(k), 1, axis=1)
    found = trained_mean(inputs, order, activation=activation(), training=training)
    return inputs, inputs @ np.eye(k)[order], found


def relu():
    return RELU


@ensemble.abstract("b", instance=True)
@cases(k=[3, 40, 8])
@full(k=[3, 5, 20, 200, 8])
@space(k=Int(2, 60))
@breaks("linear networks", activation=linear_activation)
@breaks("training inputs that overlap", overlap=1.0)
def permutation_ntk_sign(k, seed, activation=relu, overlap=0.0):
    r"""the mean output is $\mu_1=\frac1{1-c}\big(t-\frac c{D}(st+(k-s)c)\big)>0$ where the permuted
    bit is 1 and $\mu_0=\frac{c(1-c-s(t-c))}{(1-c)D}\le0$ where it is 0, with equality iff $s=1$
    (judged for all $2^k-1$ inputs if $k\le8$, else for one of each $s$)."""
    inputs, bits, found = means(k, activation, overlap, seed)
    s = inputs.sum(axis=1)[:, None]
    u = 1 / np.sqrt(s)
    t, c = (np.sqrt(1 - u**2) + 2 * u * (pi - np.arccos(u))) / (2 * pi), 1 / (2 * pi)
    D = 1 + (k - 1) * c
    one = (t - c * (s * t + (k - s) * c) / D) / (1 - c)
    zero = c * (1 - c - s * (t - c)) / ((1 - c) * D)
    right = np.where(bits > 0, found > TINY, np.where(s > 1, found < -TINY, abs(found) < TINY))
    predicted = theory("one", one) * bits + theory("zero", zero) * (1 - bits)
    # The error of a solution is that of its matrix times a condition number below 2 + k.
    return {
        "means": compare(within(found, 1e-14 * (2 + k), "rounding"), "==", predicted),
        "signs": compare(
            family(dict(enumerate(right.all(axis=1).tolist()))),
            "==",
            theory("inputs", float(len(inputs))),
        ),
    }


@panel(
    permutation_ntk_sign,
    "The signs of the mean outputs are the permuted bits ($k=20$)",
    x="ones $s$ of the input",
    y="mean output",
)
def _(pen, runs):
    s = np.arange(1, 21)
    law = output_law(n_bits=20, ones=s)
    inputs, bits, found = means(20, relu, 0.0, 0)
    for k, (value, there, label) in enumerate(((law.one, 1, "bit 1"), (law.zero, 0, "bit 0"))):
        pen.theory(s[: 19 + there], value[: 19 + there], label, k=k)  # no bit 0 at s = k
        row, column = np.nonzero(bits == there)
        pen.points(inputs[row].sum(axis=1), found[row, column], k=k)


@simulation
def drawn(k, n_models, draws, threshold, seed):
    """Whether an ensemble is right at an input, of every number of ones, and at all inputs."""
    rng = np.random.default_rng([seed, k])
    order, inputs = rng.permutation(k), binary_inputs(k)
    bits = inputs @ np.eye(k)[order] > 0
    s = inputs.sum(axis=1).astype(int)
    law = output_law(n_bits=k, ones=s)
    cut = threshold * (law.one + law.zero)[:, None] / 2
    one = [np.argmax(s == j) for j in range(2, k + 1)]
    models = {"activation": RELU, "n_draws": draws}
    out = ensemble_outputs(inputs[one], order, n_models=n_models[0], seed=seed, **models)
    found = ((out > cut[one]) == bits[one]).all(axis=2)
    sure = s > 1  # the training inputs are reproduced
    out = ensemble_outputs(inputs[sure], order, n_models=n_models[1], seed=seed + 1, **models)
    return found, ((out > cut[sure]) != bits[sure]).any(axis=(1, 2))


@simulation
def costs(k):
    """Largest variance over squared margin, over k for the midpoint, over k^2 for zero."""
    s = np.unique(np.append(np.arange(1, 200), np.geomspace(1, k, 2000).round().astype(int)))
    s = s[s <= k]
    midpoint = noise_to_margin(n_bits=k, ones=s).max() / k
    return np.array([midpoint, noise_to_margin(n_bits=k, ones=s, threshold="zero").max() / k**2])


@simulation
def counts():
    """Numbers of bits, and the networks that make all inputs right with probability 0.9."""
    bits = np.unique(np.geomspace(100, 8000, 14).astype(int))
    return bits, np.array([float(ensemble_size(int(n), failure=0.1, inputs="all")) for n in bits])


@ensemble.ours("sharpened: a threshold that depends on s is needed; constants", serves="ac")
@cases(k=[4, 6])
@full(k=[3, 5, 8, 7], draws=24_000)
@space(k=Int(3, 7), models=Int(6, 20), failure=Real(0.15, 0.3))
@breaks("the threshold 0", threshold=0.0)
@breaks("the constant of the midpoint at the threshold 0", swap=True)
def permutation_ensemble_complexity(
    k, seed, models=12, failure=0.2, draws=12_000, threshold=1.0, swap=False
):
    r"""outputs are Gaussian, independent, of variance $\sigma_s^2$, that of $f(x)-a^\top f(X)$
    before training, $a=\Theta(X,X)^{-1}\Theta(X,x)$, and the average of $N$ networks cut at
    $\frac{\mu_0+\mu_1}2$ (which depends on $s$) is right at an input with probability
    $p_s(N)=\Phi(\sqrt N/r_s)^k$, $r_s=\frac{2\sigma_s}{\mu_1-\mu_0}$, and wrong at one of all at
    most with $\delta_N=\sum_s\binom ks(1-p_s)$. $\max_sr_s^2/k\to16(1-c)^2(\frac12-c)$, so that one
    input needs order $k\log k$ networks, and the least $N$ with $\delta_N\le\delta$ is of order
    $k^2$ (judged: $\delta=.1$); cut at 0, where $|\mu|$ takes the place of $\frac{\mu_1-\mu_0}2$,
    the maximum is of order $k^2$ (at $s=2$)."""
    count = ensemble_size(k, failure=failure, inputs="all")
    found, wrong = drawn(k, (models, count), draws, threshold, seed)
    s = np.arange(2, k + 1)
    ratio = noise_to_margin(n_bits=k, ones=s)
    failures = comb(k, s) @ (1 - ndtr(np.sqrt(count / ratio)) ** k)
    large = 10**7
    now, quarter = costs(large), costs(large // 4)
    if swap:
        now, quarter = now[::-1], quarter[::-1]
    limits = cost_limits()
    c = 1 / (2 * pi)
    sizes = np.geomspace(1e6, 1e8, 12).astype(int)
    cost = np.array([costs(int(n)) for n in sizes]) * sizes[:, None]
    bits, together = counts()
    return {
        "one input": compare(
            mean(found), "==", theory("success", ndtr(np.sqrt(models / ratio)) ** k)
        ),
        "all inputs": compare(mean(wrong), "<=", theory("failures", failures)),
        "limits": compare(
            within(now, 2 * np.abs(now - quarter), "difference to a quarter of k"),
            "==",
            (theory("midpoint", 16 * (1 - c) ** 2 * (0.5 - c)), theory("at zero", limits.zero)),
        ),
        "linear": compare(slope(sizes, cost[:, 0]), "==", theory("exponent", 1.0)),
        "zero": compare(slope(sizes, cost[:, 1] * sizes), "==", theory("exponent of zero", 2.0)),
        "quadratic": compare(slope(bits, together), "==", theory("exponent of all", 2.0)),
    }


@panel(
    permutation_ensemble_complexity,
    "How often an average of 12 networks is right at one input",
    x="ones $s$ of the input",
    y="probability that all $k$ bits are right",
)
def _(pen, runs):
    for i, run in enumerate(sorted(runs.judgement.runs, key=lambda r: r.instance["k"])):
        part, k = run.parts["one input"], run.instance["k"]
        pen.theory(np.arange(2, k + 1), part.predicted, f"$k={k}$", k=i)
        pen.points(np.arange(2, k + 1), part.shown, part.error, k=i)


@panel(
    permutation_ensemble_complexity,
    "Networks needed, up to a logarithm: linear with the right threshold, quadratic at 0",
    x="bits $k$",
    y=r"$\max_s\sigma_s^2/$margin$^2$",
    log="xy",
)
def _(pen, runs):
    k = np.unique(np.geomspace(10, 1e7, 14).astype(int))
    found = np.array([costs(int(j)) for j in k]) * k[:, None] * np.stack([k**0, k], axis=1)
    limits = cost_limits()
    for i, (limit, power, label) in enumerate(
        ((limits.midpoint, 1, "midpoint"), (limits.zero, 2, "zero"))
    ):
        pen.theory(k, limit * k.astype(float) ** power, label, k=i)
        pen.points(k, found[:, i], k=i)


if __name__ == "__main__":
    run_script(__file__)
