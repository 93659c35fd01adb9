r"""Two losses on one head: probabilities and logits in distillation.

Gradients of cross-entropy with respect to the logits sum to zero over classes; those of binary
divergences of logits need not, and what they have in common across classes acts on the classifier
through the mean of the features, and on features through the sum of the classifier's rows.

Statements derived here; of yang2024-dual only the abstract was consulted."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import expit, softmax

from theorylab._validation import FloatArray, as_array, as_count, as_real
from theorylab.neural_collapse._spectra import as_labels
from theorylab.numerics.results import result

__all__ = ["HeadGradients", "collapsed_head_cosines", "distillation_gradients"]


@result
class HeadGradients:
    """Gradients of cross-entropy and of the binary divergence in features (d, N) and classifier (K,
    d), summed over samples."""

    entropy_features: FloatArray
    entropy_classifier: FloatArray
    binary_features: FloatArray
    binary_classifier: FloatArray

    @property
    def feature_cosine(self) -> float:
        """Cosine between both gradients in the features."""
        return _cosine(self.entropy_features, self.binary_features)

    @property
    def classifier_cosine(self) -> float:
        """Cosine between both gradients in the classifier."""
        return _cosine(self.entropy_classifier, self.binary_classifier)


def distillation_gradients(
    features: ArrayLike, classifier: ArrayLike, labels: ArrayLike, teacher_logits: ArrayLike
) -> HeadGradients:
    r"""Return the gradients of cross-entropy with the labels and of
    $\sum_kKL(\sigma(z^T_k)\|\sigma(z_k))$ with a teacher.

    Parameters
    ----------
    features
        (d, N), a column a sample.
    classifier
        (K, d).
    labels
        (N,) integers from 0 to K - 1.
    teacher_logits
        (K, N).

    Examples
    --------
    >>> import numpy as np
    >>> from theorylab.neural_collapse import distillation_gradients
    >>> features, classifier = [[1.0, -1.0]], [[0.0], [0.0]]
    >>> gradients = distillation_gradients(features, classifier, [0, 1], np.zeros((2, 2)))
    >>> gradients.entropy_classifier.ravel(), gradients.binary_classifier.ravel()
    (array([-1.,  1.]), array([0., 0.]))
    """
    H = as_array(features, "features", ndim=2)
    W = as_array(classifier, "classifier", shape=(None, H.shape[0]))
    y = as_labels(labels, H.shape[1], W.shape[0])
    Z = W @ H
    teacher = as_array(teacher_logits, "teacher_logits", shape=Z.shape)
    entropy, binary = softmax(Z, axis=0) - np.eye(W.shape[0])[:, y], expit(Z) - expit(teacher)
    return HeadGradients(W.T @ entropy, entropy @ H.T, W.T @ binary, binary @ H.T)


def collapsed_head_cosines(
    own: float,
    *,
    teacher_own: float,
    teacher_other: float,
    n_classes: int,
    mean_length: float,
    offset_length: float,
) -> tuple[float, float]:
    r"""Return the cosines of :func:`distillation_gradients` in features and classifier at a
    balanced collapsed state.

    Simplex-frame classifier, features $m_k+h_G$ with $m_k\parallel w_k$,
    $h_G\perp w_k$. With student logits z (own) and -z/(K-1) (other),
    $u=\sigma(z)-\sigma(z^T)$ for the own class, v for the others, $c=(u+(K-1)v)/K$,

    $$\cos_H=\mathrm{sign}(v-u),\qquad
    \cos_W=\frac{(v-u)\|m\|}{\sqrt{(v-u)^2\|m\|^2+c^2K^2\|h_G\|^2}} .$$

    Features agree iff the teacher separates own from other classes more than the student, after the
    sigmoid; the entries of the two logit gradients at the label have opposite signs iff u > 0
    (derived; yang2024-dual, conflict in the classifier).

    Parameters
    ----------
    own
        Student logit z > 0 of the own class.
    teacher_own, teacher_other
        Teacher logits of own and other classes.
    n_classes
        K >= 2.
    mean_length, offset_length
        Lengths of the class means, positive, and of the global mean.

    Returns
    -------
    feature_cosine, classifier_cosine
        Both 0 where u = v; the classifier's is 0 where the features' is.

    Examples
    --------
    >>> import numpy as np
    >>> from theorylab.neural_collapse import collapsed_head_cosines
    >>> lengths = {"mean_length": 1.0, "offset_length": 2.0}
    >>> cosines = collapsed_head_cosines(
    ...     4.0, teacher_own=1.2, teacher_other=-5.3, n_classes=5, **lengths
    ... )
    >>> np.round(cosines, 4)
    array([1.    , 0.0199])
    """
    K = as_count(n_classes, "n_classes", minimum=2)
    z = as_real(own, "own", above=0.0)
    u = expit(z) - expit(as_real(teacher_own, "teacher_own"))
    v = expit(-z / (K - 1)) - expit(as_real(teacher_other, "teacher_other"))
    m = as_real(mean_length, "mean_length", above=0.0)
    shift = abs(u + (K - 1) * v) * as_real(offset_length, "offset_length", minimum=0.0)
    along = float((v - u) * m)
    return float(np.sign(along)), along / float(np.hypot(along, shift)) if along else 0.0


def _cosine(a: FloatArray, b: FloatArray) -> float:
    scale = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(np.sum(a * b)) / scale if scale > 0 else 0.0
