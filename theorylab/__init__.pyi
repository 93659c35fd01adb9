__version__: str

from . import convex_relu as convex_relu
from . import corpus as corpus
from . import estimators as estimators
from . import implicit_regularization as implicit_regularization
from . import matrix_sensing as matrix_sensing
from . import neural_collapse as neural_collapse
from . import optimal_transport as optimal_transport
from . import optimization as optimization
from . import random_features as random_features
from . import verify as verify
