"""Two losses on one head: where their gradients agree, and where they turn apart."""

import numpy as np
from scipy.special import expit, logit

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
    r"Classifier a simplex frame of $K$ rows, features $m_k+h_G$, $m_k\parallel w_k$, "
    r"$h_G\perp w_k$ "
    r"(offset: $\|h_G\|$), label's logit $z$ (own), $-\frac z{K-1}$ for the others; "
    r"$u,v$: sigmoids "
    r"of student minus teacher at the label and elsewhere (ahead: $v-u$ over its "
    r"largest size of that "
    r"sign). Gradients of cross-entropy and of the binary divergence from the teacher:",
)


def teacher_logits(own, n_classes, ahead, level):
    """A teacher's logits at the label and elsewhere. The difference of its sigmoids is the
    student's plus ``ahead`` times the room up to 1 or down to -1; level: where both lie."""
    student = expit(own) - expit(-own / (n_classes - 1))
    gap = student + ahead * (1 - np.sign(ahead) * student)
    rest = max(-gap, 0.0) + level * (1 - abs(gap))
    return logit(rest + gap), logit(rest)


@simulation
def gradients(n_classes, n, d, own, ends, offset, common, seed):
    """The four gradients at a collapsed state in general position."""
    rotation = np.linalg.qr(np.random.default_rng(seed).standard_normal((d, d)))[0]
    frame = np.sqrt(own) * nc.simplex_etf(n_classes, d) @ rotation
    y = np.repeat(np.arange(n_classes), n)
    H = np.repeat(frame.T, n, axis=1) + offset * rotation[-1][:, None]
    at_label = np.eye(n_classes)[:, y] == 1
    teacher = np.where(at_label, *ends)
    found = nc.distillation_gradients(H, frame + common * rotation[-1], y, teacher)
    return (
        *(found.binary_features, found.entropy_features),
        *(found.binary_classifier, found.entropy_classifier),
    )


def cosines(n_classes, n, d, own, ends, offset, common, seed):
    """Cosines in features and classifier, enclosed up to the rounding of the shorter gradient."""
    found = gradients(n_classes, n, d, own, ends, offset, common, seed)
    lengths = [np.linalg.norm(g) for g in found]
    size = 200 * n_classes * EPS * np.sqrt(n * n_classes) * (1 + offset) * (1 + np.sqrt(own))
    pairs = [(0, 1), (2, 3)]
    value = [np.sum(found[i] * found[j]) / lengths[i] / lengths[j] for i, j in pairs]
    error = [size * (1 / lengths[i] + 1 / lengths[j]) for i, j in pairs]
    source = "rounding of the gradients, relative to their length"
    return [within(v, e, source) for v, e in zip(value, error, strict=True)]


def classifier_cosine(n_classes, own, ahead, level, offset):
    """The closed form in the classifier."""
    ends = teacher_logits(own, n_classes, ahead, level)
    return nc.collapsed_head_cosines(
        own,
        teacher_own=ends[0],
        teacher_other=ends[1],
        n_classes=n_classes,
        mean_length=np.sqrt(own),
        offset_length=offset,
    )[1]


@heads.ours("derived: how the gradients disagree in the classifier only", serves="ab")
@cases(n_classes=5, n=2, d=8, own=4.0, ahead=0.5, level=[0.2, 0.8], offset=1.0)
@full(
    n_classes=5, n=2, d=8, own=4.0, ahead=0.5, level=[0.2, 0.8], offset=[0.0, 0.25, 0.5, 2.0, 4.0]
)
@full(n_classes=5, n=2, d=8, own=4.0, ahead=0.5, level=[0.2, 0.8], offset=1.0)
@space(
    n_classes=Int(2, 7),
    n=Int(1, 3),
    d=Int("n_classes", 10),
    own=Real(0.5, 6.0),
    ahead=Real(0.05, 0.95),
    level=Real(0.05, 0.95),
    offset=Real(0.0, 3.0),
)
@breaks("classifier rows with a common part", common=0.5)
def dhkd_conflict_direction(n_classes, n, d, own, ahead, level, offset, seed, common=0.0):
    r"""if $v>u$ (the teacher separates the label more, after the sigmoid), those in the features
    are parallel, while those in the classifier have cosine
    $(v-u)\|m\|/\sqrt{(v-u)^2\|m\|^2+(u+(K-1)v)^2\|h_G\|^2}$: a mean of the features turns them
    apart (level: where the teacher's sigmoids lie between 0 and 1)."""
    ends = teacher_logits(own, n_classes, ahead, level)
    features, classifier = cosines(n_classes, n, d, own, ends, offset, common, seed)
    expected = classifier_cosine(n_classes, own, ahead, level, offset)
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
    for k, (level, name) in enumerate(((0.2, "low"), (0.8, "high"))):
        curve = [classifier_cosine(5, 4.0, 0.5, level, o) for o in offset]
        pen.theory(offset, curve, f"classifier, {name} teacher logits", k=k)
        pen.points(*runs.measured("offset", "classifier", where={"level": level}), k=k)
    pen.points(*runs.measured("offset", "features", where={"level": 0.2}), "features", k=2)


@heads.ours("derived; the hypothesis of the abstract's second half")
@cases(n_classes=5, n=2, d=8, own=4.0, ahead=[-0.1, -0.8], level=0.3, offset=2.0)
@full(n_classes=[3, 5], n=2, d=8, own=4.0, ahead=[-0.1, -0.8], level=[0.2, 0.8], offset=[0.5, 2.0])
@space(
    n_classes=Int(2, 7),
    n=Int(1, 3),
    d=Int("n_classes", 10),
    own=Real(0.5, 6.0),
    ahead=Real(-0.95, -0.05),
    level=Real(0.05, 0.95),
    offset=Real(0.0, 3.0),
)
@breaks("a teacher that separates more", ahead=0.3)
@note(contradicts="b")
def conflict_reaches_the_features(n_classes, n, d, own, ahead, level, offset, seed):
    r"""if $v<u$ (the teacher separates the label less, after the sigmoid) those in the features are
    opposite, a complete conflict in the backbone, and those in the classifier have cosine
    $(v-u)\|m\|/\sqrt{(v-u)^2\|m\|^2+(u+(K-1)v)^2\|h_G\|^2}<0$."""
    ends = teacher_logits(own, n_classes, ahead, level)
    features, classifier = cosines(n_classes, n, d, own, ends, offset, 0.0, seed)
    expected = classifier_cosine(n_classes, own, ahead, level, offset)
    return {
        "features": compare(features, "==", theory("features", -1.0)),
        "classifier": compare(classifier, "==", theory("classifier", expected)),
    }


if __name__ == "__main__":
    run_script(__file__)
