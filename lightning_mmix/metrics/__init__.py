"""Scores of probabilistic predictions and of hidden states, as functions and as torchmetrics.

The functions give sums over samples, which add up over batches and ranks; the metrics hold these
sums, of fixed size, and call the functions.
"""

from lightning_mmix.metrics.calibration import (
    Binning,
    Norm,
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
from lightning_mmix.metrics.samples import Form, log_probabilities
from lightning_mmix.metrics.scores import (
    brier_sum,
    correct_sum,
    nll_sum,
    temperature_scaling,
    tempered,
)
from lightning_mmix.metrics.spectrum import (
    ClassSpectrum,
    Moments,
    Statistic,
    class_moments,
    effective_rank,
    singular_values,
    spectrum_statistic,
)
from lightning_mmix.metrics.tally import Tally

__all__ = [
    "Binning",
    "BrierScore",
    "CalibrationBins",
    "CalibrationError",
    "ClassSpectrum",
    "Form",
    "MixedAccuracy",
    "Moments",
    "NegativeLogLikelihood",
    "Norm",
    "Statistic",
    "Tally",
    "bin_edges",
    "brier_sum",
    "calibration_bins",
    "calibration_error",
    "class_moments",
    "correct_sum",
    "effective_rank",
    "equal_mass",
    "fine_bins",
    "log_probabilities",
    "nll_sum",
    "singular_values",
    "spectrum_statistic",
    "temperature_scaling",
    "tempered",
]
