"""One small valid call of every public function of ``theorylab.matrix_sensing.operators``."""

import numpy as np

from theorylab.matrix_sensing import operators as op

CALLS = {
    op.gaussian_operator: lambda: {
        "n": 3,
        "m": 5,
        "n_columns": 2,
        "symmetric": False,
        "rng": np.random.default_rng(0),
    },
    op.rank_one_operator: lambda: {
        "n": 3,
        "m": 5,
        "n_columns": 2,
        "symmetric": False,
        "rng": np.random.default_rng(0),
    },
    op.entry_operator: lambda: {
        "n": 3,
        "m": 5,
        "n_columns": 2,
        "symmetric": False,
        "rng": np.random.default_rng(0),
    },
    op.fourier_operator: lambda: {"n": 3, "m": 5, "n_columns": 2, "rng": np.random.default_rng(0)},
    op.pauli_operator: lambda: {"n_qubits": 2, "m": 5, "rng": np.random.default_rng(0)},
    op.restricted_isometry: lambda: {
        "operator": op.gaussian_operator(3, 9, rng=np.random.default_rng(0)),
        "rank": 1,
        "rng": np.random.default_rng(1),
        "starts": 2,
        "iterations": 5,
    },
    op.sign_deviation: lambda: {
        "operator": op.gaussian_operator(3, 9, rng=np.random.default_rng(0)),
        "noise": np.linspace(-1, 2, 9),
        "rank": 1,
        "scaling": 0.7,
        "rng": np.random.default_rng(1),
        "starts": 2,
        "iterations": 5,
        "cells": 2000,
    },
}
ACCEPTS = {
    f: {"n_columns": {"none"}}
    for f in (op.gaussian_operator, op.rank_one_operator, op.entry_operator, op.fourier_operator)
}
