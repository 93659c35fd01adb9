"""One small valid call per public function of ``theorylab.optimization.adam``."""

from fractions import Fraction

import numpy as np

from theorylab.optimization.adam import (
    adagrad,
    adam,
    adam_step_ceiling_squared,
    adam_step_squared,
    adam_step_supremum,
    adam_step_supremum_squared,
    adam_steps,
    adam_worst_gradients,
    adamax,
    adamax_finite_p_norm,
    adamax_step,
    adamax_step_ceiling,
    adamax_step_supremum,
    adamax_steps,
    adamax_worst_gradients,
    amsgrad,
    stated_step_bound_squared,
)

_RUN = {
    "gradient": lambda x, t: 2 * x,
    "x0": np.array([0.5, -0.25]),
    "step_size": 0.1,
    "steps": 3,
    "lower": -1.0,
    "upper": 1.0,
}
_MOMENTUM = {"beta1": 0.9, "beta2": 0.99}
_EXACT = {"beta1": Fraction(9, 10), "beta2": Fraction(95, 100)}
_ADAM = {
    **_RUN,
    **_MOMENTUM,
    "eps": 1e-8,
    "decay": "sqrt",
    "momentum_decay": 0.5,
    "bias_correction": True,
}

CALLS = {
    adam: lambda: dict(_ADAM),
    amsgrad: lambda: dict(_ADAM),
    adamax: lambda: {**_RUN, **_MOMENTUM, "decay": "sqrt"},
    adagrad: lambda: {**_RUN, "eps": 1e-8},
    adam_steps: lambda: {
        "gradients": np.array([1.0, -2.0, 3.0]),
        **_MOMENTUM,
        "eps": 1e-8,
        "bias_correction": True,
    },
    adamax_steps: lambda: {"gradients": np.array([1.0, -2.0, 3.0]), **_MOMENTUM},
    adamax_finite_p_norm: lambda: {
        "gradients": np.array([1.0, -2.0, 3.0]),
        "beta2": 0.99,
        "p": 8.0,
    },
    adam_step_squared: lambda: {"gradients": [18, 19], **_EXACT},
    adamax_step: lambda: {"gradients": [20, 19], **_EXACT},
    adam_step_ceiling_squared: lambda: {"t": 3, **_EXACT},
    adamax_step_ceiling: lambda: {"t": 3, **_EXACT},
    adam_worst_gradients: lambda: {"t": 3, **_EXACT},
    adamax_worst_gradients: lambda: {"t": 3, "beta2": Fraction(95, 100)},
    adam_step_supremum: lambda: {"t": 3, **_MOMENTUM},
    adam_step_supremum_squared: lambda: {"t": 3, **_MOMENTUM},
    adamax_step_supremum: lambda: {"t": 3, **_MOMENTUM},
    stated_step_bound_squared: lambda: dict(_MOMENTUM),
}

# No bound on that side of the box; None for the limit of long histories.
_BOX = {"lower": {"inf"}, "upper": {"inf"}}
ACCEPTS = {
    **dict.fromkeys((adam, amsgrad, adamax, adagrad), _BOX),
    **{
        supremum: {"t": {"none"}}
        for supremum in (adam_step_supremum, adam_step_supremum_squared, adamax_step_supremum)
    },
}
