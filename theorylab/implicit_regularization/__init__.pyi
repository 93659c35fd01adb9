from .margins import MarginProjection as MarginProjection
from .margins import MarginStatus as MarginStatus
from .margins import MarginVerdict as MarginVerdict
from .margins import MaxMargin as MaxMargin
from .margins import margin_projection as margin_projection
from .margins import max_margin as max_margin
