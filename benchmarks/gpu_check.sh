#!/usr/bin/env bash
# Check that training is right on this host's GPU, and how fast it is beside Hugging Face's Trainer; at most eight minutes.
#
#   benchmarks/gpu_check.sh [--wheels DIR] [--device cuda|cpu] [--only check|speed] [--answers DIR] [--seconds 480] [--tiny]
#
# PYTHON (python3) needs torch with CUDA, transformers and peft. What else our training code imports may be carried to a host
# without a network: --wheels DIR is installed into a throw-away folder, never into PYTHON's own packages. Horovod is built
# there with NCCL, by scripts/build_horovod.sh, from DIR/build (its source release and the build tools:
# cmake<4, setuptools<81, wheel, packaging), unless PYTHON has it. --device cpu tries the script without a GPU.
set -euo pipefail

usage() { sed -n '2,/^set -/{/^set -/d;s/^# \{0,1\}//;p}' "$0"; }
fail() { printf 'gpu_check: %s\n' "$*" >&2; exit 78; }

wheels='' device=cuda only='' answers='' tiny='' seconds=480
while [ $# -gt 0 ]; do
  case $1 in
    --wheels | --device | --only | --answers | --seconds)
      [ $# -gt 1 ] || fail "$1 needs a value"
      declare "${1#--}=$2"
      shift 2 ;;
    --tiny) tiny=1 && shift ;;
    -h | --help) usage && exit 0 ;;
    *) usage >&2 && fail "$1 is no option" ;;
  esac
done
case $device in cuda | cpu) ;; *) fail "--device $device: expected cuda or cpu" ;; esac
case $only in '' | check | speed) ;; *) fail "--only $only: expected check or speed" ;; esac
[[ $seconds =~ ^[0-9]+$ ]] || fail "--seconds $seconds: expected a whole number"
[ -z "$wheels" ] || [ -d "$wheels" ] || fail "--wheels $wheels: no such folder"

began=$SECONDS
here=$(realpath "$(dirname "$0")/..")
python=${PYTHON:-python3}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
answers=${answers:-$work}
mkdir -p "$answers"
export PYTHONPATH="$work/site:$here/include" PYTHONUNBUFFERED=1 TMPDIR="$work"
[ "$device" = cuda ] || export CUDA_VISIBLE_DEVICES=''

"$python" - "$device" <<'PY' || fail "$python cannot do what was asked (above)"
import sys, torch, transformers
print(f"python {sys.version.split()[0]}, torch {torch.__version__}, CUDA {torch.version.cuda}, transformers {transformers.__version__}")
if sys.argv[1] == "cuda":
    print(f"{torch.cuda.get_device_name(0)}, NCCL {'.'.join(map(str, torch.cuda.nccl.version()))}")
PY
if [ -n "$wheels" ]; then
  "$python" -m pip install --quiet --no-index --no-deps --no-compile --no-cache-dir --target "$work/site" "$wheels"/*.whl
fi

# Horovod: the one that is there, else built from the source release that was carried.
has_horovod() { "$python" -c 'from reshelve.training.installed import need_horovod; need_horovod()' 2>/dev/null; }
if ! has_horovod; then
  [ "$device" = cuda ] && kind=nccl || kind=cpu
  if [ "$kind" = nccl ]; then # kernels for the GPU that is here: the others would take longer than all the rest
    HOROVOD_BUILD_CUDA_CC_LIST=$("$python" -c 'import torch; print("%d%d" % torch.cuda.get_device_capability())')
    export HOROVOD_BUILD_CUDA_CC_LIST
  fi
  [ -z "$wheels" ] || export PIP_NO_INDEX=1 PIP_FIND_LINKS="$wheels/build"
  RESHELVE_HOROVOD=$kind "$here/scripts/build_horovod.sh" "$("$python" -c 'import sys; print(sys.executable)')" "$answers/horovod"
  "$python" -m pip install --quiet --no-index --no-deps --no-cache-dir --target "$work/site" "$answers"/horovod/*/*.whl
fi
has_horovod || fail "Horovod was built, and cannot be loaded"
echo "ready after $((SECONDS - began)) seconds: $("$python" -c 'import horovod.torch as h, horovod; print("Horovod", horovod.__version__, "NCCL", h.nccl_built())')"

code=0
if [ "$only" != speed ]; then
  "$python" "$here/benchmarks/gpu_check.py" --device "$device" --answer "$answers/check.json" ${tiny:+--examples 300} \
    2>"$answers/check.log" || code=1
  [ $code = 0 ] || { tail -n 30 "$answers/check.log" >&2; echo "gpu_check: a check failed" >&2; }
  echo "checked after $((SECONDS - began)) seconds"
fi
if [ "$only" != check ]; then
  left=$((seconds - 60 - (SECONDS - began))) # less what the last contenders still take
  "$python" "$here/benchmarks/gpu_speed.py" --seconds "$left" ${tiny:+--sizes tiny --batches 32} 2>"$answers/speed.log" |
    tee "$answers/speed.txt" || { tail -n 30 "$answers/speed.log" >&2; code=1; }
fi
echo "done after $((SECONDS - began)) seconds"
exit $code
