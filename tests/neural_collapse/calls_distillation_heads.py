"""One small valid call of every public function of
``theorylab.neural_collapse.distillation_heads``."""

import numpy as np

from theorylab.neural_collapse import distillation_heads as m

FEATURES = np.array([[1.0, 0.3, -0.7], [0.2, -0.8, 0.6]])
WEIGHTS = np.array([[0.4, 0.1], [-0.3, 0.7], [0.2, -0.5]])
LABELS = np.array([0, 1, 2])
LOGITS = np.array([[1.0, 0.2, -0.3], [0.1, 0.9, 0.4], [-0.5, 0.3, 0.2]])

CALLS = {
    m.distillation_gradients: lambda: {
        "features": FEATURES,
        "classifier": WEIGHTS,
        "labels": LABELS,
        "teacher_logits": LOGITS,
    },
    m.collapsed_head_cosines: lambda: {
        "own": 4.0,
        "teacher_own": 1.2,
        "teacher_other": -5.3,
        "n_classes": 5,
        "mean_length": 1.0,
        "offset_length": 2.0,
    },
}
