"""Names: what the words in the name of a batch's entry say of it."""

import re
from collections.abc import Hashable
from functools import lru_cache
from itertools import pairwise
from typing import Literal

Kind = Literal["target", "measure", "loss", "input", "condition", "mask", "other"]


def _either(words: str) -> frozenset[str]:
    """Each of these words, in the singular and in the plural."""
    return frozenset(word + end for word in words.split() for end in ("", "s"))


_CLASS = _either("class cls category") | {"classes", "categories"}
_TRUTH = _either("gt truth groundtruth segmentation")
_TARGET = _CLASS | _TRUTH | _either("label lbl target tgt trg y annotation outcome")
_PHRASES = {("future", "value"), ("future", "values")}

# what is known before: even a target of these goes into the network
_KNOWN = _either("input inp x past previous prev history hist context ctx encoder lag") | {
    "historical", "in", "lagged", "shifted",
}  # fmt: skip
_TEXT = _either("input text token word subword char prompt source src decoder")
_PLACE = _either("position pos offset")
_PAD = _either("pad padding") | {"padded"}
_PADDING = _PAD | _either("attention attn causal")
_LEFT_OUT = _PAD | _either("ignore missing") | {"ignored", "invalid"}
_INPUT = (
    _KNOWN
    | _TEXT
    | _PLACE
    | _either("image img pixel picture photo frame video volume scan audio wav wave waveform")
    | _either("speech signal spectrogram mel sentence document doc sequence seq data series")
    | _either("feature feat covariate cov embedding embed emb node edge graph point attention")
)
_GENERAL = _either("value tensor array batch")  # they are what the other words say

_ID = _either("id idx index uid uuid guid") | {"indices"}
_MASK = _either("mask")
_WEIGHT = _either("weight")
_SIZE = _either("len length size")
_VALID = _either("valid validity observed available missing present ignore visible")
_MEASURE = _MASK | _WEIGHT | _SIZE | _VALID | _PADDING

_EXAMPLE = frozenset({"sample", "example", "instance"})
_BESIDE = _either("future loss output")  # a mask of these is no input's
_COUNT = _either("num n number")
_NEITHER = _COUNT | _either(
    "count logit pred predicted prediction hat name path file filename url embedding embed emb"
)


@lru_cache(maxsize=4096)
def split(name: Hashable) -> tuple[str, ...]:
    """The words of a name, in lower case and without its digits.

    Example:
        >>> split("futureTarget.is_pad2")
        ('future', 'target', 'is', 'pad')
    """
    between = r"[\W\d_]+|(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])"
    return tuple(word.lower() for word in re.split(between, str(name)) if word)


@lru_cache(maxsize=4096)
def kind(name: Hashable) -> Kind:
    """What an entry of this name is.

    Args:
        name: A key of a batch, or the name of an argument.

    Returns:
        ``"target"``; ``"measure"``, which goes along with a target (its length, mask or weight);
        ``"loss"``, a weight or mask of the loss; ``"input"``; ``"condition"``, which goes along
        with an input (its mask, length or position), or an id; ``"mask"``, which may be a target
        or go along with an input; ``"other"``, where the name doesn't tell.
    """
    words = split(name)
    if not words:
        return "other"
    if not _TARGET.isdisjoint(words) or not _PHRASES.isdisjoint(pairwise(words)):
        return _of_target(words)
    return _of_no_target(words)


def is_condition(path: str) -> bool:
    """Whether the last part of a path names an input's own mask, length or position, or an id.

    Example:
        >>> is_condition("0.attention_mask"), is_condition("0.mask")
        (True, False)
    """
    return kind(path.rpartition(".")[2]) == "condition"


def is_length(path: str) -> bool:
    """Whether the last part of a path names an input's own length.

    Example:
        >>> is_length("audio_len"), is_length("target_len"), is_length("0.attention_mask")
        (True, False, False)
    """
    return is_condition(path) and not _SIZE.isdisjoint(split(path)[-1:])


def marks_padding(path: str) -> bool:
    """Whether a mask of this path is true where there is nothing, rather than where there is.

    The last part of the path that is a name tells: by a word for padding, without one for not.

    Example:
        >>> marks_padding("src_key_padding_mask"), marks_padding("padding.0")
        (True, True)
        >>> marks_padding("attention_mask"), marks_padding("non_pad_mask"), marks_padding("2")
        (False, False, False)
    """
    named = (words for part in reversed(path.split(".")) if (words := split(part)))
    words = next(named, ())
    return not _LEFT_OUT.isdisjoint(words) and {"not", "non", "no"}.isdisjoint(words)


def is_mask(name: Hashable) -> bool:
    """Whether the last word of a name is mask."""
    return not _MASK.isdisjoint(split(name)[-1:])


@lru_cache(maxsize=4096)
def goes_with(name: Hashable, target: Hashable) -> bool:
    """Whether an entry goes along with the target of a name.

    It measures a target or weights the loss, or it measures something whose name begins as the
    target's does: ``future_is_pad`` goes with ``future_target``.
    """
    if kind(name) in ("measure", "loss"):
        return True
    words = split(name)
    begins = tuple(word for word in split(target) if word not in _TARGET | _GENERAL)
    begins_so = bool(begins) and words[: len(begins)] == begins and _INPUT.isdisjoint(begins)
    return begins_so and not _MEASURE.isdisjoint(words[len(begins) :])


def _of_target(words: tuple[str, ...]) -> Kind:
    own, last = {*words}, words[-1]
    is_measure = last in _MEASURE or words[0] in ("is", "has")
    if own & _KNOWN:
        return "condition" if is_measure else "input"
    # weights of classes are as many as there are classes
    if own & _NEITHER or (own & _CLASS and last in _WEIGHT):
        return "other"
    is_truth = own & _TRUTH and last in _MASK
    return "measure" if is_measure and not is_truth else "target"


def _of_no_target(words: tuple[str, ...]) -> Kind:
    own, last = {*words}, words[-1]
    if last in _WEIGHT:
        return "loss" if own & (_EXAMPLE | {"loss"}) else "other"
    if own & _BESIDE or words[0] in _COUNT:
        return _beside(words)
    if last in _ID:
        return "input" if last == "ids" and not _TEXT.isdisjoint(words[-2:-1]) else "condition"
    if own & _PADDING or (_measures(words) and not _INPUT.isdisjoint(words[:-1])):
        return "condition"
    return _of_mask(words) if last in _MASK else _of_input(words)


def _beside(words: tuple[str, ...]) -> Kind:
    if "loss" in words and words[-1] in _MASK:
        return "loss"
    return "input" if words[-1] in _INPUT and words[0] not in _COUNT else "other"


def _measures(words: tuple[str, ...]) -> bool:
    # past_observed_values tells which of them were
    telling = words[-1:] if _KNOWN.isdisjoint(words) else words
    return not (_MEASURE | _PLACE).isdisjoint(telling)


def _of_mask(words: tuple[str, ...]) -> Kind:
    return "mask" if _VALID.isdisjoint(words) else "other"


def _of_input(words: tuple[str, ...]) -> Kind:
    if words[-1] in _PLACE:
        return "input" if len(words) == 1 else "other"  # a start position may be what is asked for
    is_general = words[-1] in _GENERAL and not _INPUT.isdisjoint(words)
    return "input" if words[-1] in _INPUT or is_general or {*words} & _KNOWN else "other"
