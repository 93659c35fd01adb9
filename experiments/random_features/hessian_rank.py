"""Hessians of linear convolutional networks: their exact rank, and how it grows with the width."""

import numpy as np

from theorylab import random_features as rf
from theorylab.verify import (
    Int,
    breaks,
    cases,
    compare,
    full,
    panel,
    paper,
    simulation,
    space,
    theory,
)
from theorylab.verify.cli import run_script

networks = paper(
    "singh2023-hessian",
    r"Valid convolutions of $x\in\mathbb R^d$, $m$ channels in each hidden layer, a dense layer "
    r"of $K$ outputs on the $d_l$ entries that $l$ of them leave, no activations, squared loss; "
    r"weights, at least $d$ samples and labels drawn modulo a prime above $6\cdot10^7$, ranks "
    r"modulo it:",
)


@simulation
def ranks(length, filters, channels, outputs, samples, change, seed):
    """Number of parameters; ranks of the Hessian, of its functional part and of the other."""
    rng = np.random.default_rng(seed)
    layers = rf.convolutional_layers(
        length, filters, channels=channels, outputs=outputs, seed=seed + 1
    )
    if change == "equal filters":
        layers = (np.repeat(layers[0][:1], channels, axis=0), *layers[1:])
    X = rng.integers(rf.PRIME, size=(samples, length))
    Y = rng.integers(rf.PRIME, size=(samples, outputs))
    if change == "fitted labels":
        X = X % 1000  # products with residues stay within 64 bits
        Y = X @ rf.end_to_end(layers).T
    H = rf.loss_hessian(layers, X, Y % rf.PRIME)
    return len(H.total), *map(rf.rank_modulo_prime, (H.total, H.functional, H.gauss_newton))


@networks.ours("the bound of the abstract, sharpened to the exact rank", serves="ab")
@cases(length=9, k=8, outputs=2, channels=6)
@cases(length=[8, 10], k=[3, 4], outputs=2, channels=6)
@full(length=8, k=3, outputs=[1, 2], channels=[4, 6, 8, 10, 12, 14, 16])
@full(length=9, k=8, outputs=2, channels=6)
@full(length=8, k=5, outputs=1, channels=[4, 6, 8, 10, 12, 14, 16])
@space(
    length=Int(1, 12),
    k=Int(1, "length"),
    outputs=Int(1, 3),
    channels=Int("min(k, outputs * (length - k + 1))", 10),
    spare=Int(0, 3),
)
@breaks("labels that the network fits", change="fitted labels")
@breaks("fewer samples than inputs", spare=-4)
@breaks("all filters equal", change="equal filters", k=3, channels=6)
def cnn_hessian_rank_one_hidden(length, k, channels, seed, outputs=1, spare=0, change=""):
    r"""with one hidden layer of $k$ taps and $q=Kd_1$, if $m\ge\min(k,q)$,
    $$\operatorname{rank}H=2m\min(k,q)+\min(s,\min(k,q)\,|q-k|)\le2m\min(k,q)+Kd,$$ $s=Kd-1$ if
    $k\le q$, $s=K(d-K)$ if $k>q$; the first term is the rank of the second derivatives weighted by
    the residuals, and the other part of $H$ has rank $Kd$."""
    n, rest = length + spare, outputs * (length - k + 1)
    _, total, functional, squares = ranks(length, (k,), channels, outputs, n, change, seed)
    least = theory("least", min(k, rest))
    most = outputs * length - 1 if k <= rest else outputs * (length - outputs)
    span = theory("span", min(most, min(k, rest) * abs(rest - k)))
    return {
        "rank": compare(total, "==", 2 * channels * least + span),
        "bound": compare(total, "<=", 2 * channels * least + theory("outputs", outputs * length)),
        "functional": compare(functional, "==", 2 * channels * least),
        "squares": compare(squares, "==", theory("outputs", outputs * length)),
    }


@panel(
    cnn_hessian_rank_one_hidden,
    r"One hidden layer: the rank is $2m\min(k,q)$ plus at most $Kd-1$ ($d=8$)",
    x="channels $m$",
    y="rank of the Hessian",
)
def _(pen, runs):
    for i, (k, outputs) in enumerate(((5, 1), (3, 2), (3, 1))):
        m = np.arange(4, 17)
        line = [rf.generic_rank(8, [k], channels=int(j), outputs=outputs)[0] for j in m]
        pen.theory(m, line, f"$k={k}$, $K={outputs}$", k=i)
        pen.points(*runs.measured("channels", where={"k": k, "outputs": outputs}), k=i)


@networks.ours("the exact rank behind the abstract's square root", serves="ac")
@cases(first=[1, 2], second=2, left=5, channels=(7, 8, 9))
@full(first=[2, 3], second=3, left=6, channels=(8, 9, 10, 12, 14))
@full(first=3, second=2, left=5, channels=(8, 9, 10, 12, 14))
@space(
    first=Int(1, 3),
    second=Int(2, 3),
    outputs=Int(1, 2),
    left=Int("(first + second - 1) / outputs", "(first + second - 1) / outputs + 3"),
    channels=Int("2 * first + second - 1", "2 * first + second + 1"),
    spare=Int(0, 3),
)
@breaks("one hidden layer", deep=False)
@breaks("labels that the network fits", change="fitted labels")
@breaks("too few entries left: $k_{12}>Kd_2$", left=2, second=3)
@breaks("one tap in the second layer", second=1)
@breaks("too few channels", channels=(2, 3, 4))
def cnn_hessian_rank_sqrt(
    first, second, left, channels, seed, outputs=1, spare=0, change="", deep=True
):
    r"""with two hidden layers of $k_1$ and $k_2\ge2$ taps, $k_{12}=k_1+k_2-1\le Kd_2$ and
    $m\ge k_1+k_{12}$, $$\operatorname{rank}H=2m(k_1+k_{12})+\min(Kd-1,k_{12}(Kd_2-k_{12}))-1$$ is
    linear in $m$, and the number of parameters $P=k_2m^2+(k_1+Kd_2)m$ quadratic: for large $m$ the
    rank is $2(k_1+k_{12})\sqrt{P/k_2}$ (with one hidden layer both are linear)."""
    length, filters = first + second + left - 2, (first, second) if deep else (first,)
    m, both, rest = np.atleast_1d(channels), first + second - 1, outputs * left
    found = [ranks(length, filters, int(i), outputs, length + spare, change, seed)[:2] for i in m]
    sizes, total = zip(*found, strict=True)
    slope = theory("slope", 2 * (first + both))
    offset = theory("offset", min(outputs * length - 1, both * (rest - both)) - 1)
    square = theory("square", second)
    return {
        "rank": compare(total, "==", [slope * int(i) + offset for i in m]),
        "parameters": compare(
            sizes, "==", [square * int(i) ** 2 + (first + rest) * int(i) for i in m]
        ),
    }


@panel(
    cnn_hessian_rank_sqrt,
    "Two hidden layers: the rank grows as the square root of the parameters",
    x="parameters $P$",
    y="rank of the Hessian",
    log="xy",
)
def _(pen, runs):
    m = np.arange(8, 15)
    for i, run in enumerate(runs.judgement.runs):
        first, second, left = (run.instance[name] for name in ("first", "second", "left"))
        length = first + second + left - 2
        line = [rf.generic_rank(length, [first, second], channels=int(j))[::-1] for j in m]
        pen.theory(*np.transpose(line), rf"$k_1={first}$, $k_2={second}$", k=i)
        pen.points(run.parts["parameters"].centre, run.parts["rank"].centre, k=i)
    rank, size = (runs.judgement.controls[0].run.parts[name] for name in ("rank", "parameters"))
    pen.broken(size.centre, rank.centre, label="one hidden layer")


if __name__ == "__main__":
    run_script(__file__)
