from .max_margin import MarginProjection as MarginProjection
from .max_margin import MarginStatus as MarginStatus
from .max_margin import MarginVerdict as MarginVerdict
from .max_margin import MaxMargin as MaxMargin
from .max_margin import margin_projection as margin_projection
from .max_margin import max_margin as max_margin
