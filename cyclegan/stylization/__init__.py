"""Give a picture the look of another one: by optimization, or by a network made for any style.

From Python: ``read_styles``, then ``optimize`` for tensors (it tells every step and can be stopped), or
``fast_network`` for a module.
"""

from cyclegan.stylization.fast import fast_network
from cyclegan.stylization.optimization import Progress, optimize
from cyclegan.stylization.options import Optimization
from cyclegan.stylization.styles import Style, read_styles

__all__ = ["Optimization", "Progress", "Style", "fast_network", "optimize", "read_styles"]
