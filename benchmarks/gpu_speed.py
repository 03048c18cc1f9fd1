"""Samples per second of our worker beside Hugging Face's Trainer, on this host's GPU, for three sizes of encoder.

    benchmarks/gpu_check.sh …        runs it, with all that it needs

Pairs of texts → one logit. Ours is the real worker under the real launcher (one Horovod process), as the train stage starts
it. Trainer has its best settings: bf16, fused AdamW, batches of like lengths, no evaluation, no saving; as it comes, and
with four loading processes and no dropout, which ours does not have either. Each run is a process of its own, and what
counts is its second pass over the examples, in wall time of steps, the device waited for: a process that meets a length for
the first time is several times slower (the first pass is given beside it). For ours that is a job of two passes less one of one.
The fastest Trainer is the one compared. What does not fit into `--seconds` is left out and said. Prints a table, then one
JSON line.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from gpu_data import SHAPES, spec, write_base, write_examples

from reshelve.processes import guarded

# Batch size → steps for each size of encoder: a few seconds on a current GPU.
STEPS = {
    32: {"tiny": 10, "MiniLM": 200, "110M": 150, "335M": 80},
    256: {"tiny": 2, "MiniLM": 80, "110M": 60, "335M": 30},
}
TRAINERS: dict[str, dict[str, Any]] = {
    "Trainer": {},
    "Trainer, tuned": {"loaders": 4, "dropout": False},
}
OURS = "reshelve"
LONGEST = 120.0  # seconds for one contender's process


def reshelve(base: Path, examples: Path, batch: int) -> dict[str, Any]:
    """Our worker, started as the train stage starts it: one pass, then a job of two."""
    from reshelve.training.launch import run_job, threads_each

    found = []
    for passes in (1, 2):
        with tempfile.TemporaryDirectory() as output:
            # No first validation and none on the way: steps alone.
            training = {"batch_size": batch, "epochs": passes}
            one = spec(base, examples, Path(output), training=training, save=False)
            found.append(run_job(one, threads=threads_each(1), seconds=LONGEST / 2))
    first, both = found
    return {
        "samples": both["examples"] - first["examples"],
        "seconds": both["step_seconds"] - first["step_seconds"],
        "first_seconds": first["step_seconds"],
        "device": both["device"],
    }


def trainer(base: Path, examples: Path, batch: int, dropout: bool = True, loaders: int = 0) -> dict[str, Any]:
    """Hugging Face's Trainer over the same examples."""
    import pyarrow.parquet as pq
    import torch
    from transformers import (
        BertForSequenceClassification,
        DataCollatorWithPadding,
        PreTrainedTokenizerFast,
        Trainer,
        TrainerCallback,
        TrainingArguments,
    )

    from reshelve.training.device import choose_device, wait_for_device

    device = choose_device(0)
    cuda = device.torch_device.type == "cuda"
    columns = pq.read_table(examples / "train.parquet", columns=["input_ids", "token_type_ids", "label"])
    rows = [
        {"input_ids": r["input_ids"], "token_type_ids": r["token_type_ids"], "labels": r["label"],
         "attention_mask": [1] * len(r["input_ids"])}
        for r in columns.to_pylist()
    ]  # fmt: skip
    options: dict[str, Any] = {} if dropout else {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}  # fmt: skip
    model = BertForSequenceClassification.from_pretrained(base, num_labels=1, attn_implementation="sdpa", **options)  # fmt: skip
    loss = torch.nn.BCEWithLogitsLoss()

    times: list[float] = []  # when training began, and when each pass ended

    class Clock(TrainerCallback):
        def on_train_begin(self, *_: Any, **__: Any) -> None:
            wait_for_device()
            times.append(time.monotonic())

        def on_epoch_end(self, *_: Any, **__: Any) -> None:
            wait_for_device()
            times.append(time.monotonic())

    with tempfile.TemporaryDirectory() as output:
        arguments = TrainingArguments(
            output, per_device_train_batch_size=batch, num_train_epochs=2, learning_rate=1e-4,
            train_sampling_strategy="group_by_length", optim="adamw_torch_fused", bf16=device.bf16, use_cpu=not cuda,
            save_strategy="no", eval_strategy="no", logging_strategy="no", report_to="none", disable_tqdm=True,
            weight_decay=0.01, warmup_steps=3, adam_beta2=0.98, dataloader_drop_last=True, dataloader_num_workers=loaders,
        )  # fmt: skip
        tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(base / "tokenizer.json"), pad_token="[PAD]")
        Trainer(
            model=model, args=arguments, train_dataset=rows, callbacks=[Clock()],
            data_collator=DataCollatorWithPadding(tokenizer),
            compute_loss_func=lambda outputs, labels, **_: loss(outputs.logits[:, 0].float(), labels.float()),
        ).train()  # fmt: skip
    begun, first, second = times
    return {"samples": len(rows) // batch * batch, "seconds": second - first, "first_seconds": first - begun}


def contend(name: str, base: Path, examples: Path, batch: int) -> dict[str, Any]:
    """A contender's run in a process of its own, or what it said where it failed."""
    command = [sys.executable, __file__, "--contender", name, "--base", str(base)]
    command += ["--examples", str(examples), "--batch", str(batch)]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    try:
        done = subprocess.run(
            guarded(command), capture_output=True, text=True, env=environment, check=False, timeout=LONGEST
        )
    except subprocess.TimeoutExpired:
        return {"failed": f"not done after {LONGEST:.0f} seconds"}
    if done.returncode:
        print(f"{name} failed ({done.returncode}):\n{done.stderr[-2000:]}", file=sys.stderr)
        return {"failed": f"exit code {done.returncode}"}
    return dict(json.loads(done.stdout.strip().splitlines()[-1]))


def row(size: str, batch: int, weights: int, found: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """One line of the table."""
    done = {name: one for name, one in found.items() if "failed" not in one}
    rates = {name: round(one["samples"] / one["seconds"], 1) for name, one in done.items()}
    others = [rate for name, rate in rates.items() if name != OURS]
    return {
        "encoder": size,
        "weights": weights,
        "batch": batch,
        "samples_per_second": rates,
        "in_the_first_pass": {n: round(one["samples"] / one["first_seconds"], 1) for n, one in done.items()},
        "beside_fastest_trainer": round(rates[OURS] / max(others), 3) if OURS in rates and others else None,
        "device": found[OURS].get("device"),
        "failed": {name: one["failed"] for name, one in found.items() if "failed" in one},
    }


def report(rows: list[dict[str, Any]], left_out: list[str]) -> None:
    """The table and the JSON line."""
    names = [OURS, *TRAINERS]
    print(f"{'samples per second':22}" + "".join(f"{name:>21}" for name in names) + f"{'ours / fastest':>16}")
    for one in rows:
        rates = one["samples_per_second"]
        cells = "".join(f"{rates[name]:21.0f}" if name in rates else f"{'-':>21}" for name in names)
        faster = one["beside_fastest_trainer"]
        print(f"{one['encoder']:>8}, batches of {one['batch']:<3}" + cells + (f"{faster:16.2f}" if faster else f"{'-':>16}"))  # fmt: skip
    if left_out:
        print(f"left out for want of time: {'; '.join(left_out)}")
    print(json.dumps({"rows": rows, "left_out": left_out, "versions": versions()}))


def versions() -> dict[str, Any]:
    """What was measured with."""
    import platform

    import torch
    import transformers

    device = torch.cuda.get_device_name(0) if torch.cuda.is_available() else platform.machine()
    return {"device": device, "torch": torch.__version__, "cuda": torch.version.cuda, "transformers": transformers.__version__,
            "python": platform.python_version(), "date": time.strftime("%Y-%m-%d")}  # fmt: skip


def main() -> None:
    """Run the contenders size by size, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    parser.add_argument("--sizes", nargs="+", choices=SHAPES, default=["MiniLM", "110M", "335M"])
    parser.add_argument("--batches", nargs="+", type=int, choices=STEPS, default=list(STEPS))
    parser.add_argument("--seconds", type=float, default=300, help="No contender starts later.")
    parser.add_argument("--contender", choices=[OURS, *TRAINERS], help=argparse.SUPPRESS)
    for name in ("--base", "--examples"):
        parser.add_argument(name, type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--batch", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.contender:
        asked = (arguments.base, arguments.examples, arguments.batch)
        if arguments.contender == OURS:
            print(json.dumps(reshelve(*asked)))
        else:
            print(json.dumps(trainer(*asked, **TRAINERS[arguments.contender])))
        return
    deadline = time.monotonic() + arguments.seconds
    rows, left_out = [], []
    with tempfile.TemporaryDirectory() as temporary:
        place = Path(temporary)
        weights: dict[str, int] = {}
        for batch in arguments.batches:
            for size in arguments.sizes:
                if time.monotonic() > deadline:
                    left_out.append(f"{size}, batches of {batch}")
                    continue
                if size not in weights:
                    weights[size] = write_base(place / size, size)
                count = STEPS[batch][size] * batch
                examples = write_examples(place / f"examples-{size}-{batch}", "pair", count, 20)
                found = {name: contend(name, place / size, examples, batch) for name in (OURS, *TRAINERS)}
                rows.append(row(size, batch, weights[size], found))
                print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
    report(rows, left_out)


if __name__ == "__main__":
    main()
