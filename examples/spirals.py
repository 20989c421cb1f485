"""Draw figure 1 of Verma et al. (2019): what Manifold Mixup makes of two spirals.

    python examples/spirals.py              # draws two_spirals.png, in half a minute
    python examples/spirals.py --seeds 10   # and prints what ten seeds have in common

A fully connected network of nine layers, whose fifth puts out two numbers, learns to tell two
interleaved spirals apart: without mixing, with input mixup, and with Manifold Mixup at that
bottleneck. All three start from the same weights and see the same batches. The figure shows their
confidence over the input square, and below it the hidden states of the training points.

It prints the shares of the training points and of the square with a confidence below 0.9, and the
standard deviations of a class's states along its principal directions, mean over both classes.

Seeds 0 to 9, mean ± standard deviation, with torch 2.14 on an AMD EPYC: as it is (AVX-512), and
with kernels of torch and MKL without AVX, which round differently (environment variables
ATEN_CPU_CAPABILITY=default and MKL_CBWR=COMPATIBLE):

                              p < 0.9, % of                            spread
                            square       points        test NLL       largest         rest
    no mixing       as is   3.6 ± 0.8    0.2 ± 0.2   0.001 ± 0.001   1.41 ± 0.51   0.26 ± 0.07
                   no AVX   3.7 ± 0.8    0.1 ± 0.2   0.000 ± 0.000   1.19 ± 0.32   0.23 ± 0.06
    input mixup     as is  26.8 ± 5.4   24.4 ± 9.8   0.086 ± 0.021   1.32 ± 0.31   0.44 ± 0.16
                   no AVX  26.8 ± 5.5   24.7 ± 9.8   0.086 ± 0.021   1.29 ± 0.14   0.47 ± 0.14
    manifold mixup  as is  29.5 ± 8.5    0.0 ± 0.0   0.003 ± 0.002   0.74 ± 0.51   0.03 ± 0.01
                   no AVX  28.9 ± 9.8    0.1 ± 0.2   0.003 ± 0.003   0.81 ± 0.64   0.02 ± 0.01

With every seed, both ways: either kind of mixing leaves more of the square unsure (10 to 41 %,
without 2 to 5 %), Manifold Mixup leaves the least spread in the second direction (0.01 to 0.04,
without mixing 0.13 to 0.38, with input mixup 0.16 to 0.67), and input mixup alone is unsure of the
points as well (4 to 42 % of them, the others of 2 in 300 at most). Which kind leaves more of the
square unsure can't be said: Manifold Mixup does with 6 seeds as is, with 5 without AVX, and
rounding alone moves its share by up to 8 points. It is a picture of what mixing does, no test of
whether it helps. Seed 0 is drawn, whose three shares of the square and six spreads lie nearest to
the means, by the sum of squares in standard deviations.
"""

import argparse
import logging
import warnings
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from statistics import mean, stdev

import numpy as np
import torch
import torch.nn.functional as F
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from paper.networks import Bottleneck
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader, RandomSampler, TensorDataset

from lightning_mmix import ManifoldMixup
from lightning_mmix.evaluation import probabilities_on_grid, share_below
from lightning_mmix.metrics import class_moments, singular_values
from lightning_mmix.plots import Boundary, decision_boundaries

ARMS = {
    "no mixing": [],
    "input mixup": ["input"],
    "manifold mixup": ["bottleneck"],
}
ALPHA = 0.5
TURNS = 1.0
NOISE = 0.05
POINTS = 150  # of a class, to train on
TEST_POINTS = 2000  # of a class
WIDTH = 64
BATCH = 100
SQUARE = (-1.3, 1.3, -1.3, 1.3)
HEADS = (  # and digits
    ("train\nacc. %", 1),
    ("test\nacc. %", 1),
    ("\nNLL", 3),
    ("p<0.9 %\npoints", 1),
    ("\nsquare", 1),
    ("spread\nlargest", 2),
    ("\nrest", 2),
)


@dataclass(frozen=True)
class Findings:
    """What is measured of an arm: a row of the table.

    Attributes:
        train_accuracy: In percent.
        test_accuracy: Of new points of the same distribution.
        test_nll: Of those, in nats.
        unsure_points: Training points whose larger p is below 0.9, in percent.
        unsure: The share of the square in which it is, in percent.
        largest: The standard deviation of a class's hidden states along its first direction.
        rest: That along the other one.
    """

    train_accuracy: float
    test_accuracy: float
    test_nll: float
    unsure_points: float
    unsure: float
    largest: float
    rest: float


class Net(Bottleneck, LightningModule):
    """Nine linear layers, the fifth of which puts out two numbers; it knows nothing of mixing.

    Args:
        steps: The length of the training, over which the learning rate falls to zero.
    """

    def __init__(self, steps: int) -> None:
        super().__init__(2, WIDTH, before=4, units=2, after=3, num_classes=2)
        self.steps = steps

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:  # noqa: ARG002
        """The cross-entropy of a batch."""
        points, labels = batch
        return F.cross_entropy(self(points), labels)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Adam, whose learning rate follows a cosine to zero."""
        optimizer = torch.optim.Adam(self.parameters(), lr=3e-3, fused=True)
        scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, self.steps)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "interval": "step"},
        }


def spirals(count: int, rng: np.random.Generator) -> TensorDataset:
    """Noisy points of two interleaved spirals, ``count`` of each, and their labels."""
    labels = np.arange(2 * count) % 2
    radius = np.sqrt(rng.uniform(0.25**2, 1, 2 * count))  # as dense outside as inside
    angle = 2 * np.pi * TURNS * radius + np.pi * labels
    points = radius * np.stack([np.cos(angle), np.sin(angle)])
    points += NOISE * rng.normal(size=points.shape)
    return TensorDataset(torch.tensor(points.T, dtype=torch.float32), torch.tensor(labels))


def trained(data: TensorDataset, layers: list[str], steps: int, seed: int) -> Net:
    """A network that was trained with mixing at these layers, or at none."""
    torch.manual_seed(seed)
    net = Net(steps)
    batches = BatchSampler(RandomSampler(data, num_samples=steps * BATCH), BATCH, drop_last=True)
    trainer = Trainer(
        max_epochs=1,
        accelerator="cpu",
        callbacks=[ManifoldMixup(ALPHA, layers, stop=1.0, seed=seed)] if layers else [],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(net, DataLoader(data, sampler=batches, batch_size=None))
    return net.eval()


@torch.no_grad()
def seen(net: Net, train: TensorDataset, test: TensorDataset) -> tuple[Findings, Boundary]:
    """What a network makes of the training points, of new ones and of the square."""
    points, labels = train.tensors
    hidden = net.bottleneck(net.encoder(points))
    deviations = singular_values(class_moments(hidden, labels, 2)) / POINTS**0.5
    largest, rest = deviations.mean(0).tolist()
    probs = probabilities_on_grid(net, SQUARE)
    unsure = 100 * share_below(net(points).softmax(1), 0.9), 100 * share_below(probs, 0.9)
    train_accuracy, _ = _scores(net, train)
    found = Findings(train_accuracy, *_scores(net, test), *unsure, largest, rest)
    note = (
        f"confidence < 0.9 on {found.unsure:.0f} % of the square, "
        f"test accuracy {found.test_accuracy:.1f} %, NLL {found.test_nll:.3f}"
    )
    spread = f"spread of a class: {largest:.2f} and {rest:.2f}"
    return found, Boundary(probs, SQUARE, points, labels, hidden, note, spread)


def run(seed: int, steps: int) -> tuple[dict[str, Findings], dict[str, Boundary]]:
    """What is measured of each arm with a seed, and what is drawn of it."""
    rng = np.random.default_rng(seed)
    train, test = spirals(POINTS, rng), spirals(TEST_POINTS, rng)
    rows, panels = {}, {}
    for arm, layers in ARMS.items():
        rows[arm], panels[arm] = seen(trained(train, layers, steps, seed), train, test)
    return rows, panels


def table(title: str, runs: Sequence[dict[str, Findings]]) -> Table:
    """A row an arm: what was measured with one seed, or mean ± standard deviation over more."""
    shown = Table(title=title, box=SIMPLE_HEAD, show_edge=False, pad_edge=False)
    shown.add_column("", no_wrap=True)
    for head, _ in HEADS:
        shown.add_column(head, justify="right")
    for arm in ARMS:
        columns = zip(*(astuple(rows[arm]) for rows in runs), strict=True)
        cells = zip(columns, HEADS, strict=True)
        shown.add_row(arm, *(_cell(values, digits) for values, (_, digits) in cells))
    return shown


def main() -> None:
    """Train all arms with each seed, print the tables and draw the first seed's figure."""
    args = _arguments()
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", module="lightning")  # hints on workers and log intervals
    torch.set_num_threads(1)  # in so small a network, a second one costs more than it brings
    console = Console()
    runs = []
    for seed in range(args.seed, args.seed + args.seeds):
        rows, panels = run(seed, args.steps)
        runs.append(rows)
        console.print(table(f"Two spirals, seed {seed}", [rows]), "")
        if seed == args.seed:
            decision_boundaries(panels).savefig(args.out)
            console.print(f"drawn in {args.out}", "")
    if args.seeds > 1:
        console.print(table(f"Mean ± standard deviation over {args.seeds} seeds", runs))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Draw what Manifold Mixup makes of two spirals.")
    # not spirals.png, which a run in examples/ would overwrite
    parser.add_argument("--out", type=Path, default=Path("two_spirals.png"), help="the figure")
    parser.add_argument("--steps", type=int, default=2000, help="steps of each training")
    parser.add_argument("--seed", type=int, default=0, help="of points, weights and mixing")
    parser.add_argument("--seeds", type=int, default=1, help="how many, from --seed on")
    args = parser.parse_args()
    if args.seeds < 1:
        parser.error(f"expected --seeds of at least 1, but got {args.seeds}")
    return args


def _cell(values: Sequence[float], digits: int) -> str:
    middle = f"{mean(values):.{digits}f}"
    return middle if len(values) == 1 else f"{middle}\n± {stdev(values):.{digits}f}"


def _scores(net: Net, data: TensorDataset) -> tuple[float, float]:
    points, labels = data.tensors
    logits = net(points)
    accuracy = (logits.argmax(1) == labels).double().mean()
    return 100 * float(accuracy), float(F.cross_entropy(logits, labels))


if __name__ == "__main__":
    main()
