"""One small valid call of every public function of ``theorylab.random_features.sphere_spectra``."""

import numpy as np

from theorylab.random_features import sphere_spectra as ss

RULE = {"order": 2, "dimension": 3, "n_degrees": 5}

CALLS = {
    ss.sphere_eigenvalues: lambda: {"kernel": np.cos, "dimension": 3, "n_degrees": 4},
    ss.arc_cosine_eigenvalues: lambda: dict(RULE),
    ss.tangent_eigenvalues: lambda: dict(RULE),
    ss.arc_cosine_singularity: lambda: {"order": 2},
    ss.singular_eigenvalues: lambda: {"exponent": 0.5, "dimension": 3, "n_degrees": 4},
    ss.harmonic_counts: lambda: {"dimension": 3, "n_degrees": 4},
}
