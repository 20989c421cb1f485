"""Scores, and what is done to inputs before they are taken."""

import numpy as np
import torch
from fitting import Net
from torch import nn

from lightning_mmix import MixPlan
from lightning_mmix.evaluation import (
    FGSM,
    PGD,
    Clean,
    Corruption,
    Predictor,
    Rotation,
    Spectra,
    Units,
    evaluate,
    interpolate_between,
    standard_conditions,
)
from lightning_mmix.metrics import (
    CalibrationError,
    ClassSpectrum,
    ClasswiseCalibrationError,
    MixedAccuracy,
    NegativeLogLikelihood,
    log_probabilities,
    temperature_scaling,
)
from refusals.table import X, Y, row

LOGITS = torch.linspace(-2, 3, 30).view(6, 5)
ONE_HOT = torch.eye(5).long()[Y]
IMAGES = torch.rand(6, 2, 4, 4)


def scored(preds, target, **kwargs):
    NegativeLogLikelihood(**kwargs).update(preds, torch.as_tensor(target))


def evaluated(condition, batch, model=None):
    """Score a network under a condition, whatever its inputs lie between."""
    evaluate(model or nn.Identity(), [batch], [condition], units=Units(-9, 9), progress=False)


@row("expected num_bins ≥ 1, but got 0", "corrects it")
def there_are_no_bins():
    CalibrationError(0)


@row("expected binning in ('width', 'mass'), but got 'depth'", "takes one of these")
def bins_are_made_in_an_unknown_way():
    CalibrationError(binning="depth")


@row(
    "expected norm in ('l1', 'l2', 'debiased', 'max', 'signed'), but got 'l3'", "takes one of these"
)
def a_calibration_error_has_an_unknown_norm():
    CalibrationError(norm="l3")


@row("expected num_classes ≥ 2 and num_bins ≥ 1, but got 1 and 15", "corrects them")
def a_classwise_error_is_of_one_class():
    ClasswiseCalibrationError(1)


@row("expected norm in ('l1', 'l2', 'debiased', 'max'), but got 'signed'", "takes one of these")
def a_classwise_error_has_a_norm_of_one_class():
    ClasswiseCalibrationError(5, norm="signed")


@row(
    "expected predictions of num_classes=4 classes, but got those of 5",
    "gives the number of classes",
)
def a_classwise_error_is_given_other_classes():
    ClasswiseCalibrationError(4).update(LOGITS, Y)


@row(
    "expected statistic in ('values', 'largest', 'rest', 'rank'), but got 'least'",
    "takes one of these",
)
def a_spectrum_has_an_unknown_statistic():
    ClassSpectrum(5, 4, statistic="least")


@row("expected form 'logits' or 'probabilities', but got 'probs'", "takes one of these")
def predictions_have_an_unknown_form():
    scored(LOGITS, Y, form="probs")


@row(
    "expected labels of shape (N,) and hidden states of 3 features, but got (6,) and (6, 4)",
    "gives the number of features",
)
def hidden_states_have_other_features():
    ClassSpectrum(5, 3).update(X, Y)


@row(
    "expected logits, but the predictions, float32 (6, 5), lie in [0, 1] and sum to one over the "
    "classes, as probabilities do; if they are, give form='probabilities', or leave the softmax "
    "out of the network",
    "gives the form, or takes the softmax out",
    UserWarning,
)
def logits_look_like_probabilities():
    scored(LOGITS.softmax(1), Y)


@row(
    "every row of the labels, int64 (6, 5), is one-hot, and is scored as 5 answers of yes or no; "
    "if each is one class, give target.argmax(1)",
    "gives class indices",
    UserWarning,
)
def labels_look_like_one_class_a_sample():
    scored(LOGITS, ONE_HOT)


@row(
    "expected class indices of shape (6,), but got one-hot rows, int64 (6, 5), for predictions "
    "that sum to one over the classes; give target.argmax(1), or flatten both to score each entry "
    "as yes or no",
    "gives class indices",
)
def labels_are_one_hot_beside_a_softmax():
    scored(LOGITS.softmax(1), ONE_HOT, form="probabilities")


@row(
    "expected a target of shape (N, ...) and preds of shape (N, C, ...), or (N, ...) for two "
    "classes, but got (5,) and (6, 5)",
    "gives a label for each prediction",
)
def predictions_and_labels_do_not_fit():
    scored(LOGITS, Y[:5])


@row(
    "expected a target of shape (N, ...) and preds of shape (N, C, ...), or (N, ...) for two "
    "classes, but got (2, 3) and (2, 3, 5); with the classes last, give preds.movedim(-1, 1)",
    "moves the classes",
)
def predictions_have_the_classes_last():
    scored(LOGITS.view(2, 3, 5), Y.view(2, 3))


@row(
    "expected preds of shape (N, C, ...) with C ≥ 2, but got (6,); one score for two classes wants "
    "log_probabilities(preds, binary=True)",
    "says that they are binary",
)
def predictions_have_no_classes():
    log_probabilities(LOGITS[:, 0])


@row(
    "expected probabilities in [0, 1], but got -2 to 3; if they are logits, give form='logits'",
    "gives the form",
)
def probabilities_are_logits():
    scored(LOGITS, Y, form="probabilities")


@row(
    "expected labels that are whole numbers in [0, 5), for predictions of 5 classes, but got int64 "
    "(6,) from -100 to 4; if -100 marks what is not to be scored, give ignore_index=-100",
    "leaves it out",
)
def a_label_is_negative():
    scored(LOGITS, [0, 1, 2, 3, 4, -100])


@row(
    "expected labels that are whole numbers in [0, 5) or ignore_index=-100, for predictions of 5 "
    "classes, but got int64 (6,) from -2 to 4; if they mark what is not to be scored, make them "
    "one, and give ignore_index",
    "makes them one",
)
def several_labels_are_negative():
    scored(LOGITS, [0, 1, 2, 4, -1, -2], ignore_index=-100)


@row(
    "expected labels that are whole numbers in [0, 5), for predictions of 5 classes, but got int64 "
    "(6,) from 0 to 255; if 255 marks what is not to be scored, give ignore_index=255, else labels "
    "up to 255 need predictions of 256 classes",
    "leaves it out, or has the network put out more classes",
)
def a_label_is_too_large():
    scored(LOGITS, [0, 1, 2, 3, 4, 255])


@row(
    "expected labels that are whole numbers in [0, 2), for one score a label, but got float32 (6,) "
    "from 0.5 to 0.5; a regression has no such scores",
    "takes a metric of regressions",
)
def labels_are_those_of_a_regression():
    scored(LOGITS[:, 0], torch.full((6,), 0.5))


@row(
    "expected labels that are whole numbers in [0, 2), for one score a label, but got float32 "
    "(6, 5) from 0.2 to 0.2; if they are shares of classes, give target.argmax(1)",
    "gives class indices",
)
def labels_are_shares_of_classes():
    scored(LOGITS, torch.full((6, 5), 0.2))


@row("expected at least one sample to fit a temperature to, but got none", "gives samples")
def a_temperature_is_fitted_to_nothing():
    temperature_scaling(LOGITS[:0], Y[:0])


@row(
    "expected labels that are whole numbers in [0, 2), for one score a label, but got int64 (6,) "
    "from 0 to 4; labels up to 4 need predictions of 5 classes",
    "has the network put out a score for each class",
)
def a_temperature_is_fitted_to_one_column_for_several_classes():
    temperature_scaling(LOGITS[:, :1], Y)


@row("expected predictions to fit a temperature to, but some are NaN", "looks for their cause")
def a_temperature_is_fitted_to_nan():
    temperature_scaling(LOGITS * torch.nan, Y)


@row("expected a finite eps ≥ 0, but got -1", "corrects it")
def a_condition_has_a_strength_out_of_range():
    FGSM(-1)


@row("expected a number as eps, but got '0.1'", "takes the quotes off")
def a_strength_is_a_text():
    FGSM("0.1")


@row("expected a whole number as severity, but got 2.5", "rounds it")
def a_severity_lies_between_two():
    Corruption("jpeg", 2.5)


@row("expected a number or None as step_size, but got True", "gives a number")
def a_step_size_is_a_bool():
    PGD(0.1, step_size=True)


@row("expected two numbers as bounds, but got None", "gives the range of the data")
def the_standard_conditions_have_no_bounds():
    standard_conditions(None, images=True)


@row("expected norm in ('linf', 'l2'), but got 'l1'", "takes one of these")
def an_attack_has_an_unknown_norm():
    FGSM(0.1, "l1")


@row(
    "expected kind in ('gaussian_blur', 'brightness', 'contrast', 'jpeg', 'pixelate'), but got "
    "'fog'",
    "takes one of these",
)
def a_corruption_is_of_an_unknown_kind():
    Corruption("fog", 1)


@row("expected finite bounds (low, high) with low < high, but got (1, 0)", "exchanges them")
def the_bounds_of_a_condition_are_no_range():
    FGSM(0.1).perturb(X, lambda x: x.sum(1), (1, 0), np.random.default_rng(0))


@row("expected a loss of each sample, of shape (6,), but got ()", "leaves the mean out")
def an_attack_is_given_the_mean_loss():
    FGSM(0.1).perturb(X, torch.mean, (0, 1), np.random.default_rng(0))


@row("expected a floating-point x, but got torch.int64", "gives no token ids", TypeError)
def an_attack_is_given_integers():
    FGSM(0.1).perturb(Y, torch.mean, (0, 1), np.random.default_rng(0))


@row("expected images of 1 or 3 channels for jpeg, but got 2", "leaves jpeg out")
def images_of_two_channels_are_compressed():
    evaluated(Corruption("jpeg", 1), (IMAGES, Y), nn.Flatten())


@row("rotation ±20° needs images of shape (B, C, H, W), but got (6, 4)", "leaves it out")
def rows_of_numbers_are_rotated():
    evaluated(Rotation(20), (X, Y), Net())


@row("FGSM 0.1 needs a floating-point input, but got torch.int32", "leaves it out")
def token_ids_are_attacked():
    evaluated(FGSM(0.1), (Y.int(), Y), nn.Embedding(5, 5))


@row(
    "rotation ±20° would move the pixels, but not their labels; leave it out",
    "leaves it out",
)
def a_segmentation_is_rotated():
    evaluated(Rotation(20), (IMAGES, torch.ones(6, 4, 4).long()))


@row("expected a range with low < high, but got (1, 0)", "exchanges them")
def the_data_have_no_range():
    Units(1, 0)


@row("expected a number or a list of numbers as mean, but got None", "leaves it out, or gives it")
def the_data_have_none_for_a_mean():
    Units(mean=None)


@row("expected a finite mean, but got nan", "looks for its cause")
def the_data_have_no_mean():
    Units(mean=float("nan"))


@row("expected a finite std > 0, but got 0", "corrects it")
def the_data_have_no_deviation():
    Units(std=0)


@row(
    "the inputs lie in [-2, 3], outside of the data's range [0, 1]; give their range, or the mean "
    "and std that they were normalised by",
    "gives Units",
)
def inputs_are_normalised_and_it_is_not_said():
    evaluate(nn.Identity(), [(LOGITS, Y)], [FGSM(0.1)], progress=False)


@row(
    "expected a network whose output follows from its input, but there is no gradient from one to "
    "the other, which attacks need; does forward run under no_grad or inference_mode, or detach?",
    "has forward keep its graph",
)
def a_network_that_detaches_is_attacked():
    model = Net()
    model.forward = lambda x: model.net(x).detach()
    evaluated(FGSM(0.1), (X, Y), model)


@row(
    "expected a network whose output follows from its input, but it computes with tensors of "
    "inference mode, through which attacks find no gradient; leave inference_mode out of forward, "
    "and make what it keeps under no_grad",
    "leaves inference_mode out",
)
def a_network_of_inference_mode_is_attacked():
    with torch.inference_mode():
        model = Net()
    evaluated(FGSM(0.1), (X, Y), model)


@row(
    "the network puts out 20 scores, but the 6 labels are of 5 classes, the last of them 4, and "
    "0% of the predictions are right; if these are features, say where the class scores are: "
    "Predictor(model, output=<key, index or path>)",
    "names the class scores, or knows better",
    UserWarning,
)
def features_are_taken_for_class_scores():
    evaluated(Clean(), (torch.eye(20)[10 + Y], Y))


@row("expected a list of conditions, as [Clean()], but got Clean()", "lists it")
def a_condition_is_not_in_a_list():
    evaluate(Net(), [(X, Y)], Clean(), progress=False)


@row("expected a torch.nn.Module as model, but got dict", "evaluates one at a time", TypeError)
def several_networks_are_evaluated_at_once():
    evaluate({"a": Net()}, [(X, Y)], [Clean()], progress=False)


@row(
    "there is no recognisable input in the batch, dict(pic: float32 (6, 4), label: int64 (6,)); "
    "say where: Predictor(model, input=<key, index or path>)",
    "makes a Predictor",
)
def an_input_that_is_attacked_is_not_recognised():
    evaluated(FGSM(0.1), {"pic": X, "label": Y}, Net())


@row(
    "the forward pass of Linear makes no predictions of the batch, tuple(0: float32 (6, 4), 1: "
    "int64 (6,)) (RuntimeError: mat1 and mat2 shapes cannot be multiplied (6x4 and 3x5))",
    "looks at the error in parentheses",
)
def a_network_does_not_take_the_batch():
    Predictor(nn.Linear(3, 5))((X, Y))


@row(
    "the forward pass of Module makes no predictions of the batch, tuple(0: float32 (6, 4), 1: "
    "int64 (6,)) (expected an output that fits the target, int64 (6,), but more than one of "
    "tuple(0: float32 (6, 5), 1: float32 (6, 5)) does; say where it is: output=<key, index or "
    "path>)",
    "names the output",
)
def a_network_puts_out_two_predictions():
    model = nn.Module()
    model.forward = lambda x: (LOGITS, LOGITS)
    Predictor(model)((X, Y))


@row(
    "the labels are the input's own tokens, as of a language model, which predicts the next one; "
    "put the next ones into the batch, labels.roll(-1, 1) with -100 in the last column, and give "
    "target=<their key> and ignore_index=-100",
    "scores each prediction against the next token",
)
def a_language_model_is_scored_by_the_tokens_that_it_reads():
    ids = torch.arange(12).view(3, 4)
    Predictor(nn.Embedding(12, 12))({"input_ids": ids, "labels": ids.where(ids < 10, -100)})


@row(
    "expected an output that fits the target, int64 (2, 3), but none of float32 (6, 5) does; is"
    " this batch's target the right one?",
    "names the output, or corrects the batch",
)
def a_later_batch_has_other_labels():
    predictor = Predictor(Net())
    predictor((X, Y))
    predictor((X, Y.view(2, 3)))


@row(
    "the forward pass of Net makes no predictions of the batch, tuple(0: float32 (6, 4), 1: int64 "
    "(6,)) (there is no output='scores' in the output, float32 (6, 5))",
    "corrects the path",
)
def an_output_is_misspelt():
    Predictor(Net(), output="scores")((X, Y))


@row(
    "expected a Predictor to hold what is not scored, but got ignore_index=-100 beside it; give "
    "Predictor(model, ignore_index=-100)",
    "gives it there",
)
def a_predictor_scores_what_is_to_be_left_out():
    evaluate(Predictor(Net()), [], [], ignore_index=-100)


@row("expected steps ≥ 2, but got 1", "takes more")
def an_interpolation_has_one_step():
    interpolate_between(Net(), (X, Y), steps=1)


@row(
    "expected labels of shape (B,) and at least two classes, but got int64 (6,) of one class",
    "takes a batch of several",
)
def an_interpolation_has_one_class():
    interpolate_between(Net(), (X, 0 * Y))


@row(
    "layer 'unused' did not run, or put out no floating-point tensor, so it has no hidden states; "
    "name another layer",
    "names another one",
)
def a_spectrum_is_that_of_a_layer_that_does_not_run():
    model = Net()
    model.unused = nn.Tanh()
    Spectra(Predictor(model), ["unused"]).update((X, Y))


@row(
    "expected layer 'turned' to put out hidden states of shape (6, ...), the batch first, but got "
    "(4, 6) after a mean over pixels or tokens",
    "names another one",
)
def a_spectrum_is_that_of_a_layer_without_the_batch_in_front():
    model = Net()
    model.turned = nn.Identity()
    model.forward = lambda x: model.net(model.turned(x.T).T)
    Spectra(Predictor(model), ["turned"]).update((X, Y))


@row(
    "labels='own' mixes each sample by its own weight and takes one label, so no accuracy of both "
    "is meant; leave the plan out",
    "leaves the plan out",
)
def a_mixed_accuracy_is_given_a_plan_of_own_labels():
    plan = MixPlan("a", torch.tensor([0.5, 0.75]), torch.tensor([1, 0]))
    MixedAccuracy().update(torch.randn(2, 3), torch.tensor([0, 1]), plan)
