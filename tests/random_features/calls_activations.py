"""One small valid call of every public function of ``theorylab.random_features.activations``."""

from theorylab import random_features as rf

CALLS = {rf.as_activation: lambda: {"activation": "erf"}}
