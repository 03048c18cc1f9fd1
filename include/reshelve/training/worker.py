"""Fine-tune one ranker: the training loop, from top to bottom.

One process:         python -m reshelve.training.worker --spec job/.spec.json
N on this host:      horovodrun -np N python -m reshelve.training.worker --spec job/.spec.json
N on several hosts:  horovodrun -np N -H host1:4,host2:4 python -m reshelve.training.worker --spec /shared/job/.spec.json

`reshelve train` writes the spec and runs the second; see `reshelve.training.spec` for what is in it. Each process
takes its own accelerator where there is one (gradients then travel by NCCL), else its share of the CPU (Gloo).
A job that was stopped goes on from its checkpoint, with the same batches, rates and random draws as if it had not been.
Exit codes: 0 done, 65 the data is bad, 75 try again, 78 the configuration is bad; `.error.json` holds the headline.
"""

from __future__ import annotations

import argparse
import fcntl
import math
import os
import sys
import threading
import time
from pathlib import Path

import horovod.torch as hvd
import pyarrow.parquet as pq
import torch
from torch import Tensor

from reshelve.errors import ConfigurationError, ReshelveError
from reshelve.logs import configure_logs, logger
from reshelve.processes import die_with_parent
from reshelve.rankers import Kind
from reshelve.training import spec as names
from reshelve.training.batches import (
    Examples,
    evaluation_order,
    read_examples,
    steps_per_epoch,
    training_order,
)
from reshelve.training.checkpoint import (
    Place,
    begin_optimizer,
    load_checkpoint,
    optimizer_tensors,
    save_checkpoint,
)
from reshelve.training.curves import Curves, write_json
from reshelve.training.device import Device, choose_device
from reshelve.training.losses import METRICS, example_losses, mean_reciprocal_rank, recalls, weighted_mean
from reshelve.training.model import ModelForm, RankerModel, base_architecture
from reshelve.training.spec import TrainingSpec

AGREE_EVERY = 5  # steps between agreements on the time limit: each costs all processes a small message
REPORT_SECONDS = 3.0  # a person who waits sees something move
VALIDATION_EXAMPLES = 1000  # enough to compare rates by, a small part of the time
VALIDATIONS = 2  # within training, besides the ones before and after
GRADIENT_NORM = 1.0  # longer gradients are scaled down: one odd batch must not undo a night
BETAS = (0.9, 0.98)  # AdamW; the second is short because a night has hundreds of steps, not millions


def train(spec: TrainingSpec) -> None:
    """Train as `spec` says and write model, curves and `.result.json` to its output. Horovod has been initialised."""
    rank, processes = hvd.rank(), hvd.size()
    device = choose_device(hvd.local_rank())
    training = spec.training
    log = logger(stage="train")

    # Data. Every process reads the (small) files and takes its own share of each batch.
    examples = read_examples(spec.examples / "train.parquet", spec.kind)
    validation = read_examples(spec.examples / "validation.parquet", spec.kind)
    full = training.epochs * steps_per_epoch(len(examples), training.batch_size, processes)
    steps = max(1, round(full * spec.budget_share))  # fixed beforehand: the rate never depends on a clock

    # Model. Rank 0 reads the pretrained weights; the others get them by broadcast.
    model = build_model(spec, rank).to(device.torch_device).train()
    head = [value for name, value in model.named_parameters() if not name.startswith("encoder.")]
    optimizer = torch.optim.AdamW(
        [
            {"params": list(model.encoder.parameters()), "peak": training.learning_rate},
            {"params": head, "peak": training.head_learning_rate},
        ],
        betas=BETAS,
        weight_decay=training.weight_decay,
        fused=True,  # one pass over the weights instead of a dozen
    )
    # Wrapped before it gets any state: Horovod makes a new optimizer of the old one's groups.
    optimizer = hvd.DistributedOptimizer(optimizer, named_parameters=model.named_parameters())
    begin_optimizer(model, optimizer)

    # Resume. Rank 0 reads the checkpoint; everyone takes over its weights, its optimizer and its place.
    checkpoint = spec.output / names.CHECKPOINT
    place = (load_checkpoint(checkpoint, spec.digest(), model, optimizer) if rank == 0 else None) or Place()
    hvd.broadcast_parameters(model.state_dict(), root_rank=0)
    hvd.broadcast_parameters(optimizer_tensors(model, optimizer), root_rank=0)
    step = int(hvd.broadcast(torch.tensor(place.step), root_rank=0, name="step"))
    if rank == 0 and step:
        log.info("resumed from checkpoint", step=step, steps=steps)

    order = training_order(
        examples.lengths,
        batch_size=training.batch_size,
        processes=processes,
        rank=rank,
        seed=training.seed,
        first_step=step,
        steps=steps,
    )
    validate_at = (
        {round(steps * part / (VALIDATIONS + 1)) for part in range(1, VALIDATIONS + 1)}
        if spec.save
        else set()
    )
    with Reporter(spec, steps, place, quiet=rank != 0) as report:
        if step == 0 and spec.save:
            place.first = validate(spec, model, validation, device)
            report.validation(0, place.first)

        for chosen in order:
            rates(optimizer, step, steps, training.warmup_share)
            torch.manual_seed(hash((training.seed, step, rank)) % 2**63)  # draws depend on the place alone
            batch = examples.batch(chosen).to(device.torch_device)
            with device.autocast():
                logits = model(batch.input_ids, batch.attention_mask, batch.token_type_ids)
            loss = weighted_mean(example_losses(spec.kind, logits.float(), batch), batch.weights)
            optimizer.zero_grad()
            loss.backward()
            optimizer.synchronize()  # the sum over all processes, before its length is taken
            torch.nn.utils.clip_grad_norm_(model.parameters(), GRADIENT_NORM)
            with optimizer.skip_synchronize():
                optimizer.step()
            step += 1
            report.step(step, loss, len(chosen) * processes)

            if step in validate_at:
                report.validation(step, validate(spec, model, validation, device))
            if rank == 0 and step < steps and report.checkpoint_due(training.checkpoint_seconds):
                save_checkpoint(checkpoint, spec.digest(), model, optimizer, report.place(step))
            if step % AGREE_EVERY == 0 and agreed(report.seconds() > training.max_minutes * 60):
                if rank == 0:
                    log.warning(
                        "stopped by training.max_minutes",
                        step=step,
                        steps=steps,
                        minutes=training.max_minutes,
                    )
                break

        last = validate(spec, model, validation, device)
        report.validation(step, last)
    drift = rank_difference(model)

    if rank == 0:
        if not math.isfinite(last["loss"]):
            raise ConfigurationError(
                f"training diverged: the validation loss is {last['loss']}",
                "lower training.learning_rate or head_learning_rate",
            )
        if spec.save:
            model.save(spec.output)
        write_json(
            spec.output / names.RESULT,
            report.result(step, last, str(device)) | {"processes": processes, "rank_difference": drift},
        )
        checkpoint.unlink(missing_ok=True)


def build_model(spec: TrainingSpec, rank: int) -> RankerModel:
    """The ranker before training: on rank 0 with the pretrained weights, elsewhere of the same shape."""
    catalogue = None
    if spec.kind is Kind.NEXT_ITEM:
        catalogue = pq.read_table(spec.examples / "catalogue.parquet").sort_by("index").to_pydict()
    pooling, max_length = spec.model.pooling, spec.model.max_length
    if rank != 0:
        architecture = base_architecture(spec.base, max_length, spec.model.layers)
        items = len(catalogue["title"]) if catalogue else None
        form = ModelForm(
            kind=spec.kind, pooling=pooling, max_length=max_length, architecture=architecture, items=items
        )
        return RankerModel(form)
    return RankerModel.initialise(
        spec.base,
        kind=spec.kind,
        pooling=pooling,
        max_length=max_length,
        layers=spec.model.layers,
        titles=[title or item for title, item in zip(catalogue["title"], catalogue["item_id"], strict=True)]
        if catalogue
        else None,
        events=catalogue["events"] if catalogue else None,
        seed=spec.training.seed,
    )


def rates(optimizer: torch.optim.Optimizer, step: int, steps: int, warmup_share: float) -> None:
    """Set each group's rate: up linearly over the warm-up, then down linearly to 0 at the last step."""
    warmup = max(1, round(steps * warmup_share))
    part = (step + 1) / warmup if step < warmup else (steps - step) / max(1, steps - warmup)
    for group in optimizer.param_groups:
        group["lr"] = group["peak"] * part


def agreed(stop: bool) -> bool:
    """Whether any process wants to stop: the answer is the same on all, so none waits for one that left."""
    return bool(hvd.allreduce(torch.tensor(float(stop)), op=hvd.Sum, name="stop") > 0)


def rank_difference(model: RankerModel) -> float:
    """How far the processes' weights have come apart: 0 where every one took the same steps."""
    own = torch.stack([value.detach().double().abs().sum().cpu() for value in model.parameters()])
    sums = hvd.allgather(own.unsqueeze(0), name="weights")
    return float((sums.max(0).values - sums.min(0).values).max())


@torch.no_grad()
def validate(spec: TrainingSpec, model: RankerModel, examples: Examples, device: Device) -> dict[str, float]:
    """Weighted mean loss and ranking metric over the validation examples, each process having done its share."""
    model.eval()
    sums = torch.zeros(4)  # loss·weight, weight, metric, examples
    scored: list[Tensor] = []
    order = evaluation_order(
        examples, batch_size=64, processes=hvd.size(), rank=hvd.rank(), most=VALIDATION_EXAMPLES
    )
    for chosen in order:
        batch = examples.batch(chosen).to(device.torch_device)
        with device.autocast():
            logits = model(batch.input_ids, batch.attention_mask, batch.token_type_ids)
        logits = logits.float()
        losses = example_losses(spec.kind, logits, batch)
        sums[0] += (losses * batch.weights).sum().cpu()
        sums[1] += batch.weights.sum().cpu()
        if spec.kind is Kind.NEXT_ITEM:
            sums[2] += recalls(logits, batch).sum().cpu()
        else:
            scored.append(
                torch.stack([batch.groups.double(), batch.labels.double(), logits.double()], dim=1).cpu()
            )
        sums[3] += len(chosen)
    model.train()
    sums = hvd.allreduce(sums, op=hvd.Sum, name="validation")
    metric = float(sums[2] / sums[3])
    if spec.kind is Kind.PAIR:
        rows = torch.cat(scored) if scored else torch.zeros(0, 3, dtype=torch.float64)
        rows = hvd.allgather(rows, name="scored")
        metric = mean_reciprocal_rank(rows[:, 0].long(), rows[:, 1], rows[:, 2])
    return {"loss": float(sums[0] / sums[1]), METRICS[spec.kind]: metric}


class Reporter:
    """Keeps time and losses; on rank 0 also says so: log lines, `.progress.json`, curves."""

    def __init__(self, spec: TrainingSpec, steps: int, place: Place, quiet: bool) -> None:
        self._spec, self._steps, self._place, self._quiet = spec, steps, place, quiet
        self._started = self._reported = self._saved = time.monotonic()
        self._first_step, self._first_examples = place.step, place.examples
        self._losses: list[Tensor] = []  # tensors: reading one waits for the accelerator
        self._curves = None if quiet else Curves(spec.output, place.curve)
        self._log = logger(stage="train" if spec.save else "trial")

    def seconds(self) -> float:
        """Seconds of training, over all attempts."""
        return self._place.seconds + time.monotonic() - self._started

    def step(self, step: int, loss: Tensor, examples: int) -> None:
        """Note one step; every few seconds say so."""
        self._losses.append(loss.detach())
        self._place.examples += examples
        due = time.monotonic() - self._reported > REPORT_SECONDS
        if not self._quiet and (due or step in (1, self._steps)):
            mean = float(torch.stack(self._losses).mean())
            self._losses.clear()
            self._tell(step, mean)
            if self._curves:
                self._curves.add(step, self.seconds(), loss=mean)

    def _tell(self, step: int, loss: float) -> None:
        self._reported = time.monotonic()
        spent = self._reported - self._started
        left = spent / max(1, step - self._first_step) * (self._steps - step)
        rate = (self._place.examples - self._first_examples) / spent
        self._log.info(
            "step",
            step=f"{step}/{self._steps}",
            loss=round(loss, 4),
            examples_per_second=round(rate, 1),
            seconds_left=round(left),
        )
        write_json(
            self._spec.output / names.PROGRESS,
            {"step": step, "steps": self._steps, "loss": round(loss, 4), "seconds_left": round(left)},
        )

    def validation(self, step: int, found: dict[str, float]) -> None:
        """Note a validation."""
        if self._curves:
            self._curves.add(
                step, self.seconds(), **{f"validation_{name}": value for name, value in found.items()}
            )
            shown = {name: round(value, 4) for name, value in found.items()}
            self._log.info("validation", step=f"{step}/{self._steps}", **shown)

    def checkpoint_due(self, every: float) -> bool:
        """Whether the last checkpoint is that many seconds old."""
        if time.monotonic() - self._saved < every:
            return False
        self._saved = time.monotonic()
        return True

    def place(self, step: int) -> Place:
        """What a checkpoint at `step` has to remember."""
        points = self._curves.points if self._curves else []
        return Place(step, self.seconds(), self._place.examples, points, self._place.first)

    def result(self, step: int, last: dict[str, float], device: str) -> dict[str, object]:
        """The job's result, for the stage's."""
        losses = [point["loss"] for point in (self._curves.points if self._curves else []) if "loss" in point]
        metric = METRICS[self._spec.kind]
        return {
            "digest": self._spec.digest(),
            "loss": losses[-1],
            "first_loss": losses[0],
            "validation_loss": last["loss"],
            "validation_metric": {
                "name": metric,
                "value": last[metric],
                "first": self._place.first.get(metric),
            },
            "first_validation_loss": self._place.first.get("loss"),
            "steps": step,
            "steps_planned": self._steps,
            "examples": self._place.examples,
            "samples_per_second": round(self._place.examples / max(self.seconds(), 1e-9), 1),
            "device": device,
        }

    def __enter__(self) -> Reporter:
        return self

    def __exit__(self, *failure: object) -> None:
        if self._curves:
            self._curves.__exit__(None, None, None)


def end_with(launcher: int) -> None:
    """Leave when the launcher is gone, however it went: a worker never outlives the job it belongs to."""

    def watch() -> None:
        while Path(f"/proc/{launcher}").exists():
            time.sleep(0.5)
        os._exit(75)

    threading.Thread(target=watch, daemon=True).start()


def main() -> None:
    """Read the spec, train, and turn our errors into `.error.json` and their exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--spec", type=Path, required=True, help="The job, as written by `reshelve train`.")
    arguments = parser.parse_args()
    configure_logs()
    die_with_parent()
    if launcher := os.environ.get("RESHELVE_LAUNCHER"):
        end_with(int(launcher))
    if threads := os.environ.get("OMP_NUM_THREADS"):
        torch.set_num_threads(int(threads))
    spec = TrainingSpec.model_validate_json(arguments.spec.read_text())
    with (spec.output / names.LOCK).open("w") as alive:
        fcntl.flock(alive, fcntl.LOCK_SH)  # the next attempt waits until every worker of this one is gone
        try:
            hvd.init()
            train(spec)
            hvd.shutdown()
        except ReshelveError as error:
            write_json(
                spec.output / names.ERROR,
                {"headline": error.headline, "detail": error.detail, "exit_code": error.exit_code},
            )
            sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
