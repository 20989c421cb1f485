"""Scores of probabilistic predictions and of hidden states, as functions and as torchmetrics.

The functions give sums over samples, which add up over batches and ranks; the metrics hold these
sums, of fixed size, and call the functions.
"""

from lightning_mmix.metrics import calibration, classwise, samples, spectrum
from lightning_mmix.metrics.calibration import (
    bin_edges,
    calibration_bins,
    calibration_error,
    equal_mass,
    fine_bins,
)
from lightning_mmix.metrics.classification import (
    BrierScore,
    CalibrationBins,
    CalibrationError,
    MixedAccuracy,
    NegativeLogLikelihood,
)
from lightning_mmix.metrics.classwise import (
    ClasswiseCalibrationError,
    class_bins,
    classwise_error,
)
from lightning_mmix.metrics.samples import log_probabilities
from lightning_mmix.metrics.scores import (
    Tally,
    brier_sum,
    correct_sum,
    nll_sum,
)
from lightning_mmix.metrics.smooth import (
    SmoothCalibrationError,
    calibration_grid,
    smooth_calibration_error,
)
from lightning_mmix.metrics.spectrum import (
    ClassSpectrum,
    Moments,
    class_moments,
    effective_rank,
    singular_values,
    spectrum_statistic,
)
from lightning_mmix.metrics.temperature import (
    Temperature,
    temperature_scaling,
    tempered,
)

Binning = calibration.Binning
"""Calibration bins of equal ``"width"``, or of about equally many samples, equal ``"mass"``."""
Norm = calibration.Norm
"""How the gaps of bins become one calibration error; :func:`calibration_error` has the formulas."""
ClassNorm = classwise.ClassNorm
"""The same of all classes, but for the sign, which cancels out between classes."""
Form = samples.Form
"""What a network puts out: ``"logits"`` before a softmax, or ``"probabilities"`` behind one."""
Statistic = spectrum.Statistic
"""A number for a spectrum, as :func:`spectrum_statistic` computes it.

It is the largest singular value, the sum of the ``"rest"``, or the effective ``"rank"``.
"""

__all__ = [
    "Binning",
    "BrierScore",
    "CalibrationBins",
    "CalibrationError",
    "ClassNorm",
    "ClassSpectrum",
    "ClasswiseCalibrationError",
    "Form",
    "MixedAccuracy",
    "Moments",
    "NegativeLogLikelihood",
    "Norm",
    "SmoothCalibrationError",
    "Statistic",
    "Tally",
    "Temperature",
    "bin_edges",
    "brier_sum",
    "calibration_bins",
    "calibration_error",
    "calibration_grid",
    "class_bins",
    "class_moments",
    "classwise_error",
    "correct_sum",
    "effective_rank",
    "equal_mass",
    "fine_bins",
    "log_probabilities",
    "nll_sum",
    "singular_values",
    "smooth_calibration_error",
    "spectrum_statistic",
    "temperature_scaling",
    "tempered",
]
