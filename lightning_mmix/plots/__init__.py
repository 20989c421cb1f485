"""Pictures: values in, a matplotlib Figure out; nothing is shown or saved.

Values are tensors, or whatever :func:`numpy.asarray` takes. An *arm* is a way to train: it has the
colour, dashes and marker of its position, the same in all pictures. Nothing of ours is imported.
"""

try:
    import matplotlib as _  # noqa: F401
except ModuleNotFoundError as error:
    raise ImportError(
        "matplotlib is needed for pictures: pip install 'lightning-mmix[report]', or pip install "
        "'.[report]' in a clone"
    ) from error

from lightning_mmix.plots import look
from lightning_mmix.plots.curves import Curve, robustness_curves
from lightning_mmix.plots.diagrams import (
    interpolations,
    reliability_diagram,
    spectrum,
    training_curves,
)
from lightning_mmix.plots.look import legend, looked, panels
from lightning_mmix.plots.planes import Boundary, decision_boundaries

COLOURS = look.COLOURS
"""The colours of arms by position, told apart also by the colour-blind (Okabe and Ito, 2008)."""
Style = look.Style
"""Keyword arguments of matplotlib, as ``ax.plot(x, y, **style)`` takes them."""

__all__ = [
    "COLOURS",
    "Boundary",
    "Curve",
    "Style",
    "decision_boundaries",
    "interpolations",
    "legend",
    "looked",
    "panels",
    "reliability_diagram",
    "robustness_curves",
    "spectrum",
    "training_curves",
]
