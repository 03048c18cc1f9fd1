#!/usr/bin/env bash
# Build the Horovod wheel from its source release, once, and keep it.
#
#   scripts/build_horovod.sh PYTHON WHEEL_DIR
#
# Horovod's last release (0.28.1, June 2023) asks for C++14, and C++11 of nvcc, while current
# PyTorch headers and CUDA need C++17; the lines that say so are changed here.
# On a host with NVIDIA's compiler and a GPU the wheel gets NCCL, elsewhere Gloo.
set -euo pipefail

python=${1:?usage: build_horovod.sh PYTHON WHEEL_DIR}
wheel_dir=${2:?usage: build_horovod.sh PYTHON WHEEL_DIR}
version=0.28.1

fail() { printf 'build_horovod: %s\n' "$*" >&2; exit 78; }
command -v g++ >/dev/null || fail "a C++ compiler is missing: install g++ (Debian: apt-get install g++)"
command -v make >/dev/null || fail "make is missing: install it (Debian: apt-get install make)"
python=$(realpath -s "$python")

torch_version=$("$python" -c 'import importlib.metadata as m; print(m.version("torch"))')
# RESHELVE_HOROVOD=nccl or cpu decides where no GPU can be seen (an image is built without one).
gpu=${RESHELVE_HOROVOD:-}
if [ -z "$gpu" ]; then
  gpu=cpu
  if command -v nvcc >/dev/null && "$python" -c 'import torch,sys; sys.exit(0 if torch.cuda.is_available() else 1)'; then
    gpu=nccl
  fi
fi
case $gpu in cpu | nccl) ;; *) fail "RESHELVE_HOROVOD is $gpu: expected cpu or nccl" ;; esac
# The wheel is tied to torch's ABI, so the cache key names both.
cache="$wheel_dir/horovod-$version-torch$torch_version-$gpu"
if compgen -G "$cache/horovod-*.whl" >/dev/null; then
  echo "build_horovod: $(ls "$cache"/horovod-*.whl) (cached)"
  exit 0
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$cache"
locks=$(cd "$(dirname "$0")/.." && pwd)/locks
# The build tools live in an environment of their own: Horovod needs an older
# setuptools than Airflow does.
"$python" -m venv --without-pip "$work/tools" # the caller's pip serves: Debian's Python lacks what venv installs one from
tools="$work/tools/bin/python"
pip() { "$python" -m pip --python "$tools" "$@"; }
pip install --quiet --no-deps --require-hashes --only-binary :all: -r "$locks/build.lock"
"$tools" - <<PY
import pathlib, subprocess, sys
site = pathlib.Path(subprocess.check_output(
    ["$python", "-c", "import sysconfig; print(sysconfig.get_paths()['purelib'])"], text=True).strip())
tools = pathlib.Path(sys.prefix)
target = next(tools.glob("lib/python3*/site-packages")) / "torch_from_project.pth"
target.write_text(str(site) + "\n")
PY
# pip compares the digest before it unpacks or runs anything of it.
pip download --quiet --no-deps --require-hashes --no-binary :all: --no-build-isolation -d "$work" -r "$locks/horovod.lock"
tar -xzf "$work/horovod-$version.tar.gz" -C "$work"
src="$work/horovod-$version"
sed -i 's/set(CMAKE_CXX_STANDARD 14)/set(CMAKE_CXX_STANDARD 17)/' "$src/CMakeLists.txt" "$src/horovod/torch/CMakeLists.txt"
sed -i 's/set(CMAKE_CUDA_STANDARD 11)/set(CMAKE_CUDA_STANDARD 17)/' "$src/horovod/common/ops/cuda/CMakeLists.txt"
# Without symbols for a debugger: they cost more of the build's time than of its use.
sed -i 's/REPLACE "-O2" "-O3" CMAKE_CXX_FLAGS_RELWITHDEBINFO/REPLACE "-O2 -g" "-O3" CMAKE_CXX_FLAGS_RELWITHDEBINFO/' "$src/CMakeLists.txt"
grep -q 'CMAKE_CXX_STANDARD 17' "$src/CMakeLists.txt" || fail "Horovod $version is not laid out as expected: the C++ standard was not found"

export PATH="$work/tools/bin:$PATH" HOROVOD_WITH_PYTORCH=1 HOROVOD_WITHOUT_TENSORFLOW=1 \
  HOROVOD_WITHOUT_MXNET=1 HOROVOD_WITH_GLOO=1 HOROVOD_WITHOUT_MPI=1
export MAKEFLAGS="-j$(nproc)"
# Headers that it uses and leaves to others to name; those of GCC 13 no longer do.
export CXXFLAGS="${CXXFLAGS:-} -include cstdint -include string -include stdexcept"
if [ "$gpu" = nccl ]; then
  export HOROVOD_GPU_OPERATIONS=NCCL
  # torch brings NCCL as a package of its own: Horovod takes the same, so that no process holds two.
  nccl=$("$python" -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])')/nvidia/nccl
  if [ -f "$nccl/include/nccl.h" ] && [ -z "${HOROVOD_NCCL_HOME:-}${HOROVOD_NCCL_INCLUDE:-}${HOROVOD_NCCL_LIB:-}" ]; then
    mkdir "$work/nccl"
    ln -s "$nccl/lib/libnccl.so.2" "$work/nccl/libnccl.so" # the package lacks the name that linkers look for
    export HOROVOD_NCCL_INCLUDE="$nccl/include" HOROVOD_NCCL_LIB="$work/nccl" HOROVOD_NCCL_LINK=SHARED
  fi
fi
echo "build_horovod: building $version for torch $torch_version ($gpu), about 4 minutes"
if ! pip wheel --no-index --no-deps --no-build-isolation -w "$work/wheel" "$src" >"$work/build.log" 2>&1; then
  tail -n 40 "$work/build.log" >&2
  mv "$work/build.log" "$wheel_dir/build.log"
  fail "the build failed (the last 40 lines are above, all of them in $wheel_dir/build.log)"
fi
mv "$work/wheel"/horovod-*.whl "$cache/"
echo "build_horovod: $(ls "$cache"/horovod-*.whl)"
