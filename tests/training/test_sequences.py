"""Sequences of different lengths: the step's masks are those of the sample or its partner."""

import copy

import pytest
import torch
import torch.nn.functional as F
from clients import Naively, Wrapped
from fitting import fit, loader, trainer
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence

from lightning_mmix import ManifoldMixup, check

pytestmark = [
    pytest.mark.usefixtures("float64"),
    pytest.mark.filterwarnings("ignore:You called .self.log"),  # there is no logger
]
B, T = 6, 7
CLASSES = torch.tensor([0, 1, 2, 0, 1, 2])
LENGTHS = torch.tensor([2, 7, 4, 3, 6, 2])
VALID = (torch.arange(T) < LENGTHS[:, None]).long()
IDS = torch.arange(B * T).view(B, T) * 5 % 30 + 1


def either(name, mask, partner):
    """What is valid in the sample or in its partner, a row at a time; padding in both."""
    of_both = min if "pad" in name else max
    rows = [
        [of_both(a, b) for a, b in zip(mask[i].view(-1), mask[j].view(-1), strict=True)]
        for i, j in enumerate(partner.tolist())
    ]
    return torch.tensor(rows, dtype=mask.dtype).view(mask.shape)


class United(Naively):
    """The naive form, whose two passes both take the union of the masks."""

    def __init__(self, mixup, batch, names):
        super().__init__(mixup, copy.deepcopy(batch), lambda batch: [batch["labels"]], atol=1e-10)
        self.came, self.names = copy.deepcopy(batch), names
        self.differed = 0

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        for name in self.names:
            mask = self.came[name]
            union = either(name, mask, self.mixup.plan.partner)
            torch.testing.assert_close(pl_module.took[name], union, rtol=0, atol=0)
            torch.testing.assert_close(batch[name], mask, rtol=0, atol=0)  # given back
            self.batch[name] = union
            self.differed += not torch.equal(union, mask)
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)


class Noting(Wrapped):
    """Keeps what its forward took last."""

    def forward(self, **batch):
        self.took = {name: entry.clone() for name, entry in batch.items()}
        return self.model(**batch)


class Classifier(Noting):
    """Whose model takes everything but the labels."""

    def training_step(self, batch, batch_idx):
        given = {name: entry for name, entry in batch.items() if name != "labels"}
        return F.cross_entropy(self(**given), batch["labels"])


def bert():
    hf = pytest.importorskip("transformers")
    sizes = {"hidden_size": 12, "num_hidden_layers": 4, "num_attention_heads": 2}
    more = {"vocab_size": 31, "intermediate_size": 20, "max_position_embeddings": 16}
    return Noting(hf.BertForSequenceClassification(hf.BertConfig(**sizes, **more, num_labels=3)))


def sentences(dtype=torch.int64):
    return {"input_ids": IDS, "attention_mask": VALID.to(dtype), "labels": CLASSES}


class Packed(nn.Module):
    """An LSTM over packed sequences, which ends each at its length."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(31, 5)
        self.lstm = nn.LSTM(5, 6, batch_first=True)
        self.head = nn.Linear(6, 3)

    def forward(self, tokens, token_lengths):
        lengths = {"batch_first": True, "enforce_sorted": False}
        packed = pack_padded_sequence(self.embedding(tokens), token_lengths.cpu(), **lengths)
        return self.head(self.lstm(packed)[1][0][-1])


class Averaged(Packed):
    """An LSTM whose states are averaged up to the length."""

    def forward(self, tokens, token_lengths):
        states = self.lstm(self.embedding(tokens))[0]
        counts = torch.arange(tokens.shape[1]) < token_lengths[:, None]
        return self.head((states * counts[..., None]).sum(1) / token_lengths[:, None])


class Encoder(nn.Module):
    """A Transformer of torch's own, where true is padding."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(31, 8)
        layer = nn.TransformerEncoderLayer(8, 2, 11, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(8, 3)

    def forward(self, tokens, src_key_padding_mask):
        states = self.encoder(self.embedding(tokens), src_key_padding_mask=src_key_padding_mask)
        return self.head(states[:, 0])


def assert_united(module, batch, union, names, steps=4, **kwargs):
    """Fit on one batch time and again, also in steps that are not watched; judge each step."""
    mixup = ManifoldMixup(union=union, stop=1.0, seed=0, **kwargs)
    naively = United(mixup, batch, names)
    fit(module, mixup, naively, data=[copy.deepcopy(batch) for _ in range(steps)])
    assert naively.layers <= set(mixup.layers_)
    assert naively.differed == steps * len(names)


@pytest.mark.parametrize("layers", [["model.bert.embeddings"], "auto"])
@pytest.mark.parametrize("dtype", [torch.int64, torch.bool])
def test_a_hugging_face_classifier_attends_to_what_either_sentence_holds(layers, dtype):
    pytest.importorskip("transformers")
    assert_united(bert(), sentences(dtype), "attention_mask", ["attention_mask"], layers=layers)


@pytest.mark.parametrize("layers", [["model.embedding"], "auto"])
@pytest.mark.parametrize("model", [Packed, Averaged])
def test_an_lstm_reads_to_the_end_of_the_longer_sequence(model, layers):
    batch = {"tokens": IDS, "token_lengths": LENGTHS, "labels": CLASSES}
    names = ["token_lengths"]
    layers = ["model.embedding"] if model is Packed else layers  # what is packed has no rows
    assert_united(Classifier(model()), batch, names, names, layers=layers)


def test_where_true_is_padding_the_union_is_what_is_padding_in_neither():
    batch = {"tokens": IDS, "src_key_padding_mask": VALID == 0, "labels": CLASSES}
    names = ["src_key_padding_mask"]
    assert_united(Classifier(Encoder()), batch, names[0], names, layers=["model.embedding"])


def test_a_check_takes_the_union_in_its_naive_form_too():
    pytest.importorskip("transformers")
    seen, module = [], bert()
    module.model.bert.register_forward_pre_hook(
        lambda *args: seen.append(args[-1]["attention_mask"].clone()), with_kwargs=True
    )
    mixup = ManifoldMixup(layers=["model.bert.embeddings"], union="attention_mask", stop=1.0)
    checked = check(module, loader([sentences()]), mixup=mixup)
    assert checked.is_exact, str(checked)
    assert not torch.equal(seen[-1], VALID)
    assert all(torch.equal(mask, seen[-1]) for mask in seen[-3:])  # mixed, and twice by hand


def test_the_masks_are_given_back_also_after_an_exception():
    class Failing(Classifier):
        def training_step(self, batch, batch_idx):
            super().training_step(batch, batch_idx)
            raise KeyError("labels")

    batch = {"tokens": IDS, "token_lengths": LENGTHS.clone(), "labels": CLASSES}
    lengths, memory = batch["token_lengths"], batch["token_lengths"].data_ptr()
    mixup = ManifoldMixup(layers=["model.embedding"], union="token_lengths", stop=1.0)
    module = Failing(Packed())
    with pytest.raises(KeyError, match="labels"):
        fit(module, mixup, data=[batch])
    assert not torch.equal(module.took["token_lengths"], LENGTHS)
    assert type(lengths) is torch.Tensor
    assert torch.equal(lengths, LENGTHS)
    assert lengths.data_ptr() == memory


def test_a_batch_that_is_not_mixed_keeps_its_masks():
    module = Classifier(Packed())
    batch = {"tokens": IDS, "token_lengths": LENGTHS, "labels": CLASSES}
    fit(module, ManifoldMixup(alpha=0, union="token_lengths"), data=[batch])
    assert torch.equal(module.took["token_lengths"], LENGTHS)


def test_validation_keeps_its_masks():
    class Validated(Classifier):
        def validation_step(self, batch, batch_idx):
            self.training_step(batch, batch_idx)
            assert torch.equal(self.took["token_lengths"], LENGTHS)

    batch = {"tokens": IDS, "token_lengths": LENGTHS, "labels": CLASSES}
    mixup = ManifoldMixup(layers=["model.embedding"], union="token_lengths", stop=1.0)
    loaders = loader([batch]), loader([batch])
    trainer(mixup).fit(Validated(Averaged()), *loaders)
    assert mixup.plan is not None


def test_the_union_is_named_where_it_is():
    batch = {"tokens": IDS, "token_lengths": LENGTHS, "labels": CLASSES}
    mixup = ManifoldMixup(layers=["model.embedding"], union="lengths", stop=1.0)
    with pytest.raises(ValueError, match="there is no union='lengths' in the batch, dict"):
        fit(Classifier(Packed()), mixup, data=[batch])
