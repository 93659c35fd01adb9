"""One small valid call of every public function of
``theorylab.implicit_regularization.ascent_descent``."""

import numpy as np

from theorylab.implicit_regularization import ascent_descent as ad

H = np.array([[1.5, 0.4], [0.4, -0.7]])
GRADIENTS = np.array([[[1.0, 0.2, 0.5], [0.2, 2.0, -1.0]], [[0.5, 0.0, 0.3], [0.0, 0.8, 0.7]]])


def fields():
    return {"gradient": lambda x: 1.5 * x + 0.3, "hessian_product": lambda x, v: 1.5 * v}


CALLS = {
    ad.sharpness_aware_descent: lambda: {
        "gradient": lambda x: 1.5 * x + 0.3,
        "start": np.array([1.0, -0.5]),
        "radius": 0.1,
        "step_size": 0.05,
        "steps": 4,
        "normalised": True,
    },
    ad.sam_modified_gradient: lambda: {
        **fields(),
        "x": np.array([1.0, -0.5]),
        "radius": 0.1,
        "normalised": True,
    },
    ad.sam_flow: lambda: {
        **fields(),
        "start": np.array([1.0, -0.5]),
        "times": np.array([0.1, 0.3]),
        "radius": 0.1,
        "normalised": False,
        "rtol": 1e-6,
    },
    ad.usam_corrections: lambda: {"gradients": GRADIENTS},
    ad.sam_corrections: lambda: {
        "features": np.array([[1.0, 0.5], [-0.3, 2.0]]),
        "signs": np.array([1.0, -1.0]),
    },
    ad.ascent_covariance: lambda: {
        "gradients": GRADIENTS,
        "corrections": ad.usam_corrections(GRADIENTS),
        "probabilities": np.array([0.3, 0.7]),
        "radius": 0.1,
    },
    ad.saddle_radius: lambda: {"hessian": H},
    ad.saddle_growth: lambda: {"hessian": H, "radius": 0.1, "norm": 0.3},
    ad.usam_stationary_variance: lambda: {
        "eigenvalues": np.array([0.5, 2.0]),
        "radius": 0.1,
        "step_size": 0.05,
        "noise_variance": 0.7,
    },
}
