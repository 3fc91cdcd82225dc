#!/usr/bin/env bash
# Builds Horovod's wheel with CUDA and NCCL (and Gloo) for the Python given, for
# machines with NVIDIA GPUs. That Python must have TensorFlow's GPU wheel, NCCL
# and what Horovod's set-up needs:
#
#   pip install "tensorflow[and-cuda]==2.21.0" "cmake<4" setuptools wheel \
#       packaging cffi cloudpickle psutil pyyaml
#   CUDA_HOME=/usr/local/cuda-12.5 tools/build_horovod_gpu.sh .venv/bin/python
#   .venv/bin/python -m pip install --no-deps build/horovod_gpu/horovod-*.whl
#
# nvcc comes from CUDA_HOME, or from the path: PyPI's nvidia-cuda-nvcc-cu12 lacks
# it. Its major version must be that of TensorFlow's CUDA, and NCCL must be
# PyPI's nvidia-nccl-cu<major>, the copy that TensorFlow loads. No GPU is needed
# to build. TF_TERNGRAD_BUILD_JOBS compilations run at once (default: 1 for each
# core; each takes almost 2 GiB).
#
# Beside the three paths and the patches of build_horovod.sh it takes
# tools/horovod_gpu.patch.
set -euo pipefail
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
# shellcheck source=tools/_common.sh
source "${root}/tools/_common.sh"
step_started=${SECONDS}

python="${1:?the Python to build for, such as .venv/bin/python}"
requirement="${root}/requirements/horovod.txt"
out="${root}/build/horovod_gpu"

# --- what there is ------------------------------------------------------------

# Prints "2.21.0 <include folder> 12.5.1 60,70,80,89,90", as TensorFlow was built.
describe_tensorflow() {
  "${python}" -c '
import re
import tensorflow as tf
build = tf.sysconfig.get_build_info()
capabilities = build.get("cuda_compute_capabilities", [])
print(
    tf.__version__,
    tf.sysconfig.get_include(),
    build.get("cuda_version", "none"),
    ",".join(re.sub(r"\D", "", each) for each in capabilities))' 2>/dev/null
}

description="$(describe_tensorflow)" ||
  fail "TensorFlow does not import in ${python}. Install tensorflow[and-cuda]==2.21.0 there."
read -r tensorflow include cuda capabilities <<<"${description}"
[[ "${cuda}" != none ]] ||
  fail "TensorFlow ${tensorflow} in ${python} is built without CUDA. Install tensorflow[and-cuda]==${tensorflow}, or build for CPUs with tools/build_horovod.sh."
major="${cuda%%.*}"

nvcc="${CUDA_HOME:+${CUDA_HOME}/bin/nvcc}"
nvcc="${nvcc:-$(command -v nvcc || true)}"
[[ -n "${nvcc}" ]] ||
  fail "No nvcc. Install CUDA ${major} (TensorFlow ${tensorflow} in ${python} is built with CUDA ${cuda}) and set CUDA_HOME to its folder."
nvcc_version="$("${nvcc}" --version 2>/dev/null |
  sed -n 's/.*release \([0-9.]*\),.*/\1/p' || true)"
[[ -n "${nvcc_version}" ]] || fail "${nvcc} does not run."
[[ "${nvcc_version%%.*}" == "${major}" ]] ||
  fail "CUDA does not match: nvcc is ${nvcc_version} (${nvcc}), TensorFlow ${tensorflow} in ${python} is built with CUDA ${cuda}. Both must be CUDA ${major}: set CUDA_HOME to the folder of a CUDA ${major} toolkit."
# The toolkit's folder, behind links and wrappers of a distribution.
cuda_home="${CUDA_HOME:-$("${nvcc}" --dryrun -x cu /dev/null 2>&1 |
  sed -n 's/^#\$ TOP=//p')}"
cuda_home="$(cd "${cuda_home:-$(dirname "${nvcc}")/..}" && pwd)"

# Prints "2.27.7 <folder>"; fails if there is none, or one of another CUDA.
describe_nccl() {
  "${python}" - "${major}" <<'PYTHON' 2>/dev/null
import importlib.metadata
import pathlib
import sys

distribution = importlib.metadata.distribution(f"nvidia-nccl-cu{sys.argv[1]}")
print(distribution.version, pathlib.Path(distribution.locate_file("nvidia/nccl")))
PYTHON
}
nccl="$(describe_nccl)" ||
  fail "NCCL for CUDA ${major} is not in ${python}. Install nvidia-nccl-cu${major}, which tensorflow[and-cuda] asks for."
read -r nccl_version nccl_home <<<"${nccl}"

# --- build --------------------------------------------------------------------

work="$(mktemp -d "${TMPDIR:-/tmp}/horovod_gpu.XXXXXX")"
trap 'rm -rf "${work}"' EXIT
moved="${work}/include/tensorflow/compiler/xla/client"
mkdir -p "${moved}" "${work}/source" "${work}/nccl" "${out}"
echo '#include "xla/hlo/builder/xla_builder.h"' >"${moved}/xla_builder.h"
# The wheel of NCCL has libnccl.so.2 only; a linker looks for libnccl.so.
ln -s "${nccl_home}/lib/libnccl.so.2" "${work}/nccl/libnccl.so"

log="${root}/build/logs/horovod_gpu.log"
jobs="${TF_TERNGRAD_BUILD_JOBS:-$(nproc)}"
echo "TensorFlow ${tensorflow} (CUDA ${cuda}, compute capabilities ${capabilities}), nvcc ${nvcc_version}, NCCL ${nccl_version}"
echo "compiling with ${jobs} jobs; log: ${log}"
# Settings of the caller's that would build something else.
unset "${!HOROVOD_@}" MFLAGS MAKELEVEL
export MAKEFLAGS="-j${jobs}"
export PATH="${cuda_home}/bin:$(cd "$(dirname "${python}")" && pwd):${PATH}"
export CPLUS_INCLUDE_PATH="${include}/external/highwayhash:${include}/external/farmhash_archive/src:${work}/include${CPLUS_INCLUDE_PATH:+:${CPLUS_INCLUDE_PATH}}"
export HOROVOD_WITH_TENSORFLOW=1 HOROVOD_WITHOUT_PYTORCH=1
export HOROVOD_WITHOUT_MXNET=1 HOROVOD_WITHOUT_MPI=1
export HOROVOD_WITH_GLOO=1 HOROVOD_CPU_OPERATIONS=GLOO
export HOROVOD_GPU=CUDA HOROVOD_GPU_OPERATIONS=NCCL
export HOROVOD_CUDA_HOME="${cuda_home}" HOROVOD_NCCL_LINK=SHARED
export HOROVOD_NCCL_INCLUDE="${nccl_home}/include"
export HOROVOD_NCCL_LIB="${work}/nccl"
export HOROVOD_BUILD_CUDA_CC_LIST="${TF_TERNGRAD_CUDA_CAPABILITIES:-${capabilities}}"
# From horovod/tensorflow/mpi_lib.so to TensorFlow's own copy of NCCL.
export LDFLAGS="${LDFLAGS:-} -Wl,-rpath,'\$ORIGIN/../../nvidia/nccl/lib'"
build() {
  "${python}" -m pip download --no-deps --no-build-isolation \
    --no-binary horovod --dest "${work}" --requirement "${requirement}" &&
    tar -xzf "${work}"/horovod-*.tar.gz -C "${work}/source" \
      --strip-components=1 &&
    cat "${root}"/tools/{gloo,process_sets,horovod_gpu}.patch |
    patch -p1 -d "${work}/source" &&
    "${python}" -m pip wheel --verbose --no-deps --no-build-isolation \
      --no-cache-dir --wheel-dir "${out}" "${work}/source"
}
run_logged "${log}" build
compgen -G "${out}/horovod-*.whl"
