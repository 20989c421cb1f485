"""Batches, and what is lent of them."""

import torch
from fitting import Net, fit
from torch import nn

from lightning_mmix import ManifoldMixup, MixPlan, mixing
from lightning_mmix.batches.roles import find_input, find_targets
from lightning_mmix.batches.union import united
from refusals.table import ORDER, X, Y, paired, row

FLAT, LENGTHS = torch.ones(9).long(), torch.tensor([4, 2, 3])
IMAGES, BOXES = torch.rand(3, 1, 4, 4), torch.tensor([0.0, 0.0, 2.0, 2.0])[:, None].repeat(1, 5)


@row(
    "the batch, float32 (6, 4), holds no target; an autoencoder's or language model's is a copy of "
    "its input: return (x, x.clone()) in on_after_batch_transfer, say target=1, and take the loss "
    "of the copy; GANs and views can't be mixed",
    "makes a copy and names it, or trains without mixing",
)
def a_batch_is_an_input_alone():
    find_targets(X)


@row(
    "the batch, dict(input_ids: int64 (6,)), holds no target; an autoencoder's or language "
    "model's is a copy of its input: set batch['labels'] = batch['input_ids'].clone() in "
    "on_after_batch_transfer, say target='labels', and take the loss of the copy; GANs and views "
    "can't be mixed",
    "makes a copy and names it, or trains without mixing",
)
def a_batch_of_names_holds_an_input_alone():
    find_targets({"input_ids": Y})


@row(
    "the entries of the batch, tuple(0: float32 (6, 4), 1: float32 (6, 4)), look alike; if one is "
    "the target, as a copy of the input is an autoencoder's, say so: target=1; views of a sample "
    "have none: train them without ManifoldMixup",
    "names the target, or trains without mixing",
)
def a_pair_may_be_two_views():
    find_targets((X, X.clone()))


@row(
    "the entries of the batch, list(0: float32 (6, 4), 1: float32 (6, 4), 2: float32 (6, 4)), look "
    "alike; if one is the target, as a copy of the input is an autoencoder's, say so: "
    "target=<index or path>; views of a sample have none: train them without ManifoldMixup",
    "names the target, or trains without mixing",
)
def three_entries_may_be_views():
    find_targets([X, X + 1, X + 2])


@row(
    "the entry 1 of the batch, tuple(0: tuple(0: float32 (6, 4), 1: int64 (6,)), 1: tuple(0: "
    "float32 (6, 4), 1: int64 (6,))), looks like another one, as those of two domains or views do; "
    "say which target the loss takes: target='0.1', or target=1 for all of this entry",
    "names the target",
)
def a_batch_holds_two_domains():
    find_targets(((X, Y), (X + 1, Y + 1)))


@row(
    "the target stands at two places of the batch, dict(x: float32 (6, 4), y: float32 (6, 4)); if "
    "it is the input as well, give the batch a .clone() of it, and say target='y'",
    "gives the batch a .clone()",
)
def the_target_is_the_input_of_the_batch():
    find_targets({"x": X, "y": X})


@row(
    "y or label may be the target in the batch, dict(x: float32 (6, 4), y: int64 (6,), label: "
    "int64 (6,)); say where: target=<key, index or path>",
    "names it",
)
def two_entries_may_be_the_target():
    find_targets({"x": X, "y": Y, "label": Y + 1})


@row(
    "there is no recognisable target in the batch, dict(x: float32 (6, 4), z: int64 (6,)); say "
    "where: target=<key, index or path>",
    "names it",
)
def no_name_says_target():
    find_targets({"x": X, "z": Y})


@row(
    "mask may be the target in the batch, dict(x: int64 (2, 3), mask: bool (2, 3)); say where: "
    "target=<key, index or path>",
    "names it, or the target that is missing",
)
def a_mask_may_be_the_target_or_say_what_is_padding():
    find_targets({"x": Y.view(2, 3), "mask": Y.view(2, 3) > 0})


@row(
    "image or x may be the input in the batch, dict(image: float32 (6, 4), x: float32 (6, 4), y: "
    "int64 (6,)); say where: input=<key, index or path>",
    "names it",
)
def two_entries_may_be_the_input():
    find_input({"image": X, "x": X + 1, "y": Y})


@row(
    "there is no target='labels' in the batch, dict(x: float32 (6, 4), label: int64 (6,)); did "
    "you mean 'label'?",
    "corrects the path",
)
def the_target_is_misspelt():
    find_targets({"x": X, "label": Y}, "labels")


@row(
    "expected a tensor as target, but got list of 6 int in the batch, tuple(0: float32 (6, 4), 1: "
    "list of 6 int); make it one in the collate function, as torch.tensor(values) does of numbers",
    "makes it one",
    TypeError,
)
def the_target_is_a_list_of_numbers():
    find_targets((X, Y.tolist()))


@row(
    "expected a tensor as target, but got NoneType in the batch, tuple(0: float32 (6, 4), 1: "
    "NoneType); say where it is: target=<key, index or path>",
    "names it",
    TypeError,
)
def there_is_nothing_at_the_place_of_the_target():
    find_targets((X, None))


@row(
    "expected targets of shape (B, ...), but got a list of 3 dict, one for each sample; stack them "
    "to one tensor, or pad them, as boxes to (B, M, 4); a loss that needs the list can't be mixed",
    "stacks or pads them, or trains without mixing",
    TypeError,
)
def each_sample_has_a_target_of_its_own():
    find_targets((IMAGES, [{"boxes": BOXES}] * 3))


@row(
    "expected targets of shape (B, ...), but got int64 (), without rows; give each sample a value "
    "of its own",
    "gives each sample one",
)
def the_target_is_a_single_number():
    find_targets((X, torch.tensor(2)))


@row(
    "expected targets of shape (B, ...), but got nested int64; pad it in the collate function: "
    "torch.nested.to_padded_tensor(y, -100)",
    "pads it",
)
def the_target_is_nested():
    find_targets((X, torch.nested.nested_tensor([Y[:2], Y], layout=torch.strided)))


@row(
    "expected targets of shape (B, ...), but got (9,), (3,), laid end to end with their lengths; "
    "pad them to (B, T) in the collate function",
    "pads them",
)
def targets_are_laid_end_to_end():
    find_targets((IMAGES, (FLAT, LENGTHS)))


@row(
    "expected targets of shape (B, ...), but got (6,), (3,), not of one B; name those with a row "
    "for each sample, and pad or stack what differs",
    "names those with a row for each sample",
)
def targets_are_of_different_lengths():
    find_targets((X, Y, Y[:3]), [1, 2])


@row(
    "expected targets of shape (B, ...), but got float32 (4, 5) for 3 images, a row a box; pad "
    "them to (B, M, ...), so that each image has its own, or train without ManifoldMixup",
    "pads them, or trains without mixing",
)
def the_rows_of_a_target_are_boxes():
    find_targets((IMAGES, BOXES))


@row(
    "expected a floating-point input to mix, but got int64 (6,); mix the layer that embeds it "
    "instead",
    "names that layer",
    TypeError,
)
def the_input_that_is_mixed_is_one_of_integers():
    fit(Net(), ManifoldMixup(layers=["input"], verify=False), data=[(Y, Y.clone().float())])


@row(
    "expected a dense target, but got sparse_csr float32 (6, 6); make it one in the collate "
    "function or in on_after_batch_transfer: y.to_dense()",
    "makes it dense",
)
def a_target_is_sparse_and_compressed():
    paired(lambda z, y: z, torch.eye(6).to_sparse_csr())


@row(
    "expected a target without gradient, but got one that requires it",
    "detaches it",
)
def a_target_requires_a_gradient():
    paired(lambda z, y: z, torch.ones(6, requires_grad=True))


@row(
    "the target is the input as well; give the one or the other a .clone()",
    "gives the batch a .clone()",
)
def the_target_is_the_input_that_is_mixed():
    with mixing(nn.Linear(4, 5), MixPlan("input", torch.tensor(0.75), ORDER), X, input=X):
        pass


@row("the plan mixes the input, but none was given: input=<tensor>", "gives it")
def a_plan_mixes_the_input_and_there_is_none():
    with mixing(nn.Linear(4, 5), MixPlan("input", torch.tensor(0.75), ORDER), Y):
        pass


@row(
    "expected a tensor of shape (6, ...) for a plan of 6 samples, but got (3,)",
    "draws a plan for as many samples as the batch has",
)
def a_plan_is_of_another_size():
    paired(lambda z, y: z, Y[:3])


@row(
    "expected a boolean or integer mask as union='mask', but got float32 (6, 4); make it boolean "
    "in the collate function or in on_after_batch_transfer: mask == 0 if it is added to scores, "
    "mask > 0 if it is of zeros and ones",
    "makes it boolean",
    TypeError,
)
def a_mask_to_be_united_is_added_to_scores():
    united({"x": X, "mask": X.new_zeros(6, 4)}, "mask", ORDER)


@row(
    "expected masks or lengths of shape (6, ...), but got bool (4, 6) as union='mask'; put the "
    "batch first, and leave out what all samples share",
    "puts the batch first, or leaves it out",
)
def a_mask_to_be_united_has_no_row_for_each_sample():
    united({"x": X, "mask": X.T > 0}, "mask", ORDER)


@row(
    "there is no union='attn_mask' in the batch, dict(x: float32 (6, 4), attention_mask: bool (6, "
    "4)); did you mean 'attention_mask'?",
    "corrects the path",
)
def a_mask_to_be_united_is_misspelt():
    united({"x": X, "attention_mask": X > 0}, "attn_mask", ORDER)


@row(
    "there is no union='mask' in the batch, dict(x: float32 (6, 4), attention_mask: bool (6, 4)); "
    "did you mean 'attention_mask'?",
    "writes the name out",
)
def a_mask_to_be_united_is_named_by_a_part_of_its_name():
    united({"x": X, "attention_mask": X > 0}, "mask", ORDER)


@row(
    "expected a tensor as union, but got list of 6 int in the batch, tuple(0: float32 (6, 4), 1: "
    "list of 6 int); make it one in the collate function, as torch.tensor(values) does of numbers",
    "makes it one",
    TypeError,
)
def lengths_to_be_united_are_a_list_of_numbers():
    united((X, [1, 2, 3, 4, 3, 2]), 1, ORDER)
