"""Our tuning beside random search: best score by trial-epochs, on a real head and real baskets (see head_objective).

    python benchmarks/bench_tuning.py [--seeds 5] [--first-seed 0] [--trials 18] [--plot tuning.png]
                                      [--min-share 0.037] [--bracket 27] [--finalists 6] [--rate-exponent 0.3]

Random search trains every trial for one epoch. Ours is what the tune stage does, by its own plan, suggestions and rates: TPE
with ten random trials first, brackets of 27 trials at 1/27 of it, the best six of them in full, each budget trained from the
start on a schedule of its own and with its rates carried over to its length (decision 0094); every epoch of it is counted. Only
trials of the full budget, whose rates are as they were drawn, count as a score. Ends at random's epochs. Seeds 100 to 119
chose the options; report others. Prints a table, then one JSON line.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from head_objective import Training, task
from hyperopt import rand
from hyperopt.base import Domain, trials_from_docs

from reshelve.config.tuning import Tuning
from reshelve.tuning.past_nights import PastNights
from reshelve.tuning.rates import rate_factor
from reshelve.tuning.space import hyperopt_space, plain_values
from reshelve.tuning.standing import standing
from reshelve.tuning.trial import Status, Trial
from reshelve.tuning.tune import proposals

EPOCHS = 1  # of a full training, as a night has: it sees an example about once
MIN_SHARE = 1 / 27  # of a full training, that a trial begins with
BRACKET = 27  # trials begin together, for the epochs of one full training
FINALISTS = 6  # of them are trained in full
RATE_EXPONENT = 0.3
RATES = ("training.learning_rate", "training.head_learning_rate")
SPACE = {
    "training.learning_rate": {"loguniform": [1e-5, 3e-2]},
    "training.head_learning_rate": {"loguniform": [1e-5, 3e-2]},
    "training.weight_decay": {"loguniform": [1e-3, 1]},
    "training.warmup_share": {"uniform": [0, 0.5]},
    "training.batch_size": {"choice": [8, 16, 32]},
}
Curve = list[tuple[float, float]]  # (trial-epochs so far, best validation loss of a full training)
Score = Callable[[dict[str, float], float], float]


def ours(tuning: Tuning, score: Score, most: float) -> Curve:
    """The tune stage's own loop, with `score` for its training."""
    trials: list[Trial] = []
    curve: Curve = []
    spent, best = 0.0, float("inf")
    while spent < most and (at := standing(tuning, trials)):
        for trial in proposals(tuning, PastNights(), at, trials):
            factor = rate_factor(tuning, trial.share)
            rates = {path: trial.values[path] * factor for path in RATES}
            loss = score(trial.values | rates, trial.share * EPOCHS)
            trials.append(trial.model_copy(update={"status": Status.DONE, "loss": loss}))
            spent += trial.share * EPOCHS
            best = min(best, loss) if trial.share == tuning.budget_share else best
            curve.append((spent, best))
    return curve


def at_random(tuning: Tuning, score: Score) -> Curve:
    """Hyperopt's random search; its draws are not those that our tuning begins with."""
    space = hyperopt_space(tuning)
    domain, nothing = Domain(lambda _: 0, space), trials_from_docs([], validate=False)
    curve: Curve = []
    best = float("inf")
    for number in range(tuning.trials):
        seed = int(np.random.SeedSequence([tuning.seed, 1, number]).generate_state(1)[0])
        [document] = rand.suggest([number], domain, nothing, seed)
        draws = {path: value[0].item() for path, value in document["misc"]["vals"].items()}
        best = min(best, score(plain_values(space, draws), EPOCHS))
        curve.append(((number + 1) * EPOCHS, best))
    return curve


def reached(curve: Curve, target: float) -> float | None:
    """Trial-epochs at which the curve was as good as `target`."""
    return next((spent for spent, best in curve if best <= target), None)


def plot(runs: list[tuple[Curve, Curve]], path: Path) -> None:
    """Best loss by trial-epochs, a thin line per seed."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 4))
    for number, curves in enumerate(runs):
        for curve, colour, name in zip(curves, ("grey", "tab:blue"), ("random", "ours"), strict=True):
            label = name if number == 0 else None
            axes.step(*zip(*curve, strict=True), where="post", color=colour, alpha=0.7, label=label)
    axes.set(xlabel="trial-epochs", ylabel="best validation loss")
    axes.legend()
    figure.savefig(path, dpi=120, bbox_inches="tight")


def main() -> None:
    """Tune, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--trials", type=int, default=18)
    parser.add_argument("--min-share", type=float, default=MIN_SHARE)
    parser.add_argument("--bracket", type=int, default=BRACKET)
    parser.add_argument("--finalists", type=int, default=FINALISTS)
    parser.add_argument("--rate-exponent", type=float, default=RATE_EXPONENT)
    parser.add_argument("--plot", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    began = time.monotonic()
    of = task()
    total = arguments.trials * EPOCHS
    runs: list[tuple[Curve, Curve]] = []
    shares: list[float] = []
    print(f"{'seed':>4}{'random':>9}{'epochs':>8}{'ours':>9}{'reached at':>12}{'share':>7}")
    for seed in range(arguments.first_seed, arguments.first_seed + arguments.seeds):

        def score(values: dict[str, float], epochs: float, seed: int = seed) -> float:
            return Training(of, values, epochs, seed).run()

        form = {"trials": arguments.trials, "parallel": 1, "budget_share": 1.0, "seed": seed, "space": SPACE}
        random = at_random(Tuning.model_validate(form), score)
        halved = {
            **form,
            "trials": min(500, math.ceil(total / arguments.min_share)),  # more than the epochs allow
            "halving": {
                "eta": round(1 / arguments.min_share),
                "min_share": arguments.min_share,
                "bracket": arguments.bracket,
                "finalists": arguments.finalists,
            },
            "rate_exponent": arguments.rate_exponent,
        }
        found = ours(Tuning.model_validate(halved), score, total)
        runs.append((random, found))
        at = reached(found, random[-1][1])
        shares.append(at / total if at else float("inf"))
        line = f"{seed:4}{random[-1][1]:9.4f}{total:8}{found[-1][1]:9.4f}{f'{at:.2f}' if at else 'never':>12}{shares[-1]:7.2f}"
        print(line, flush=True)
    if arguments.plot:
        plot(runs, arguments.plot)
    median = statistics.median(shares)
    print(f"median share of random's trial-epochs: {median:.2f}; {time.monotonic() - began:.0f} s")
    print(json.dumps({
        "median_share": round(median, 3), "shares": [round(share, 3) for share in shares], "trial_epochs": total,
        "random": [round(random[-1][1], 5) for random, _ in runs], "ours": [round(found[-1][1], 5) for _, found in runs],
    }))  # fmt: skip


if __name__ == "__main__":
    main()
