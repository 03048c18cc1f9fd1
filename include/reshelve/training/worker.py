"""Fine-tune one ranker: the training loop, from top to bottom.

One process:         python -m reshelve.training.worker --spec job/.spec.json
N on this host:      horovodrun -np N python -m reshelve.training.worker --spec job/.spec.json
N on several hosts:  docs/how-to/gpu-hosts.md, on a network of their own: Horovod asks nobody who they are

`reshelve train` writes the spec and runs the second; see `reshelve.training.spec` for what is in it. Each process
takes its own accelerator where there is one (gradients then travel by NCCL), else its share of the CPU (Gloo).
A job that was stopped goes on from its checkpoint, with the same batches, rates and random draws as if it had not been.
Exit codes: 0 done, 65 the data is bad, 75 try again, 78 the configuration is bad; `.error.json` holds the headline.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import math
import os
import sys
from pathlib import Path

import horovod.torch as hvd
import torch
from torch import Tensor

from reshelve.errors import ConfigurationError, ReshelveError, of_the_disk
from reshelve.files import OTHERS
from reshelve.logs import configure_logs, logger
from reshelve.model.ranker_form import base_pad_id
from reshelve.processes import die_with_parent, end_with
from reshelve.training import spec as names
from reshelve.training.adapters import TrainedAdapter, plain_weights
from reshelve.training.adversary import Adversary
from reshelve.training.averaging import Average
from reshelve.training.batches import Batch, Units, read_examples, steps_per_epoch, training_order
from reshelve.training.best_checkpoint import Keeper
from reshelve.training.checkpoint import (
    TrainingPosition,
    TrainingState,
    begin_optimizer,
    load_checkpoint,
    save_checkpoint,
)
from reshelve.training.curves import write_json
from reshelve.training.device import Device, choose_device
from reshelve.training.distillation import Teacher
from reshelve.training.gradients import Gradients, prefer_settings
from reshelve.training.initial import build_model
from reshelve.training.losses import losses, weighted_mean
from reshelve.training.model import RankerModel
from reshelve.training.report import TrainingReporter
from reshelve.training.spec import TrainingSpec
from reshelve.training.title_tokens import Titles, set_vectors
from reshelve.training.titles import TitleSampler
from reshelve.training.validation import lists_to_read, nothing_to_order, validate
from reshelve.training.vocabulary import Vocabulary

GRADIENT_NORM = 1.0  # longer gradients are scaled down: one odd batch must not undo a night
BETAS = (0.9, 0.98)  # AdamW; the second is short because a night has hundreds of steps, not millions


def train(spec: TrainingSpec) -> None:
    """Train as `spec` says and write model, curves and `.result.json` to its output. Horovod has been initialised."""
    rank, processes = hvd.rank(), hvd.size()
    device = choose_device(hvd.local_rank(), hvd.local_size(), bool(hvd.nccl_built()))
    training = spec.training
    log = logger(stage="train")

    # Data. Every process reads the (small) files and takes its own share of each batch.
    pad_id = base_pad_id(spec.base)
    examples = read_examples(spec.examples / "train.parquet", spec.kind, pad_id)
    validation = read_examples(spec.examples / "validation.parquet", spec.kind, pad_id)
    titles = Titles.read(spec.examples, spec.model.max_length, pad_id) if spec.model.title_vector else None
    vocabulary = Vocabulary.renumbered(examples, validation, *([titles] if titles else []))
    grouped = training.loss in ("pairwise", "listwise")
    if grouped and not examples.orders_something():
        raise nothing_to_order("train.parquet", training.loss)
    units = Units.of(examples, training.batch_size, grouped)
    lists = lists_to_read(spec, validation, len(examples))
    full = training.epochs * steps_per_epoch(len(units), units.size, processes) / training.accumulate
    steps = max(1, round(full * spec.budget_share))  # fixed beforehand: the rate never depends on a clock

    # Model. Rank 0 reads its first weights; the others get them by broadcast.
    model = build_model(spec, rank)
    table = vocabulary.shrink(model)
    adapter = (
        TrainedAdapter(model, training.adapter, steps, training.seed)
        if training.adapter.kind != "none"
        else None
    )
    model = model.to(device.torch_device).train()
    teacher = Teacher(spec, vocabulary, device) if spec.teacher else None
    adversary = Adversary(model, training.adversarial) if training.adversarial else None
    optimizer = make_optimizer(spec, model)
    passes = training.accumulate * (2 if adversary else 1)  # backward passes of one step
    gradients = Gradients([value for value in model.parameters() if value.requires_grad], passes)

    # Resume. Rank 0 reads the checkpoint; everyone takes over its weights, its optimizer and its place.
    checkpoint = spec.output / names.CHECKPOINT
    average = Average(model, training.average_decay) if training.average == "ema" else None
    state = TrainingState(model, optimizer, average, adapter)
    place, best = load_checkpoint(checkpoint, spec.digest(), state) if rank == 0 else (TrainingPosition(), {})
    hvd.broadcast_parameters(state.tensors(), root_rank=0)
    step = int(hvd.broadcast(torch.tensor(place.step), root_rank=0, name="step"))
    if rank == 0 and step:
        log.info("resumed from checkpoint", step=step, steps=steps)
    sampler = TitleSampler(titles, examples.targets, units.size, model) if titles else None
    keeper = Keeper(spec.kind, training, place, best, lambda: plain_weights(model))

    order = training_order(
        units.lengths,
        batch_size=units.size,
        processes=processes,
        rank=rank,
        seed=training.seed,
        first_step=step * training.accumulate,
        steps=steps * training.accumulate,
    )
    parts = training.validations + 1
    validate_at = {round(steps * part / parts) for part in range(1, parts)} if spec.save else set()
    with TrainingReporter(spec, steps, place, quiet=rank != 0) as report:

        def validated() -> dict[str, float]:
            with report.not_counted():
                if titles:
                    set_vectors(model, titles, device)
                found = validate(spec, model, validation, device, lists)
            report.validation(step, found)
            return found

        found: dict[str, float] | None = None  # the validation of the present weights
        if step == 0 and spec.save:
            place.first = validated()
            keeper.validated(0, place.first)

        stopped = "patience" if agreed(keeper.exhausted) else None
        while step < steps and not stopped:
            rates(optimizer, step, steps, training.warmup_share)
            torch.manual_seed(hash((training.seed, step, rank)) % 2**63)  # draws depend on the place alone
            gradients.clear(stop=report.seconds() > training.max_minutes * 60)
            loss, seen = torch.zeros(()), 0
            for _ in range(training.accumulate):
                batch = examples.batch(units.examples(next(order))).to(device.torch_device)
                part = backward(
                    spec, model, batch, device, gradients.share, adversary, adapter, teacher, sampler
                )
                loss, seen = loss + part / training.accumulate, seen + len(batch.weights)
            late = gradients.add_up()  # over all processes, before the sum's length is taken
            torch.nn.utils.clip_grad_norm_(model.parameters(), GRADIENT_NORM)
            optimizer.step()
            step, found = step + 1, None
            if adapter:
                adapter.after_step(step)
            if average:
                average.update(step)
            report.step(step, loss, seen * processes)

            if step in validate_at:
                found = validated()
                keeper.validated(step, found)
                stopped = "patience" if agreed(keeper.exhausted) else None
            if rank == 0 and step < steps and report.checkpoint_due(training.checkpoint_seconds):
                save_checkpoint(checkpoint, spec.digest(), state, keeper.best, report.place(step))
            if late:
                stopped = stopped or "max_minutes"

        if stopped and rank == 0:
            log.warning(f"stopped by training.{stopped}", step=step, steps=steps)
        found = found or validated()
        weights, found, kept = keeper.last_or_best(step, found)
        if average and spec.save:
            with average.in_place():
                averaged = validated()
                if keeper.better(averaged, found):
                    weights, found, kept = (
                        plain_weights(model),
                        averaged,
                        {"weights": "average", "step": step},
                    )
                    weights = {name: value.clone() for name, value in weights.items()}
        spent, seconds = torch.tensor(report.cpu_seconds()), report.step_seconds()
    drift = rank_difference(model)
    cpu = float(hvd.allreduce(spent, op=hvd.Sum, name="cpu"))

    if rank == 0:
        if not math.isfinite(found["loss"]):
            raise ConfigurationError(
                f"training diverged: the validation loss is {found['loss']}",
                "lower training.learning_rate or head_learning_rate",
            )
        if spec.save:
            model.save(spec.output, vocabulary.whole(model, weights, table))
        more = {"processes": processes, "rank_difference": drift, "cpu_seconds": round(cpu, 3)}
        more |= {"step_seconds": round(seconds, 3), "kept": kept, "stopped_by": stopped}
        write_json(spec.output / names.RESULT, report.result(step, found, str(device)) | more)
        checkpoint.unlink(missing_ok=True)


def make_optimizer(spec: TrainingSpec, model: RankerModel) -> torch.optim.Optimizer:
    """AdamW over what is trained."""
    trained = [(name, value) for name, value in model.named_parameters() if value.requires_grad]
    encoder = [value for name, value in trained if name.startswith("encoder.")]
    head = [value for name, value in trained if not name.startswith("encoder.")]
    optimizer = torch.optim.AdamW(
        [
            {"params": encoder, "peak": spec.training.learning_rate},
            {"params": head, "peak": spec.training.head_learning_rate},
        ],
        betas=BETAS,
        weight_decay=spec.training.weight_decay,
        fused=True,  # one pass over the weights instead of a dozen
    )
    begin_optimizer(model, optimizer)
    return optimizer


def backward(
    spec: TrainingSpec,
    model: RankerModel,
    batch: Batch,
    device: Device,
    share: float,
    adversary: Adversary | None,
    adapter: TrainedAdapter | None,
    teacher: Teacher | None = None,
    sampler: TitleSampler | None = None,
) -> Tensor:
    """Add `share` of the batch's gradient, and as much of its adversarial one, to what is there; gives its loss."""

    def once() -> Tensor:
        with device.autocast():
            logits, asked = sampler.logits(model, batch) if sampler else (model(*batch.inputs), batch)
        loss = weighted_mean(*losses(spec.kind, spec.training.loss, logits.float(), asked))
        if teacher:
            loss = teacher.blended(loss, logits.float(), batch)
        (share * (loss + (adapter.penalty() if adapter else 0.0))).backward()
        return loss.detach()

    loss = once()
    if adversary:
        with adversary.attacking(batch.attention_mask):
            once()
    return loss


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


def main() -> None:
    """Read the spec, train, and turn our errors into `.error.json` and their exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--spec", type=Path, required=True, help="The job, as written by `reshelve train`.")
    arguments = parser.parse_args()
    os.umask(OTHERS)
    configure_logs()
    die_with_parent()
    if launcher := os.environ.get("RESHELVE_LAUNCHER"):
        end_with(int(launcher))  # two writers of one checkpoint there must not be
    if threads := os.environ.get("OMP_NUM_THREADS"):
        torch.set_num_threads(int(threads))
    spec = TrainingSpec.model_validate_json(arguments.spec.read_text())
    with (spec.output / names.LOCK).open("w") as alive:
        fcntl.flock(alive, fcntl.LOCK_SH)  # the next attempt waits until every worker of this one is gone
        try:
            prefer_settings()
            hvd.init()
            train(spec)
            hvd.shutdown()
        except Exception as error:
            told = error if isinstance(error, ReshelveError) else of_the_disk(error)
            if told is None:
                raise
            words = {"headline": told.headline, "detail": told.detail, "exit_code": told.exit_code}
            with contextlib.suppress(OSError):  # a full disk may not take this either
                write_json(spec.output / names.ERROR, words)
            sys.exit(told.exit_code)


if __name__ == "__main__":
    main()
