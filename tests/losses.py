"""Losses as people write them: each takes logits of shape (B, 5) and labels of shape (B,)."""

import torch
import torch.nn.functional as F
import torchvision
from torch import nn

C = 5


def one_hot(y):
    return F.one_hot(y, C).to(torch.get_default_dtype())


def ignoring(z, y):
    return F.cross_entropy(z, torch.where(y == 2, -100, y), ignore_index=-100)


def multilabel(z, y):
    many = one_hot(y) + one_hot((y + 1) % C)
    return F.binary_cross_entropy_with_logits(z, many)


def focal_by_gather(z, y):
    log_p = z.log_softmax(1).gather(1, y.view(-1, 1)).squeeze(1)
    return (-((1 - log_p.exp()) ** 2) * log_p).mean()


def soft_dice(z, y):
    p, t = z.softmax(1), one_hot(y)
    return 1 - (2 * (p * t).sum(0) / (p.sum(0) + t.sum(0) + 1e-6)).mean()


def jaccard(z, y):
    p, t = z.sigmoid(), one_hot(y)
    return -torch.log((p * t).sum() / (p + t - p * t).sum())


def normalised(z, y):
    positives = (y < 2).sum() + 1
    return (F.cross_entropy(z, y, reduction="none") * (y + 1)).sum() / positives


def by_hand(z, y):
    return (F.cross_entropy(z, y, reduction="none") * torch.linspace(1, 2, len(y))).mean()


def by_scatter(z, y):
    t = torch.zeros_like(z).scatter_(1, y[:, None], 1)
    return -(t * z.log_softmax(1)).sum(1).mean()


def by_index_assignment(z, y):
    t = torch.full_like(z, 0.1 / C)
    t[torch.arange(len(y)), y] += 0.9
    return ((t - z.softmax(1)) ** 2).sum(1).prod()


def smoothed_without_grad(z, y):
    with torch.no_grad():
        t = torch.zeros_like(z)
        t.fill_(0.1 / (C - 1))
        t.scatter_(1, y.data.unsqueeze(1), 0.9)
    return -(t * z.log_softmax(1)).sum(1).mean()


def margin_in_place(z, y):
    z = z * 1.0
    z[torch.arange(len(y)), y] -= 0.35
    return F.cross_entropy(3 * z, y)


def masked(z, y):
    keep = y != 1
    return F.cross_entropy(z[keep], y[keep]) / keep.sum()


def a_sample_at_a_time(z, y):
    return sum(
        F.cross_entropy(row[None], label[None]) ** 2 for row, label in zip(z, y, strict=True)
    )


def gradient_penalty(z, y):
    (slope,) = torch.autograd.grad(F.cross_entropy(z, y), z, create_graph=True)
    return F.cross_entropy(z, y) + slope.square().sum()


def supervised_contrastive(z, y):
    same = (y[:, None] == y[None, :]).to(z) - torch.eye(len(y))
    log_p = (z @ z.T / 10).log_softmax(1)
    return -((same * log_p).sum(1) / same.sum(1).clamp(min=1)).mean()


def in_a_dict(z, y):
    losses = {"a": F.cross_entropy(z, y), "b": F.multi_margin_loss(z, y)}
    return torch.stack(list(losses.values())).square().sum()


class _SquaredError(torch.autograd.Function):
    @staticmethod
    def forward(ctx, z, y):
        ctx.save_for_backward(z, y)
        return (z - one_hot(y)).pow(4).sum(1)

    @staticmethod
    def backward(ctx, grad):
        z, y = ctx.saved_tensors
        return grad[:, None] * 4 * (z - one_hot(y)).pow(3), None


def custom_function(z, y):
    return 2 * _SquaredError.apply(z, y).mean() + F.cross_entropy(z, y)


def scaled_in_place(z, y):
    loss = F.cross_entropy(z, y)
    alone, halved = F.mse_loss(z[:, 0], y.to(z)), loss / 2
    loss *= 3
    terms = torch.stack([loss, alone])
    terms[0].mul_(0.1)
    return terms.sum() + halved.exp()


def a_sample_scaled_in_place(z, y):
    each = F.cross_entropy(z, y, reduction="none")
    first, mean = each[0], each.mean()
    each.mul_(2)
    return first + each.square().mean() + mean


def custom_function_written_into(z, y):
    loss = _SquaredError.apply(z, y).mean()
    loss *= 2
    loss += F.cross_entropy(z, y)
    terms = torch.zeros(2, dtype=z.dtype)
    terms[0] = _SquaredError.apply(z, y).mean()
    terms[1] = loss
    total = F.cross_entropy(z, y)
    total += terms.sum()
    return total


def scaled_many_times(z, y):
    loss = F.cross_entropy(z, y)
    for _ in range(1500):
        loss = loss * 0.999
    return loss + z.mean()


def by_sparse_counts(z, y):
    return torch.sparse.mm(one_hot(y).t().to_sparse(), z).square().mean()


class WithBuffer(nn.Module):
    """Weights by inverse class frequency, counted as it goes along."""

    def __init__(self):
        super().__init__()
        self.register_buffer("counts", torch.ones(C))
        self.register_buffer("weight", torch.linspace(1, 2, C))
        self.double()

    def forward(self, z, y):
        self.counts += torch.bincount(y, minlength=C)
        self.counts[y] += 1
        return F.cross_entropy(z, y, weight=self.weight)


LOSSES = {
    "cross_entropy": F.cross_entropy,
    "weighted": lambda z, y: F.cross_entropy(z, y, weight=torch.linspace(1, 3, C)),
    "label_smoothing": lambda z, y: F.cross_entropy(z, y, label_smoothing=0.1),
    "ignore_index": ignoring,
    "nll": lambda z, y: F.nll_loss(F.log_softmax(z, 1), y),
    "bce_one_hot": lambda z, y: F.binary_cross_entropy_with_logits(z, one_hot(y)),
    "bce_multilabel": multilabel,
    "mse": lambda z, y: F.mse_loss(z[:, 0], y.to(z)),
    "huber": lambda z, y: F.huber_loss(z[:, 0], y.to(z)),
    "kl": lambda z, y: F.kl_div(z.log_softmax(1), one_hot(y) * 0.9 + 0.02, reduction="batchmean"),
    "focal_by_gather": focal_by_gather,
    "sigmoid_focal": lambda z, y: torchvision.ops.sigmoid_focal_loss(z, one_hot(y)).mean(),
    "soft_dice": soft_dice,
    "jaccard": jaccard,
    "normalised": normalised,
    "by_hand": by_hand,
    "reshaped": lambda z, y: F.cross_entropy(z.view(-1, C), y.view(-1, 1).reshape(-1)),
    "cast": lambda z, y: F.cross_entropy(z, y.int().long()),
    "indexed": lambda z, y: F.cross_entropy(z[:3], y[:3]) + F.cross_entropy(z[3:], y[3:]),
    "by_scatter": by_scatter,
    "by_index_assignment": by_index_assignment,
    "smoothed_without_grad": smoothed_without_grad,
    "margin_in_place": margin_in_place,
    "masked": masked,
    "a_sample_at_a_time": a_sample_at_a_time,
    "gradient_penalty": gradient_penalty,
    "supervised_contrastive": supervised_contrastive,
    "in_a_dict": in_a_dict,
    "custom_function": custom_function,
    "scaled_in_place": scaled_in_place,
    "a_sample_scaled_in_place": a_sample_scaled_in_place,
    "custom_function_written_into": custom_function_written_into,
    "scaled_many_times": scaled_many_times,
    "by_sparse_counts": by_sparse_counts,
    "with_buffer": WithBuffer(),
}
