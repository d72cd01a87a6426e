"""Measure the time of every scorer, compared with pytorch-ood and with the bare linear algebra in the same run.

    pip install pytorch-ood==0.4.0            # the peer; without it its columns are empty
    python benchmarks/scorers.py              # n = 50,000, C = 2,048, K = 100: about 25 minutes on 2 cores
    python benchmarks/scorers.py --n 5000 --only ViM KNN
    python benchmarks/scorers.py --memory     # 1,000,000 x 2,048 float16 in a file: peak memory
    python benchmarks/scorers.py --memory --n 1281167 --classes 1000    # as many as ImageNet

The features are random, non-negative float32 numbers with class structure; the head has the class means as weights.
"fit / peer" is the time of this library divided by that of the peer. "fit / bare" divides it by the time of the matrix
products that the formula needs at least, written in NumPy and PyTorch for the same data. Below 1 is faster. The
measurements of a row take turns, and the shortest time of the rounds counts, which other work on the same computer
disturbs least.

The bare algebra of `fit` is in float64, in which the library keeps statistics; that of scoring is in float32, as the
features are.
"""

from __future__ import annotations

import argparse
import gc
import json
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from skdfb import scorers
from skdfb.scorers import Representation

ROWS = 4096
K_NEIGHBOURS = 50

Timed = Callable[[], Any]


class Data(NamedTuple):
    """Training and test representation, and the training classes."""

    train: Representation
    test: Representation
    y: Tensor

    @property
    def head(self) -> torch.nn.Linear:
        """The head as a layer, which the peer takes."""
        layer = torch.nn.Linear(self.train.n_features, self.train.n_classes)
        layer.load_state_dict({"weight": self.train.weight, "bias": self.train.bias})
        return layer.requires_grad_(False)


class Row(NamedTuple):
    """Shortest times in seconds; None where there is no counterpart."""

    scorer: str
    n_scored: int
    fit: float
    fit_peer: float | None
    fit_bare: float | None
    score: float
    score_peer: float | None
    score_bare: float | None


def make_data(n: int, n_test: int, C: int, K: int, seed: int = 0) -> Data:
    generator = torch.Generator().manual_seed(seed)
    means = torch.randn(K, C, generator=generator)
    weight = means / means.norm(dim=1, keepdim=True)

    def represent(count: int) -> tuple[Representation, Tensor]:
        labels = torch.randint(K, (count,), generator=generator)
        features = torch.empty(count, C)
        for start in range(0, count, ROWS):
            rows = slice(start, start + ROWS)
            noise = torch.randn(features[rows].shape, generator=generator)
            features[rows] = (0.5 * means[labels[rows]] + noise).relu()
        bias = torch.zeros(K)
        return Representation(features=features, logits=features @ weight.T, weight=weight, bias=bias), labels

    train, y = represent(n)
    return Data(train, represent(n_test)[0], y)


# --------------------------------------------------------- the bare algebra


def chunks(n: int) -> list[slice]:
    return [slice(start, start + ROWS) for start in range(0, n, ROWS)]


def double(features: Tensor) -> np.ndarray:
    return features.numpy().astype(np.float64)


def bare_covariance(data: Data, origin: Callable[[slice], Any]) -> np.ndarray:
    total = np.zeros((data.train.n_features,) * 2)
    for rows in chunks(len(data.train)):
        part = double(data.train.features[rows]) - origin(rows)
        total += part.T @ part
    return total


def bare_principal_fit(data: Data, D: int, *, with_norms: bool) -> None:
    origin = -np.linalg.pinv(double(data.train.weight)) @ double(data.train.bias)
    _, vectors = np.linalg.eigh(bare_covariance(data, lambda rows: origin))
    residual = np.ascontiguousarray(vectors[:, : len(vectors) - D])
    for rows in chunks(len(data.train)) if with_norms else ():
        np.linalg.norm((double(data.train.features[rows]) - origin) @ residual, axis=1)


def bare_class_fit(data: Data) -> None:
    """Class means, and the covariance about them."""
    y, K = data.y.numpy(), data.train.n_classes
    means = np.zeros((K, data.train.n_features))
    for rows in chunks(len(data.train)):
        means += np.eye(K)[y[rows]].T @ double(data.train.features[rows])
    means /= np.bincount(y, minlength=K)[:, None]
    np.linalg.eigh(bare_covariance(data, lambda rows: means[y[rows]]))


def bare_normalised(data: Data) -> None:
    torch.nn.functional.normalize(data.train.features, dim=1)


def bare_residual_score(data: Data, D: int) -> Timed:
    C = data.test.n_features
    residual, origin = torch.linalg.qr(torch.randn(C, C - D)).Q, torch.zeros(C)
    return lambda: torch.logsumexp(data.test.logits, 1) - ((data.test.features - origin) @ residual).norm(dim=1)


def bare_mahalanobis_score(data: Data) -> Timed:
    whitening, means = torch.randn(data.test.n_features, data.test.n_features), data.train.weight

    def score() -> Tensor:
        whitened, centres = data.test.features @ whitening, means @ whitening
        return (whitened.square().sum(1)[:, None] - 2 * whitened @ centres.T + centres.square().sum(1)).amin(1)

    return score


def bare_knn_score(data: Data) -> Timed:
    bank = torch.nn.functional.normalize(data.train.features, dim=1)

    def score() -> Tensor:
        similarity = torch.nn.functional.normalize(data.test.features, dim=1) @ bank.T
        return similarity.topk(K_NEIGHBOURS, dim=1).values[:, -1]

    return score


def bare_logit_score(function: Callable[[Tensor], Tensor]) -> Callable[[Data], Timed]:
    return lambda data: lambda: function(data.test.logits)


def bare_head_score(function: Callable[[Tensor], Tensor]) -> Callable[[Data], Timed]:
    """One pass over the features, the head, and log-sum-exp."""
    return lambda data: lambda: torch.logsumexp(function(data.test.features) @ data.train.weight.T + data.train.bias, 1)


# ------------------------------------------------------------------ the peer


class Peer(NamedTuple):
    """A detector of pytorch-ood: its class, its arguments, and its kind of input."""

    name: str
    arguments: Callable[[Data], dict[str, Any]]
    kind: str  # "features", "logits" or "feature_maps", as in the names of its methods
    fits: bool = True

    def timed(self, data: Data) -> tuple[Timed | None, Timed]:
        """Return calls that fit and that score."""
        from pytorch_ood import detector as detectors

        detector = getattr(detectors, self.name)(**self.arguments(data))
        source = "logits" if self.kind == "logits" else "features"
        train, test = getattr(data.train, source), getattr(data.test, source)
        if self.kind == "feature_maps":  # of one place
            train, test = train[:, :, None, None], test[:, :, None, None]
        fit = (lambda: getattr(detector, f"fit_{self.kind}")(train, data.y)) if self.fits else None
        return fit, lambda: getattr(detector, f"predict_{self.kind}")(test)


def nothing(data: Data) -> dict[str, Any]:
    return {"model": None}


def encoder_only(data: Data) -> dict[str, Any]:
    return {"encoder": None}


def with_head(data: Data) -> dict[str, Any]:
    return {"encoder": None, "head": data.head}


def with_backbone(data: Data) -> dict[str, Any]:
    return {"backbone": None, "head": torch.nn.Sequential(torch.nn.Flatten(), data.head)}


class Case(NamedTuple):
    """A scorer and its counterparts."""

    scorer: Any
    peer: Peer | None = None
    bare_fit: Callable[[Data], Any] | None = None
    bare_score: Callable[[Data], Timed] | None = None
    slow_peer: bool = False  # if so, all columns of the row are measured on fewer images


def cases(C: int) -> list[Case]:
    D = 1000 if C >= 2048 else C // 2
    s = scorers
    energy = bare_logit_score(lambda logits: torch.logsumexp(logits, 1))
    softmax = bare_logit_score(lambda logits: logits.softmax(1).amax(1))
    return [
        Case(s.MSP(), Peer("MaxSoftmax", nothing, "logits", fits=False), None, softmax),
        Case(
            s.MaxLogit(), Peer("MaxLogit", nothing, "logits", fits=False), None, bare_logit_score(lambda z: z.amax(1))
        ),
        Case(s.Energy(), Peer("EnergyBased", nothing, "logits", fits=False), None, energy),
        Case(s.Entropy(), Peer("Entropy", nothing, "logits", fits=False), None, softmax),
        Case(s.GEN(), Peer("GEN", nothing, "logits", fits=False), None, softmax),
        Case(s.KLMatching(), Peer("KLMatching", nothing, "logits"), None, softmax),
        Case(
            s.ViM(D),
            Peer("ViM", lambda d: {"encoder": None, "d": D, "w": d.train.weight, "b": d.train.bias}, "features"),
            lambda d: bare_principal_fit(d, D, with_norms=True),
            lambda d: bare_residual_score(d, D),
        ),
        Case(s.Residual(D), None, lambda d: bare_principal_fit(d, D, with_norms=False), None),
        Case(
            s.Mahalanobis(), Peer("Mahalanobis", encoder_only, "features"), bare_class_fit, bare_mahalanobis_score, True
        ),
        Case(s.RelativeMahalanobis(), Peer("RMD", encoder_only, "features"), None, None, True),
        Case(
            s.KNN(n_neighbors=K_NEIGHBOURS),
            Peer("KNN", lambda d: {"encoder": None, "k": K_NEIGHBOURS}, "features"),
            bare_normalised,
            bare_knn_score,
            True,
        ),
        Case(s.NNGuide(bank_size=None), Peer("NNGuide", with_head, "features"), None, None, True),
        Case(s.ReAct(), Peer("ReAct", with_backbone, "feature_maps"), None, bare_head_score(lambda h: h.clip(max=1.0))),
        Case(
            s.ASH(variant="s", percentile=90),
            Peer(
                "ASH", lambda d: {**with_backbone(d), "variant": "ash-s", "percentile": 0.9}, "feature_maps", fits=False
            ),
        ),
        Case(
            s.SCALE(),
            Peer("SCALE", lambda d: {**with_backbone(d), "percentile": 0.85}, "feature_maps", fits=False),
        ),
        Case(
            s.DICE(),
            Peer("DICE", lambda d: {"encoder": None, "w": d.train.weight, "b": d.train.bias, "p": 0.9}, "features"),
            None,
            bare_head_score(lambda h: h),
            True,
        ),
        Case(s.SHE(), Peer("SHE", with_head, "features"), None, None),
        Case(s.GradNorm(), None, None, None),
        Case(s.FDBD(), Peer("fDBD", with_head, "features"), None, None),
        Case(s.NCI(), Peer("NCI", with_head, "features"), None, None),
        Case(s.NECO(), None, None, None),
        Case(s.KernelPCA(), None, None, None),
        Case(s.DML(), None, None, None),
    ]


# -------------------------------------------------------------- measurement


def shortest(rounds: int, *calls: Timed | None) -> list[float | None]:
    """Return the shortest time of each call; the calls take turns."""
    times: list[list[float]] = [[] for _ in calls]
    for _ in range(rounds):
        for place, call in enumerate(calls):
            if call is not None:
                gc.collect()
                start = time.perf_counter()
                call()
                times[place].append(time.perf_counter() - start)
    return [min(values) if values else None for values in times]


def measure(case: Case, data: Data, n_slow: int, rounds: int) -> Row:
    if case.slow_peer and len(data.test) > n_slow:
        data = data._replace(test=data.test[:n_slow])
    with_peer = case.peer is not None and peer_is_there()
    fit_peer, score_peer = case.peer.timed(data) if with_peer else (None, None)
    labels = data.y.numpy()
    fit_bare = (lambda: case.bare_fit(data)) if case.bare_fit else None
    fits = shortest(rounds, lambda: case.scorer.fit(data.train, labels), fit_peer, fit_bare)
    scores = shortest(
        rounds + 2,
        lambda: case.scorer.score_samples(data.test),
        score_peer,
        case.bare_score(data) if case.bare_score else None,
    )
    return Row(type(case.scorer).__name__, len(data.test), *fits, *scores)


def peer_is_there() -> bool:
    try:
        import pytorch_ood  # noqa: F401
    except ImportError:
        return False
    return True


def format_rows(rows: list[Row]) -> str:
    def ratio(ours: float, other: float | None) -> str:
        return "" if other is None else f"{ours / other:.2f}"

    lines = [["scorer", "fit [s]", "fit / peer", "fit / bare", "scored", "score [s]", "score / peer", "score / bare"]]
    for row in rows:
        lines.append(
            [
                row.scorer,
                f"{row.fit:.2f}",
                ratio(row.fit, row.fit_peer),
                ratio(row.fit, row.fit_bare),
                f"{row.n_scored:,}",
                f"{row.score:.3f}",
                ratio(row.score, row.score_peer),
                ratio(row.score, row.score_bare),
            ]
        )
    widths = [max(len(line[place]) for line in lines) for place in range(len(lines[0]))]
    return "\n".join("  ".join(map(str.ljust, line, widths)).rstrip() for line in lines)


# ------------------------------------------------------------------- memory


def memory(n: int, C: int, K: int, folder: str | None) -> None:
    """Fit ViM and Mahalanobis on features and logits in files, each in a new process, and print the peak memory."""
    with tempfile.TemporaryDirectory(dir=folder) as directory:
        path = Path(directory) / "features.npy"
        rng = np.random.default_rng(0)
        features = np.lib.format.open_memmap(path, "w+", np.float16, (n, C))
        # As a detector has them, which maps all that is larger than a GiB.
        logits = np.lib.format.open_memmap(Path(directory) / "logits.npy", "w+", np.float32, (n, K))
        means = rng.standard_normal((K, C), dtype=np.float32)
        weight = means / np.linalg.norm(means, axis=1, keepdims=True)
        for rows in chunks(n):
            y = np.arange(n)[rows] % K
            noise = rng.standard_normal((len(y), C), dtype=np.float32)
            features[rows] = np.maximum(0.5 * means[y] + noise, 0)
            logits[rows] = features[rows].astype(np.float32) @ weight.T
        np.save(Path(directory) / "weight.npy", weight)
        features.flush(), logits.flush()
        print(f"{n:,} x {C:,} float16, {path.stat().st_size / 1e9:.1f} GB, K = {K}")
        for name in ("ViM", "Mahalanobis"):
            command = [sys.executable, __file__, "--fit-one", name, "--folder", directory]
            print(subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip())


def peak_memory() -> float:
    """Return the peak memory of this process in GB, pages of mapped files included (Linux)."""
    # The peak of getrusage would include that of the parent process.
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status["VmHWM"].split()[0]) * 1024 / 1e9


def fit_one(name: str, directory: str) -> None:
    features, logits = (np.load(Path(directory) / f"{name}.npy", mmap_mode="r") for name in ("features", "logits"))
    weight = np.load(Path(directory) / "weight.npy")
    representation = Representation.from_numpy(
        features=features, logits=logits, weight=weight, bias=np.zeros(len(weight), dtype=np.float32)
    )
    before = peak_memory()
    start = time.perf_counter()
    scorer = getattr(scorers, name)().fit(representation, np.arange(len(features)) % len(weight))
    fit_time = time.perf_counter() - start
    part = representation[: min(100_000, len(features))]
    start = time.perf_counter()
    scorer.score_samples(part)
    score_time = time.perf_counter() - start
    print(
        f"{name}: peak {peak_memory():.2f} GB resident ({before:.2f} before fit), fit {fit_time:.0f} s, "
        f"scoring {len(part):,} images {score_time:.1f} s"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, help="images to fit on (50,000; 1,000,000 with --memory)")
    parser.add_argument("--n-test", type=int, default=50_000, help="images to score")
    parser.add_argument("--n-slow", type=int, default=5_000, help="images to score where the peer is slow")
    parser.add_argument("--features", type=int, default=2048, help="number of features C")
    parser.add_argument("--classes", type=int, default=100, help="number of classes K")
    parser.add_argument("--rounds", type=int, default=2, help="timed rounds, of which the shortest counts")
    parser.add_argument("--only", nargs="*", help="names of scorers")
    parser.add_argument("--memory", action="store_true", help="measure memory instead of time")
    parser.add_argument("--folder", help="folder for the files of 4 GB and more that --memory writes")
    parser.add_argument("--fit-one", help=argparse.SUPPRESS)
    parser.add_argument("--json", type=Path, help="also write the figures to a file")
    arguments = parser.parse_args()
    if arguments.fit_one:
        fit_one(arguments.fit_one, arguments.folder)
        return
    if arguments.memory:
        memory(arguments.n or 1_000_000, arguments.features, arguments.classes, arguments.folder)
        return
    n = arguments.n or 50_000
    print(f"torch {torch.__version__}, NumPy {np.__version__}, {torch.get_num_threads()} threads, {platform.machine()}")
    data = make_data(n, min(arguments.n_test, n), arguments.features, arguments.classes)
    rows = []
    for case in cases(arguments.features):
        if arguments.only is None or type(case.scorer).__name__ in arguments.only:
            rows.append(measure(case, data, arguments.n_slow, arguments.rounds))
            print(f"... {rows[-1].scorer}", file=sys.stderr)
    print(f"fit on {n:,}, C = {arguments.features:,}, K = {arguments.classes}\n{format_rows(rows)}")
    if arguments.json:
        arguments.json.write_text(json.dumps([row._asdict() for row in rows], indent=1))


if __name__ == "__main__":
    main()
