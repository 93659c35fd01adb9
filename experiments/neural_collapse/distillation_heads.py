"""Two losses on one head: where their gradients agree, and where they turn apart."""

import numpy as np

from theorylab import neural_collapse as nc
from theorylab.verify import (
    Int,
    Real,
    breaks,
    cases,
    compare,
    full,
    note,
    panel,
    paper,
    simulation,
    space,
    theory,
    within,
)
from theorylab.verify.cli import run_script

EPS = float(np.finfo(float).eps)
heads = paper(
    "yang2024-dual",
    r"Classifier a simplex frame of $K$ rows, features $m_k+h_G$, $m_k\parallel w_k$, $h_G\perp w_k$ "
    r"(offset: $\|h_G\|$), label's logit $z$ (own), $-\frac z{K-1}$ for the others, those of a "
    r"teacher higher by $a$ (up) and lower by $b$ (down); $u,v$: sigmoids student minus teacher at "
    r"the label and elsewhere. Gradients of cross-entropy and of the binary divergence from the "
    r"teacher:",
)


@simulation
def gradients(n_classes, n, d, own, up, down, offset, common, seed):
    """The four gradients at a collapsed state in general position."""
    rotation = np.linalg.qr(np.random.default_rng(seed).standard_normal((d, d)))[0]
    frame = np.sqrt(own) * nc.simplex_etf(n_classes, d) @ rotation
    y = np.repeat(np.arange(n_classes), n)
    H = np.repeat(frame.T, n, axis=1) + offset * rotation[-1][:, None]
    at_label = np.eye(n_classes)[:, y] == 1
    teacher = np.where(at_label, own + up, -own / (n_classes - 1) - down)
    found = nc.distillation_gradients(H, frame + common * rotation[-1], y, teacher)
    return (
        *(found.binary_features, found.entropy_features),
        *(found.binary_classifier, found.entropy_classifier),
    )


def cosines(n_classes, n, d, own, up, down, offset, common, seed):
    """Cosines in features and classifier, enclosed up to the rounding of the shorter gradient."""
    found = gradients(n_classes, n, d, own, up, down, offset, common, seed)
    lengths = [np.linalg.norm(g) for g in found]
    size = 200 * n_classes * EPS * np.sqrt(n * n_classes) * (1 + offset) * (1 + np.sqrt(own))
    pairs = [(0, 1), (2, 3)]
    value = [np.sum(found[i] * found[j]) / lengths[i] / lengths[j] for i, j in pairs]
    error = [size * (1 / lengths[i] + 1 / lengths[j]) for i, j in pairs]
    source = "rounding of the gradients, relative to their length"
    return [within(v, e, source) for v, e in zip(value, error, strict=True)]


def classifier_cosine(n_classes, own, up, down, offset):
    """The closed form in the classifier."""
    ends = own + up, -own / (n_classes - 1) - down
    return nc.collapsed_head_cosines(own, *ends, n_classes, np.sqrt(own), offset)[1]


@heads.abstract("a", "b", instance=True)
@cases(n_classes=5, n=2, d=8, own=4.0, up=1.0, down=[0.0, 3.0], offset=2.0)
@full(n_classes=5, n=2, d=8, own=4.0, up=1.0, down=[0.0, 3.0], offset=[0.0, 0.25, 0.5, 1.0, 4.0])
@full(n_classes=5, n=2, d=8, own=4.0, up=1.0, down=[0.0, 3.0], offset=2.0)
@space(
    n_classes=Int(2, 7),
    n=Int(1, 3),
    d=Int("n_classes", 10),
    own=Real(0.5, 6.0),
    up=Real(0.1, 3.0),
    down=Real(0.0, 3.0),
    offset=Real(0.0, 3.0),
)
@breaks("classifier rows with a common part", common=0.5)
def dhkd_conflict_direction(n_classes, n, d, own, up, down, offset, seed, common=0.0):
    r"""if $v>u$ (the teacher separates the label more, after the sigmoid), those in the features are
    parallel, while those in the classifier have cosine
    $(v-u)\|m\|/\sqrt{(v-u)^2\|m\|^2+(u+(K-1)v)^2\|h_G\|^2}$: a mean of the features turns them
    apart."""
    features, classifier = cosines(n_classes, n, d, own, up, down, offset, common, seed)
    expected = classifier_cosine(n_classes, own, up, down, offset)
    return {
        "classifier": compare(classifier, "==", theory("classifier", expected)),
        "features": compare(features, "==", theory("features", 1.0)),
    }


@panel(
    dhkd_conflict_direction,
    "A mean of the features turns the classifier's gradients apart",
    x=r"length of the mean $\|h_G\|$",
    y="cosine of the two gradients",
)
def _(pen, runs):
    offset = np.linspace(0, 4, 200)
    for k, (down, name) in enumerate(((0.0, "$a=1,b=0$"), (3.0, "$a=1,b=3$"))):
        curve = [classifier_cosine(5, 4.0, 1.0, down, o) for o in offset]
        pen.theory(offset, curve, f"classifier, {name}", k=k)
        pen.points(*runs.measured("offset", "classifier", where={"down": down}), k=k)
    pen.points(*runs.measured("offset", "features", where={"down": 3.0}), "features", k=2)


@heads.ours("derived; the hypothesis of the abstract's second half")
@cases(n_classes=5, n=2, d=8, own=4.0, up=[-1.0, -3.0], down=0.0, offset=2.0)
@full(n_classes=[3, 5], n=2, d=8, own=4.0, up=[-1.0, -6.0], down=[0.0, -1.0], offset=[0.5, 2.0])
@space(
    n_classes=Int(2, 7),
    n=Int(1, 3),
    d=Int("n_classes", 10),
    own=Real(0.5, 6.0),
    up=Real(-3.0, -0.1),
    down=Real("-own / (n_classes - 1)", 0.0),
    offset=Real(0.0, 3.0),
)
@breaks("a teacher that separates more", up=1.0, down=1.0)
@note(contradicts="b")
def conflict_reaches_the_features(n_classes, n, d, own, up, down, offset, seed):
    r"""if $v<u$ (the teacher separates the label less, after the sigmoid) those in the features are
    opposite: a complete conflict in the backbone, and in the classifier the same cosine as above,
    now negative."""
    features, classifier = cosines(n_classes, n, d, own, up, down, offset, 0.0, seed)
    expected = classifier_cosine(n_classes, own, up, down, offset)
    return {
        "features": compare(features, "==", theory("features", -1.0)),
        "classifier": compare(classifier, "==", theory("classifier", expected)),
    }


if __name__ == "__main__":
    run_script(__file__)
