"""What the words of a name say."""

import pytest

from lightning_mmix.batches.names import (
    goes_with,
    is_condition,
    is_mask,
    kind,
    marks_padding,
    split,
)

KINDS = {
    "target": """label labels target targets y Y class classes class_id classId class_index cls
        category gt gt_label gt_mask gtMasks ground_truth ground_truth_mask groundTruth y_true
        future_target future_values positive_labels label_ids source_label coarse_label
        image_label target_text targetImage decoder_target teacher_labels segmentation
        segmentation_mask tgt_out item.label label2""",
    "measure": """target_len targetLengths target_sizes labels_padding_mask label_mask y_mask
        label_weight target_is_pad target_valid labels_observed has_label is_target""",
    "loss": "loss_mask lossWeights sample_weight sample_weights example_weight instance_weight",
    "input": """image img images pixel_values x X x1 input inputs input_ids decoder_input_ids
        token_ids src source tokens text audio wav waveform history features inputs_embeds
        past_target past_values encoder_target context_label x_target y_in future_time_feat
        image_tensor positions video_frames""",
    "condition": """attention_mask padding_mask key_padding_mask pixel_mask src_mask is_pad
        input_lengths audio_len src_len image_size past_observed_values past_is_pad
        encoder_target_len decoder_lengths token_positions position_ids token_type_ids id idx
        index image_id imageId sample_idx uid user_id""",
    "mask": "mask masks seg_mask lesionMask",
    "other": """z a 0 lengths weight weights boxes logits teacher_logits y_pred pred_labels
        num_classes num_tokens class_names label_path class_weights class_weight image_weight
        label_embedding valid_mask future_is_pad future_observed_values output_lengths
        start_positions image_quality caption grid valid""",
}


@pytest.mark.parametrize(
    ("name", "expected"), [(name, each) for each, names in KINDS.items() for name in names.split()]
)
def test_a_name_is_told_by_its_words(name, expected):
    assert kind(name) == expected
    assert is_condition(f"label.{name}") == (expected == "condition")


@pytest.mark.parametrize("name", [1, None, ("label", "z"), "", "_7"])
def test_a_key_may_be_anything_or_nothing(name):
    assert kind(name) == ("target" if name == ("label", "z") else "other")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("source_label", "source label"),
        ("sourceLabel", "source label"),
        ("SourceLabel2x", "source label x"),
        ("meta.imageID", "meta image id"),
        ("HTMLText", "html text"),
        ("größe-x", "größe x"),
    ],
)
def test_a_name_is_split_at_its_case_signs_and_digits(name, words):
    assert " ".join(split(name)) == words


@pytest.mark.parametrize(
    ("name", "target", "expected"),
    [
        ("future_is_pad", "future_target", True),
        ("future_observed_values", "future_target", True),
        ("future_observed_mask", "future_values", True),
        ("future_time_feat", "future_target", False),
        ("future_is_pad", "target", False),
        ("past_is_pad", "future_target", False),
        ("fine_weight", "fine_label", True),
        ("coarse_weight", "fine_label", False),
        ("source_mask", "source_label", False),  # of the source itself
        ("label_len", "y", True),
        ("loss_mask", "y", True),
        ("mask", "label", False),
        ("weight", "label", False),
    ],
)
def test_what_goes_with_a_target_is_told_by_both_names(name, target, expected):
    assert goes_with(name, target) == expected


def test_a_mask_is_told_by_its_last_word():
    assert is_mask("padding_mask")
    assert is_mask("Masks")
    assert not is_mask("mask_size")
    assert not is_mask(3)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("src_key_padding_mask", True),
        ("0.padMask", True),
        ("is_padded", True),
        ("ignored", True),
        ("missing_mask", True),
        ("padding.0", True),
        ("padding.mask", False),  # the last name tells
        ("attention_mask", False),
        ("not_padding", False),
        ("nonPadMask", False),
        ("valid", False),
        ("2", False),
        ("", False),
    ],
)
def test_a_mask_of_padding_is_told_by_its_words(path, expected):
    assert marks_padding(path) == expected
