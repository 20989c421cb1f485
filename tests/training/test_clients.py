import pytest
import torch
import torch.nn.functional as F
from clients import Wrapped, assert_naive
from fitting import fit
from torch import nn
from torchmetrics import MeanSquaredError

from lightning_mmix import ManifoldMixup
from lightning_mmix.core.trees import mapped

pytestmark = [
    pytest.mark.usefixtures("float64"),
    pytest.mark.filterwarnings("ignore:You called .self.log"),  # there is no logger
]
B = 6
CLASSES = torch.tensor([0, 1, 2, 0, 1, 2])


def labels(batch):
    return [batch["labels"]]


def second(batch):
    return [batch[1]]


# Hugging Face models, with the loss inside


def bert(kind, **kwargs):
    hf = pytest.importorskip("transformers")
    sizes = {"hidden_size": 12, "num_hidden_layers": 4, "num_attention_heads": 2}
    more = {"vocab_size": 31, "intermediate_size": 20, "max_position_embeddings": 16}
    return Wrapped(getattr(hf, f"BertFor{kind}")(hf.BertConfig(**sizes, **more, **kwargs)))


def sentences(targets, length=7):
    ids = torch.arange(B * length).view(B, length) * 5 % 30 + 1
    attended = (torch.arange(length) < torch.arange(B)[:, None] + 2).long()
    return {"input_ids": ids, "attention_mask": attended, "labels": targets}


of_layers = pytest.mark.parametrize("layers", ["auto", ["model.bert.encoder.layer.1"]])


@of_layers
def test_a_hugging_face_classifier(layers):
    pytest.importorskip("transformers")
    module = bert("SequenceClassification", num_labels=3)
    assert_naive(module, sentences(CLASSES), labels, layers=layers)


@of_layers
@pytest.mark.parametrize("reentrant", [True, False])
@pytest.mark.filterwarnings("ignore:.*gradient_checkpointing.* is deprecated")  # by a new name
def test_gradient_checkpointing_mixes_again_what_it_computes_again(layers, reentrant):
    pytest.importorskip("transformers")
    module = bert("SequenceClassification", num_labels=3)
    module.model.gradient_checkpointing_enable({"use_reentrant": reentrant})
    assert module.model.is_gradient_checkpointing
    assert_naive(module, sentences(CLASSES), labels, layers=layers)


@pytest.mark.parametrize(
    ("problem_type", "targets"),
    [
        ("multi_label_classification", F.one_hot(CLASSES)),
        ("regression", torch.arange(B).view(B, 1)),
        ("regression", torch.arange(2 * B).view(B, 2)),
    ],
)
def test_multi_label_and_regression_problems(problem_type, targets):
    pytest.importorskip("transformers")
    size = {"problem_type": problem_type, "num_labels": targets.shape[1]}
    assert_naive(bert("SequenceClassification", **size), sentences(targets.double()), labels)


@of_layers
def test_a_token_classifier_whose_labels_are_partly_ignored(layers):
    pytest.importorskip("transformers")
    batch = sentences(torch.arange(B * 7).view(B, 7) % 3)
    batch["labels"][batch["attention_mask"] == 0] = -100
    batch["labels"][1] = -100
    assert_naive(bert("TokenClassification", num_labels=3), batch, labels, layers=layers)


def gpt():
    hf = pytest.importorskip("transformers")
    sizes = {"vocab_size": 31, "n_embd": 12, "n_layer": 4, "n_head": 2, "n_positions": 16}
    tokens = {"bos_token_id": 0, "eos_token_id": 0, "loss_type": "ForCausalLM"}
    return Wrapped(hf.GPT2LMHeadModel(hf.GPT2Config(**sizes, **tokens)))


def test_a_language_model_whose_labels_are_its_input_is_refused():
    pytest.importorskip("transformers")
    batch = sentences(None)
    batch["labels"] = batch["input_ids"]
    with pytest.raises(ValueError, match="the input as well, give the batch a"):
        fit(gpt(), ManifoldMixup(layers=["model.transformer.h.1"]), data=[batch])


@pytest.mark.parametrize("layers", ["auto", ["model.transformer.h.1"]])
def test_a_language_model_whose_labels_are_a_clone_of_its_input(layers):
    pytest.importorskip("transformers")
    batch = sentences(None)
    batch["labels"] = batch["input_ids"].clone()
    assert_naive(gpt(), batch, labels, layers=layers, atol=1e-6)  # its loss is in float32


@pytest.mark.parametrize(
    "ran_before", [False, True]
)  # the model's own hooks come with its first run
def test_what_a_model_records_of_its_layers_is_mixed_too(ran_before):
    hf = pytest.importorskip("transformers", minversion="5.23")  # its head reads what was recorded
    sizes = {"hidden_sizes": [4, 6, 8, 10], "depths": [1] * 4, "num_attention_heads": [1, 2, 2, 2]}
    config = hf.SegformerConfig(num_labels=3, decoder_hidden_size=8, **sizes)
    module = Wrapped(hf.SegformerForSemanticSegmentation(config))
    masks = torch.arange(B * 32 * 32).view(B, 32, 32) % 7 % 3
    masks[:, :3] = config.semantic_loss_ignore_index
    batch = {"pixel_values": torch.randn(B, 3, 32, 32), "labels": masks}
    if ran_before:
        module(**batch)
    assert_naive(module, batch, labels, layers=["model.segformer.stages.0"])


# Published LightningModules and losses


def sgd(model):
    return torch.optim.SGD(model.parameters(), lr=0.1)


def pixels(channels):
    middle = (nn.ReLU(), nn.Dropout(0.1))
    return nn.Sequential(nn.Conv2d(3, 5, 3, padding=1), *middle, nn.Conv2d(5, channels, 1))


@pytest.mark.parametrize(
    ("name", "kwargs"), [("test_resnet", {}), ("test_vit", {"img_size": 32, "drop_path_rate": 0.1})]
)
@pytest.mark.parametrize(
    ("loss", "options"),
    [("FocalLoss", {"gamma": 2.0}), ("DECLoss", {"reg_weight": 0.01, "annealing_step": 10})],
)
def test_torch_uncertaintys_classifier_of_timms_networks(name, kwargs, loss, options):
    routines = pytest.importorskip("torch_uncertainty.routines")
    criterion = getattr(pytest.importorskip("torch_uncertainty.losses"), loss)(**options)
    model = pytest.importorskip("timm").create_model(name, num_classes=3, drop_rate=0.1, **kwargs)
    module = routines.ClassificationRoutine(model, 3, criterion, optim_recipe=sgd)
    assert_naive(module, [torch.randn(B, 3, 32, 32), CLASSES], second)


def test_torch_uncertaintys_segmentation_with_void_pixels():
    routines = pytest.importorskip("torch_uncertainty.routines")
    masks = torch.arange(B * 8 * 8).view(B, 8, 8) % 5 % 3
    masks[torch.arange(B), torch.arange(B)] = 255
    criterion = nn.CrossEntropyLoss(weight=torch.linspace(1, 2, 3))
    module = routines.SegmentationRoutine(pixels(3), 3, criterion, optim_recipe=sgd)
    assert_naive(module, [torch.randn(B, 3, 8, 8), masks], second)


def test_torch_uncertaintys_pixel_regression_with_missing_values():
    routines = pytest.importorskip("torch_uncertainty.routines")
    depth = torch.randn(B, 8, 8)
    depth[torch.arange(B), torch.arange(B)] = torch.nan
    module = routines.PixelRegressionRoutine(pixels(1), 1, nn.L1Loss(), optim_recipe=sgd)
    assert_naive(module, [torch.randn(B, 3, 8, 8), depth], second)


@pytest.mark.parametrize("family", ["normal", "student"])
def test_torch_uncertaintys_regression_of_a_distribution(family):
    routines = pytest.importorskip("torch_uncertainty.routines")
    criterion = pytest.importorskip("torch_uncertainty.losses").DistributionNLLLoss()
    mlp = pytest.importorskip("torch_uncertainty.models.mlp").mlp
    model = mlp(4, num_outputs=2, hidden_dims=[7, 6], dropout_rate=0.1, dist_family=family)
    options = {"dist_family": family, "optim_recipe": sgd}
    module = routines.RegressionRoutine(model, 2, criterion, **options)
    assert_naive(module, [torch.randn(B, 4), torch.randn(B, 2)], second)


def test_a_batch_that_the_module_repeats_is_mixed_at_its_input():
    routines = pytest.importorskip("torch_uncertainty.routines")
    twice = pytest.importorskip("torch_uncertainty.transforms").MIMOBatchFormat(2)
    model = nn.Sequential(*pixels(3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    options = {"is_ensemble": True, "format_batch_fn": twice, "optim_recipe": sgd}
    module = routines.ClassificationRoutine(model, 3, nn.CrossEntropyLoss(), **options)
    batch = (torch.randn(B, 3, 8, 8), CLASSES)
    message = r"'model.0' puts out 12 rows for 6 samples, 2 for each .* mix layers="
    with pytest.raises(ValueError, match=message):
        fit(module, ManifoldMixup(layers=["model.0"]), data=[batch])
    assert_naive(module.double(), batch, second, steps=1, layers=["input"])


def forecaster():
    pf, pd = pytest.importorskip("pytorch_forecasting"), pytest.importorskip("pandas")
    times, series = torch.arange(11).repeat(B), torch.arange(B).repeat_interleave(11)
    table = {"time": times.numpy(), "value": torch.randn(11 * B).numpy(), "series": series.numpy()}
    names = {"time_idx": "time", "target": "value", "time_varying_unknown_reals": ["value"]}
    ahead = {"max_encoder_length": 7, "max_prediction_length": 3, "group_ids": ["series"]}
    windows = pf.TimeSeriesDataSet(pd.DataFrame(table).astype({"series": str}), **names, **ahead)
    sizes = {"hidden_size": 8, "attention_head_size": 2, "hidden_continuous_size": 4}
    module = pf.TemporalFusionTransformer.from_dataset(windows, **sizes, loss=pf.QuantileLoss())
    batch = next(iter(windows.to_dataloader(batch_size=B)))
    return module.double(), mapped(batch, lambda t: t.double() if t.is_floating_point() else t)


@pytest.mark.filterwarnings("ignore:Attribute '.*' is an instance of")  # of what it saves
@pytest.mark.filterwarnings("ignore:ReduceLROnPlateau conditioned")  # nothing is validated
@pytest.mark.parametrize("shared", [False, True])  # True as its own data loader has it
def test_pytorch_forecastings_transformer_and_quantile_loss(shared):
    pytest.importorskip("pytorch_forecasting")
    module, batch = forecaster()
    if shared:
        batch[0]["decoder_target"] = batch[1][0]
    # the output is scaled by what each sample brings along, so the layer is no cut
    where = {"layers": ["pre_output_gate_norm"], "target": "1.0", "verify": False}
    assert_naive(module, batch, lambda batch: [batch[1][0]], steps=1, **where)


@pytest.mark.filterwarnings("ignore:Attribute '.*' is an instance of")  # of what it saves
def test_a_forecaster_that_scales_its_output_sample_by_sample_has_no_cut():
    pytest.importorskip("pytorch_forecasting")
    module, batch = forecaster()
    message = 'layers="auto" found no layer through which all of the signal passes'
    with pytest.raises(ValueError, match=message):
        fit(module, ManifoldMixup(target="1.0"), data=[batch])


@pytest.mark.parametrize("layers", ["auto", ["agg"]])
@pytest.mark.parametrize(
    ("head", "missing"),
    [("RegressionFFN", True), ("MveFFN", False), ("BinaryClassificationFFN", True)],
)
def test_chemprops_graph_network_whose_loss_is_a_metric(head, missing, layers):
    chemprop = pytest.importorskip("chemprop")
    targets = (torch.arange(2 * B).view(B, 2) % 5 % 2).double()
    targets[1, 0] = torch.nan if missing else 1.0
    molecules = zip(["CCO", "CCN", "C=O", "CC(=O)O", "CCCC", "CNC"], targets.numpy(), strict=True)
    points = [chemprop.data.MoleculeDatapoint.from_smi(*molecule) for molecule in molecules]
    loader = chemprop.data.build_dataloader(chemprop.data.MoleculeDataset(points), batch_size=B)
    batch = mapped(next(iter(loader)), lambda t: t.double() if t.is_floating_point() else t)
    parts = chemprop.nn.BondMessagePassing(d_h=8, dropout=0.1), chemprop.nn.MeanAggregation()
    network = getattr(chemprop.nn, head)(n_tasks=2, input_dim=8, hidden_dim=7)
    module = chemprop.models.MPNN(*parts, network, batch_norm=True).double()
    assert_naive(module, batch, lambda batch: [batch.Y], steps=1, layers=layers, target="Y")


def test_a_metric_of_torchmetrics_as_the_loss():
    class Regression(Wrapped):
        def __init__(self):
            super().__init__(nn.Sequential(nn.Linear(4, 7), nn.Tanh(), nn.Linear(7, 1)))
            self.error = MeanSquaredError()

        def training_step(self, batch, batch_idx):
            return self.error(self.model(batch[0]).squeeze(1), batch[1])

    batch = [torch.randn(B, 4), torch.randn(B)]
    assert_naive(Regression(), batch, second, steps=1, layers=["model.0"], verify=False)


@pytest.mark.parametrize("loss", ["DiceLoss", "FocalLoss", "JaccardLoss", "TverskyLoss"])
def test_segmentation_models_pytorchs_u_net_and_losses(loss):
    smp = pytest.importorskip("segmentation_models_pytorch")

    class UNet(Wrapped):
        def training_step(self, batch, batch_idx):
            return getattr(smp.losses, loss)("multiclass")(self.model(batch[0]), batch[1])

    model = smp.Unet("resnet18", encoder_weights=None, classes=3, decoder_channels=(9, 8, 7, 6, 5))
    masks = torch.arange(3 * 32 * 32).view(3, 32, 32) % 5 % 3
    assert_naive(UNet(model), [torch.randn(3, 3, 32, 32), masks], second, steps=2)


@pytest.mark.parametrize("layers", ["auto", ["hidden"]])
@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.filterwarnings("ignore:.*torch.jit.script:FutureWarning")  # at its import
def test_graphs_of_pytorch_geometric(whole, layers):
    pyg = pytest.importorskip("torch_geometric")

    class OfGraphs(Wrapped):
        def __init__(self):
            super().__init__(pyg.nn.GCNConv(4, 8))
            self.hidden, self.head = nn.Linear(8, 7), nn.Linear(7, 3)

        def forward(self, x, edge_index=None, batch=None):
            parts = (x.x, x.edge_index, x.batch) if whole else (x, edge_index, batch)
            nodes = self.model(parts[0], parts[1]).relu()
            return self.head(self.hidden(pyg.nn.global_mean_pool(nodes, parts[2])).tanh())

        def training_step(self, batch, batch_idx):
            parts = [batch] if whole else [batch.x, batch.edge_index, batch.batch]
            return F.cross_entropy(self(*parts), batch.y)

    def ring(size, label):
        edges = torch.stack([torch.arange(size), torch.arange(size).roll(1)])
        return pyg.data.Data(x=torch.randn(size, 4), edge_index=edges, y=label)

    rings = [ring(3 + size % 4, label) for size, label in enumerate(CLASSES.tolist())]
    batch = pyg.data.Batch.from_data_list(rings)
    assert_naive(OfGraphs(), batch, lambda batch: [batch.y], steps=1, layers=layers)
