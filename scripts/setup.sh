#!/usr/bin/env bash
# Make the environment: .venv with every locked package, Horovod's wheel, and this project.
#
#   scripts/setup.sh
#
# Safe to stop and to run again at any time: what is there is kept, and a stamp of the lock files makes
# it return at once when nothing changed. Every file that is fetched has to have a digest of locks/. Settings:
#   RESHELVE_PYTHON   the Python 3.11 to use (default: python3.11)
#   RESHELVE_WHEELS   where the built Horovod wheel is kept (default: .wheels); share it between clones
#   RESHELVE_HOROVOD  nccl or cpu: for GPUs or not, where that cannot be seen (while an image is built)
set -euo pipefail
cd "$(dirname "$0")/.."

venv=.venv
wheels=${RESHELVE_WHEELS:-.wheels}
stamp="$venv/.reshelve-setup"
needed_gb=8

say() { printf 'setup: %4ds  %s\n' "$SECONDS" "$*"; }
fail() { printf 'setup: %s\n' "$*" >&2; exit 78; }

digest=$(sha256sum locks/*.lock pyproject.toml scripts/build_horovod.sh | sha256sum | cut -c1-16)
key="$digest $PWD"
[ -f "$stamp" ] && [ "$(cat "$stamp")" = "$key" ] && exit 0

# Two set-ups at once would write into one environment.
exec 9>.setup.lock
flock 9
[ -f "$stamp" ] && [ "$(cat "$stamp")" = "$key" ] && exit 0

[ "$(uname -s)" = Linux ] || fail "Linux is needed (this is $(uname -s)); docker-compose.yaml runs elsewhere"
python=$(command -v "${RESHELVE_PYTHON:-python3.11}") ||
  fail "Python 3.11 is missing: install it (Debian: apt-get install python3.11 python3.11-venv), or set RESHELVE_PYTHON"
"$python" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' ||
  fail "$python is $("$python" --version 2>&1), and Python 3.11 is needed: set RESHELVE_PYTHON"
"$python" -c 'import ensurepip, venv' 2>/dev/null ||
  fail "$python has no venv module: install it (Debian: apt-get install python3.11-venv)"
"$python" -c 'import os, sysconfig, sys; sys.exit(not os.path.exists(os.path.join(sysconfig.get_paths()["include"], "Python.h")))' ||
  fail "Python's header files are missing: install them (Debian: apt-get install python3.11-dev)"
"$python" -c 'import os; os.pidfd_open(os.getpid())' 2>/dev/null ||
  fail "this kernel ($(uname -r)) has no pidfds, which end a night's processes with it: Linux 5.3 or newer is needed"
command -v g++ >/dev/null || fail "a C++ compiler is missing: install g++ (Debian: apt-get install g++); Horovod is built from source"
command -v make >/dev/null || fail "make is missing: install it (Debian: apt-get install make)"
free_gb=$(($(df -Pk . | awk 'NR==2 {print $4}') / 1024 / 1024))
if [ ! -x "$venv/bin/airflow" ] && [ "$free_gb" -lt "$needed_gb" ]; then
  fail "the disk is full: $free_gb GB are free in $PWD, and $needed_gb GB are needed"
fi

if ! { [ -x "$venv/bin/python" ] && "$venv/bin/python" -m pip --version >/dev/null 2>&1; }; then
  say "making $venv with $("$python" --version 2>&1)"
  "$python" -m venv --clear "$venv"
fi

started=""
trap 'for group in $started; do kill -- "-$group" 2>/dev/null || true; done' EXIT

begin() { # a long step, in a process group of its own; its output goes to a log
  local log=$1
  shift
  setsid "$@" >"$log" 2>&1 &
  pid=$!
  started="$started $pid"
}

finish() { # wait for a step; a line every 20 s says that it goes on
  local title=$1 log=$2 pid=$3 began=$SECONDS
  say "$title"
  while kill -0 "$pid" 2>/dev/null; do
    sleep 1
    if (((SECONDS - began) % 20 == 0)); then say "  … $title: $(grep -v WARNING "$log" | tail -n 1 | cut -c1-90)"; fi
  done
  started=${started/ $pid/}
  if ! wait "$pid"; then
    if [ -n "${allowed:-}" ] && grep -q "$allowed" "$log"; then return 1; fi
    tail -n 30 "$log" >&2
    fail "$title: failed (the end of $log is above)"
  fi
}

run() {
  local title=$1 log=$2 pid
  shift 2
  begin "$log" "$@"
  finish "$title" "$log" "$pid"
}

# A set-up that was killed may have left a package without its list of files, which pip takes for whole.
"$venv/bin/python" - <<'PY'
import pathlib, shutil, sysconfig
site = pathlib.Path(sysconfig.get_paths()["purelib"])
for left in [*site.glob("~*"), *(info for info in site.glob("*.dist-info") if not (info / "RECORD").is_file())]:
    shutil.rmtree(left)
PY
# Most modules are never imported: what is compiled at its first import need not be compiled here, by one processor.
# The locks are whole, so that pip has nothing to resolve; `pip check` below says whether they are.
install=("$venv/bin/python" -m pip install --progress-bar off --no-compile --no-deps --require-hashes --only-binary :all:)
# Horovod is compiled for torch and needs nothing else: that takes the processors, the other packages network and disk.
# The CPU build is asked for by its name: by digests alone pip would rather have the CUDA build, several GB of it.
torch=torch-cpu
if [ "${RESHELVE_HOROVOD:-}" = nccl ] || { [ -z "${RESHELVE_HOROVOD:-}" ] && [ -e /dev/nvidiactl ]; }; then torch=torch-cuda; fi
if [ $torch = torch-cpu ] &&
  ! allowed="No matching distribution found for torch==" run "installing torch's CPU build" "$venv/setup-torch.log" "${install[@]}" -r locks/torch-cpu.lock; then
  say "pip knows no place that has torch's CPU build (README: If pip fetches a torch with CUDA)"
  torch=torch-cuda
fi
if [ $torch = torch-cuda ]; then
  run "installing torch as PyPI has it" "$venv/setup-torch.log" "${install[@]}" -r locks/torch-cuda.lock
fi
begin "$venv/setup-horovod.log" scripts/build_horovod.sh "$venv/bin/python" "$wheels"
horovod=$pid
run "installing the locked packages (about 4 minutes)" "$venv/setup-packages.log" "${install[@]}" -r locks/packages.lock
finish "Horovod: built once, about 5 minutes beside the packages, kept in $wheels" "$venv/setup-horovod.log" "$horovod"
torch=$("$venv/bin/python" -c 'import importlib.metadata as m; print(m.version("torch"))')
wheel=$(ls -t "$wheels"/horovod-*-torch"$torch"-*/horovod-*.whl | head -n 1)
# The same version may have been built for another torch: always the one that fits this torch. It was built here, from a
# source whose digest was checked, so no lock can know its own.
run "installing $(basename "$wheel") and this project" "$venv/setup-project.log" \
  "$venv/bin/python" -m pip install --progress-bar off --no-index --no-deps --force-reinstall "$wheel"
"$venv/bin/python" -m pip install --quiet --no-index --no-deps --no-build-isolation -e . ||
  fail "this project could not be installed"
"$venv/bin/python" -m pip check >/dev/null || fail "the packages do not fit together: $("$venv/bin/python" -m pip check | head -n 3)"

echo "$key" >"$stamp"
say "done"
