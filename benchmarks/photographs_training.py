"""Compare trainings of the classifier on photographs: learning rates, optimizers, the trunk, and ways to forget less.

Each variant trains from the same pre-trained weights for the same number of steps, on trials of
``photographs_choice.py``. The figures are the accuracy on new images of the known classes, and AUROC / FPR95 of
left-out classes, as the mean of three scorers on the classifier's features::

    python benchmarks/photographs_training.py --only scenes-0 cifar-0 flowers-0 --data DATA \
        --weights tf_efficientnet_lite0.safetensors --json training.json

``--report FILES`` prints the table. The options are those of ``photographs.py``.
"""

import copy
import json

import numpy as np
import pandas as pd
import torch
from photographs import make_backbone, parse
from photographs_choice import TRIALS, load
from real_images_tables import simple_table
from sklearn.linear_model import LogisticRegression
from torch.nn.functional import cosine_similarity

from skdfb import Trainer
from skdfb.metrics import auroc_score, fpr_at_tpr
from skdfb.networks import DenseClassifier
from skdfb.scorers import KNN, RelativeMahalanobis, Representation, ViM

SCORERS = (ViM(), KNN(), RelativeMahalanobis(shrinkage="auto", normalize=True))


class EachStep:
    """An augmentation that leaves the images alone, and does something to the network before each step."""

    def start(self, network, data):
        """Take the network and the training images before the training."""
        self.network = network
        self.weights = [weight for weight in network.parameters() if weight.requires_grad]
        self.first = [weight.detach().clone() for weight in self.weights]

    def augment(self, batch, generator):
        """Return the batch as it is."""
        with torch.no_grad():
            self.step(batch)
        return batch

    def step(self, batch):
        """Change the network before a step."""

    def end(self):
        """Change the network after its training."""


class PullToStart(EachStep):
    """L2-SP: weight decay towards the pre-trained weights instead of 0 (Li et al., ICML 2018); not of the head."""

    def __init__(self, strength):
        self.strength = strength

    def step(self, batch):
        """Move each weight towards its first value."""
        head = {id(weight) for weight in self.network.head.parameters()}
        for weight, first in zip(self.weights, self.first, strict=True):
            if id(weight) not in head:
                weight.lerp_(first, self.strength)


class Average(EachStep):
    """The exponential moving average of weights and batch statistics."""

    def __init__(self, decay):
        self.decay = decay

    def start(self, network, data):
        """Begin with the pre-trained weights."""
        super().start(network, data)
        self.state = {name: value.clone() for name, value in network.state_dict().items() if value.is_floating_point()}

    def step(self, batch):
        """Update the average."""
        now = self.network.state_dict()
        for name, mean in self.state.items():
            mean.lerp_(now[name], 1 - self.decay)

    def end(self):
        """Take the average as the network."""
        self.step(None)
        self.network.load_state_dict(self.state, strict=False)


class RatesByLayer(EachStep):
    """Lower learning rates for earlier weights: a factor for each tenth of the weight tensors, from the end."""

    def __init__(self, factor):
        self.factor = factor

    def start(self, network, data):
        """Scale the gradients, which is the same for SGD."""
        super().start(network, data)
        for index, weight in enumerate(self.weights):
            scale = self.factor ** (10 * (len(self.weights) - 1 - index) / len(self.weights))
            weight.register_hook(lambda gradient, scale=scale: gradient * scale)


class Distillation(EachStep):
    """Distillation of features: they stay in the direction of the pre-trained network's (Jung et al., 2016).

    The loss is the strength times one minus the cosine similarity of both networks' features.
    """

    def __init__(self, strength):
        self.strength = strength

    def start(self, network, data):
        """Keep a copy of the network; its gradients are added to those of the classification loss."""
        super().start(network, data)
        self.teacher = copy.deepcopy(network).eval()
        self.gradients = {}
        for index, weight in enumerate(self.weights):
            weight.register_hook(lambda gradient, index=index: gradient + self.gradients.get(index, 0))

    @torch.enable_grad()
    def step(self, batch):
        """Compute the gradients of a batch. The batch statistics are updated by the training step alone."""
        self.gradients = {}
        with torch.no_grad():
            target = self.teacher.features(batch.images)
        modes = {module: module.training for module in self.network.modules()}
        self.network.eval()
        loss = self.strength * (1 - cosine_similarity(self.network.features(batch.images), target).mean())
        gradients = torch.autograd.grad(loss, self.weights, allow_unused=True)
        for module, mode in modes.items():
            module.training = mode
        self.gradients = {index: value for index, value in enumerate(gradients) if value is not None}

    def end(self):
        """Free the copy, and leave no gradient behind."""
        self.teacher, self.gradients = None, {}


class ProbeFirst(EachStep):
    """LP-FT: the head is fitted on pre-trained features before the training (Kumar et al., ICLR 2022)."""

    def start(self, network, data):
        """Set the head to logistic regression."""
        super().start(network, data)
        known = represent(network.eval(), data.X)
        # Features of unit variance on average: else the regression would not converge.
        scale = float(known.features.std())
        probe = LogisticRegression(C=0.01, max_iter=1000).fit(known.features.numpy() / scale, data.y)
        with torch.no_grad():
            network.head.weight.copy_(torch.from_numpy(probe.coef_ / scale).view_as(network.head.weight))
            network.head.bias.copy_(torch.from_numpy(probe.intercept_))


VARIANTS = {
    "default": {},
    "learning rate 0.01": {"learning_rate": 0.01},
    "learning rate 0.003, steps": {"learning_rate": 0.003, "schedule": "step"},
    "AdamW 0.001": {"optimizer": "adamw", "learning_rate": 0.001},
    "mixup 0.1": {"mixup": 0.1},
    "no trunk": {"frozen_stages": 0},
    "rates by layer, 0.7": {"augmentation": RatesByLayer(0.7)},
    "rates by layer, no trunk, 0.7": {"frozen_stages": 0, "augmentation": RatesByLayer(0.7)},
    "L2-SP 0.003": {"augmentation": PullToStart(0.003)},
    "L2-SP 0.03": {"augmentation": PullToStart(0.03)},
    "moving average 0.9": {"augmentation": Average(0.9)},
    "distillation 1": {"augmentation": Distillation(1)},
    "distillation 10": {"augmentation": Distillation(10)},
    "distillation 10, no trunk": {"frozen_stages": 0, "augmentation": Distillation(10)},
    "probe first": {"augmentation": ProbeFirst()},
    "probe first, learning rate 0.003": {"learning_rate": 0.003, "augmentation": ProbeFirst()},
}


def train(data, seed, changes, arguments):
    """Return the classifier of a variant."""
    network = DenseClassifier(make_backbone(arguments), len(np.unique(data.y)), image_size=arguments.image_size)
    trainer = Trainer(max_steps=arguments.steps, batch_size=arguments.batch_size, **changes)
    trainer.freeze_trunk(network)
    every_step = changes.get("augmentation", EachStep())
    every_step.start(network, data)
    labels = np.unique(data.y, return_inverse=True)[1]
    trainer.train(network, data.X, labels, device=torch.device("cpu"), random_state=seed)
    every_step.end()
    return network.eval()


@torch.no_grad()
def represent(network, X):
    """Return features and logits."""
    batches = torch.from_numpy(X).movedim(-1, 1).split(128)
    features = torch.cat([network.features(network.preprocessor(batch)) for batch in batches])
    weight, bias = network.head.weight.detach(), network.head.bias.detach()
    return Representation(features=features, logits=features @ weight.T + bias, weight=weight, bias=bias)


def run(trial, arguments):
    """Yield the row of each variant."""
    data = load(trial, arguments.data)
    classes, labels = np.unique(data.y, return_inverse=True)
    for name, changes in VARIANTS.items():
        network = train(data, int(trial[-1]), changes, arguments)
        known, test, unknown = (represent(network, X) for X in (data.X, data.X_test, data.ood["unknown classes"]))
        scores = [
            [scorer.score_samples(part) for part in (test, unknown)]
            for scorer in (scorer.fit(known, labels) for scorer in SCORERS)
        ]
        yield {
            "trial": trial,
            "variant": name,
            "accuracy": 100 * float(np.mean(classes[test.logits.numpy().argmax(1)] == data.y_test)),
            "auroc": 100 * float(np.mean([auroc_score(*pair) for pair in scores])),
            "fpr95": 100 * float(np.mean([fpr_at_tpr(*pair) for pair in scores])),
        }


def report(rows):
    """Print the table."""
    table = pd.DataFrame(rows)
    means = table.groupby(["variant", "trial"], sort=False)[["accuracy", "auroc", "fpr95"]].mean()
    over_trials = means.groupby("variant", sort=False).mean().assign(trial="mean").set_index("trial", append=True)
    means = pd.concat([means, over_trials])
    text = [f"{row.accuracy:.1f}: {row.auroc:.1f} / {row.fpr95:.1f}" for row in means.itertuples()]
    frame = pd.Series(text, means.index).unstack("trial").reindex(table["variant"].unique()).fillna("")
    print("Accuracy: AUROC / FPR95 of left-out classes [%]\n")
    print(simple_table(frame[[*table["trial"].unique(), "mean"]].reset_index()))


def main(argv=None):
    """Run the trials, write the JSON file and print the table."""
    arguments = parse(argv, __doc__, TRIALS)
    rows = []
    if arguments.report is not None:
        rows = [row for path in arguments.report for row in json.loads(path.read_text())["rows"]]
    else:
        for row in (row for trial in arguments.only for row in run(trial, arguments)):
            rows.append(row)
            print(row, flush=True)
            if arguments.json is not None:
                settings = {key: str(value) for key, value in vars(arguments).items()}
                arguments.json.write_text(json.dumps({"settings": settings, "rows": rows}, indent=0))
    report(rows)


if __name__ == "__main__":
    main()
