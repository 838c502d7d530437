"""One job from start to end: finetune, evaluate, predict, export."""

from tlkit.workflows.compare import Comparison, compare_runs
from tlkit.workflows.dry_run import DryRun, plan_finetune
from tlkit.workflows.evaluate import evaluate_run
from tlkit.workflows.export import export_run
from tlkit.workflows.finetune import finetune, run_finetune
from tlkit.workflows.objects import PythonObjects
from tlkit.workflows.predict import predict_run
from tlkit.workflows.rank import Ranking, rank_backbones, run_rank
from tlkit.workflows.run import Run, load_run

__all__ = [
    "Comparison",
    "DryRun",
    "PythonObjects",
    "Ranking",
    "Run",
    "compare_runs",
    "evaluate_run",
    "export_run",
    "finetune",
    "load_run",
    "plan_finetune",
    "predict_run",
    "rank_backbones",
    "run_finetune",
    "run_rank",
]
