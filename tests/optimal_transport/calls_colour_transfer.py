"""One small valid call of every public function of
``theorylab.optimal_transport.colour_transfer``."""

import numpy as np

from theorylab.optimal_transport import colour_transfer as ct


def image():
    return np.random.default_rng(0).uniform(size=(3, 4, 3))


def matched():
    return {
        "plan": np.array([[0.25, 0.1, 0.15], [0.1, 0.3, 0.1]]),
        "Y": np.array([[0.5, 1.5], [1.0, 0.1], [0.2, 0.3]]),
    }


CALLS = {
    ct.extract_palette: lambda: {"image": image(), "n_colours": 3, "seed": 0},
    ct.recolour: lambda: {
        "palette": ct.extract_palette(image(), n_colours=2, seed=0),
        "colours": np.array([[0.5, 1.5], [1.0, 0.1]]),
    },
    ct.barycentric_map: matched,
    ct.mixing: matched,
    ct.entropic_contrast: lambda: {
        "X": np.array([[0.5, 1.5], [1.0, 0.1]]),
        "Y": matched()["Y"],
        "a": np.array([0.25, 0.75]),
        "b": np.array([0.5, 0.2, 0.3]),
    },
}
