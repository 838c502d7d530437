"""What is said where memory runs out."""

from __future__ import annotations

from tlkit.data import make_pipeline
from tlkit.errors import TrainingError
from tlkit.exchange import is_multi_worker
from tlkit.plans import Stage
from tlkit.training.batch_size import find_fitting
from tlkit.training.cache.stage import divide_stage
from tlkit.training.compiling import compile_stage
from tlkit.training.trainable import Trainable


def out_of_memory(run: Trainable, stage: Stage) -> TrainingError:
    """The error for a stage whose batches do not fit, with a size that was tried and fits.

    It is tried in float32 without XLA: no other precision needs more. The run's weights move. Where one of
    several workers has no room, the others do not try anything with it.
    """
    what = f"Out of memory in stage {stage.name!r} with a global batch size of {run.global_batch_size}."
    if is_multi_worker(run.strategy):
        return TrainingError(f"{what} Use a smaller --batch-size.")

    def step(size: int) -> None:
        smaller = make_pipeline(
            run.dataset.splits["train"],
            run.preprocessing,
            global_batch_size=size * run.training.accumulate,
            training=True,
            seed=run.seed,
            replicas=run.n_replicas,
        )
        compile_stage(run, stage, divide_stage(run)).fit(smaller.take(1), shuffle=False, verbose=0)

    fitting = find_fitting(run.global_batch_size, step, run.n_replicas)
    advice = (
        f"{fitting} fits: --batch-size {fitting}"
        if fitting
        else f"Not even {run.n_replicas} fits: use a smaller --image-size or --sequence-length."
    )
    return TrainingError(f"{what} {advice}")
