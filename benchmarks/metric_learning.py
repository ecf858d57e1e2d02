"""How well embeddings of classes that training never saw retrieve: classification, ArcFace, Proxy-Anchor.

    python -m benchmarks.metric_learning

Of CIFAR-10 five classes are trained on (airplane, automobile, bird, cat, deer), the other five retrieved:
their 30,000 images are half val, by which the best epoch is chosen, half test, each of which in turn is the
query among the others. Network (ResNet-20 from scratch, projected to 64 dimensions), images, steps, learning
rate, clipping and seed are the same for all three; only the loss differs. The second row of each is the same
embedding PCA-whitened, fitted on the training images. Recall@1 by chance is 0.2.
"""

import argparse
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks.cifar10 import add_options, pictures
from benchmarks.figures import Figure, conclude
from benchmarks.machine import describe
from training.embeddings import embed
from training.normalization import Normalization
from training.options import FitOptions
from training.retrieval_metrics import RetrievalScores, retrieval_scores
from training.run_model import load_run_model
from training.run_splits import run_test_split, run_train_split
from training.setup import scored_batches
from training.train import fit
from training.whitening_fit import whiten

LOSSES = ("cross-entropy", "arcface", "proxy-anchor")
# Twice what chance finds; measured values are in README.md.
BAR = 0.4


@dataclass(frozen=True)
class Result:
    """One loss.

    Attributes:
        plain, whitened: on the test images of the held-out classes.
        dimension: of the whitened embedding.
        minutes: of training and validation.
    """

    plain: RetrievalScores
    whitened: RetrievalScores
    dimension: int
    minutes: float


def main() -> None:
    """Train, retrieve, print, exit by the bars."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_options(parser)
    parser.add_argument("--holdout-classes", type=int, default=5, help="the last so many are retrieved")
    parser.add_argument("--epochs", type=int, default=7)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--learning-rate", type=float, default=0.1)
    parser.add_argument("--clip-norm", type=float, default=1.0, help="of the gradients, at most")
    parser.add_argument("--projection", type=int, default=64, help="dimensions of the embedding")
    parser.add_argument("--whiten", type=int, default=32, help="dimensions after whitening")
    parser.add_argument("--no-bf16", action="store_true", help="compute in float32")
    options = parser.parse_args()
    data = pictures(options.data, options.work)
    results = {}
    for loss in LOSSES:
        results[loss] = measure(loss, data, options)
        for name, scores in (("", results[loss].plain), (", whitened", results[loss].whitened)):
            print(f"{loss}{name}: {_shown(scores)}", flush=True)
        print(f"  {results[loss].minutes:.1f} minutes", flush=True)
    print(describe())
    conclude(
        *(
            Figure(f"{loss.replace('-', '_')}_recall_at_1", result.plain.recall_at[1], BAR)
            for loss, result in results.items()
        ),
        quick=options.quick,
    )


def measure(loss: str, data: Path, options: argparse.Namespace) -> Result:
    """Train with a loss, and retrieve."""
    run: Path = options.work / f"metric-learning-{loss}"
    shutil.rmtree(run, ignore_errors=True)
    started = time.monotonic()
    fit(
        FitOptions(
            str(data),
            arch="resnet20-cifar",
            epochs=1 if options.quick else options.epochs,
            batch_size=8 if options.quick else options.batch_size,
            input_size=16 if options.quick else 32,
            learning_rate=options.learning_rate,
            clip_norm=options.clip_norm,
            loss=loss,
            projection=options.projection,
            holdout_classes=options.holdout_classes,
            bf16=not (options.no_bf16 or options.quick),
            trackers=(),
            output=run,
        ),
        lambda line: print(line, flush=True),
    )
    minutes = (time.monotonic() - started) / 60
    loaded = load_run_model(run)
    config, normalization = loaded.config, loaded.config.normalization
    batches = scored_batches(config, run_test_split(run, config.data))
    vectors, labels = embed(
        loaded.model, Normalization(normalization.mean, normalization.std), batches, torch.device("cpu")
    )
    dimension = min(options.whiten, vectors.shape[1])
    whitening = whiten(
        loaded.model,
        run_train_split(run, config.data),
        dimension,
        preprocessing=config.preprocessing,
        mean=normalization.mean,
        std=normalization.std,
        shown=False,
    )
    white = whitening(torch.nn.functional.normalize(vectors, dim=1))
    return Result(
        retrieval_scores(vectors, labels), retrieval_scores(white, labels), whitening.dimension, minutes
    )


def _shown(scores: RetrievalScores) -> str:
    recalls = ", ".join(f"Recall@{k} {value:.3f}" for k, value in scores.recall_at.items())
    return f"{recalls}, mAP@R {scores.map_at_r:.3f} on {scores.queries:,} queries"


if __name__ == "__main__":
    main()
