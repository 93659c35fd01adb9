from .residual_flow import FlowMajorant as FlowMajorant
from .residual_flow import ResidualFlow as ResidualFlow
from .residual_flow import depth_increments as depth_increments
from .residual_flow import flow_majorant as flow_majorant
from .residual_flow import residual_flow as residual_flow
from .residual_flow import residual_outputs as residual_outputs
from .residual_flow import tied_network as tied_network
