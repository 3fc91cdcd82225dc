#!/usr/bin/env bash
# Builds Horovod's wheel (TensorFlow, CPU, Gloo) for the Python given, which
# must have TensorFlow and requirements/ installed:
#
#   tools/build_horovod.sh .venv/bin/python
#
# Prints the path of the wheel; what it does goes to stderr. The wheel stays in
# ${TF_TERNGRAD_CACHE:-${XDG_CACHE_HOME:-~/.cache}/tf_terngrad}/horovod, under
# the versions it was built for, so that only the first set-up pays for it.
#
# Horovod 0.28.1 is older than TensorFlow 2.21. Unpatched it lacks three paths:
#   - the headers of highwayhash and farmhash, which TensorFlow ships under
#     external/ but no longer beside its own;
#   - tensorflow/compiler/xla/client/xla_builder.h, which has moved; a header
#     of one line forwards to where it is now.
# And tools/gloo.patch lets two workers send to each other at the same time.
set -euo pipefail
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
# shellcheck source=tools/_common.sh
source "${root}/tools/_common.sh"
step_started=${SECONDS}
exec 3>&1 1>&2

python="${1:?the Python to build for, such as .venv/bin/python}"
requirement="${root}/requirements/horovod.txt"
patch="${root}/tools/gloo.patch"

version="$(sed -n 's/^horovod==\([^ ]*\).*/\1/p' "${requirement}")"
tensorflow="$("${python}" -c '
import tensorflow as tf
print(tf.__version__, tf.sysconfig.get_include())' 2>/dev/null)" ||
  fail "TensorFlow does not import in ${python}. Run tools/setup.sh."
include="${tensorflow#* }"
tensorflow="${tensorflow%% *}"
python_tag="$("${python}" -c '
import sys; print("cp%d%d" % sys.version_info[:2])')"
libc="$(getconf GNU_LIBC_VERSION | tr ' ' '-')"
recipe="$(cat "${BASH_SOURCE[0]}" "${requirement}" "${patch}" | sha256sum | cut -c1-8)"
key="${version}-tf${tensorflow}-${python_tag}-$(uname -m)-${libc}-${recipe}"

cache="${TF_TERNGRAD_CACHE:-${XDG_CACHE_HOME:-${HOME:?}/.cache}/tf_terngrad}"
folder="${cache}/horovod/${key}"
wheel="$(compgen -G "${folder}/horovod-*.whl" || true)"
if [[ -n "${wheel}" ]]; then
  echo "      found in the cache"
  echo "${wheel}" >&3
  exit
fi

mkdir -p "${cache}/horovod" 2>/dev/null || true
[[ -w "${cache}/horovod" ]] ||
  fail "Cannot write to ${cache}/horovod. Set TF_TERNGRAD_CACHE to a folder you can write to."
# Inside the cache: renaming a folder is atomic only on one file system.
work="$(mktemp -d "${cache}/horovod/.building.XXXXXX")"
trap 'rm -rf "${work}"' EXIT
moved="${work}/include/tensorflow/compiler/xla/client"
mkdir -p "${moved}" "${work}/wheel" "${work}/source"
echo '#include "xla/hlo/builder/xla_builder.h"' >"${moved}/xla_builder.h"

# One compilation takes almost 2 GiB.
memory="$(awk '/MemAvailable/ {print int($2 / 2097152)}' /proc/meminfo)"
jobs="$(nproc)"
((jobs <= memory)) || jobs="${memory}"
((jobs >= 1)) || jobs=1
jobs="${TF_TERNGRAD_BUILD_JOBS:-${jobs}}"

log="${root}/build/logs/horovod.log"
echo "      compiling with ${jobs} jobs: about 4 minutes on 2 cores; log: ${log}"
# Settings of the caller's that would build something else.
unset "${!HOROVOD_@}" MFLAGS MAKELEVEL
export MAKEFLAGS="-j${jobs}"
PATH="$(cd "$(dirname "${python}")" && pwd):${PATH}"
export PATH
export CPLUS_INCLUDE_PATH="${include}/external/highwayhash:${include}/external/farmhash_archive/src:${work}/include${CPLUS_INCLUDE_PATH:+:${CPLUS_INCLUDE_PATH}}"
export HOROVOD_WITH_TENSORFLOW=1 HOROVOD_WITHOUT_PYTORCH=1
export HOROVOD_WITHOUT_MXNET=1 HOROVOD_WITHOUT_MPI=1
export HOROVOD_WITH_GLOO=1 HOROVOD_CPU_OPERATIONS=GLOO
build() {
  "${python}" -m pip download --no-deps --no-build-isolation \
    --no-binary horovod --dest "${work}" --requirement "${requirement}" &&
    tar -xzf "${work}"/horovod-*.tar.gz -C "${work}/source" \
      --strip-components=1 &&
    patch -p1 -d "${work}/source" -i "${patch}" &&
    "${python}" -m pip wheel --verbose --no-deps --no-build-isolation \
      --no-cache-dir --wheel-dir "${work}/wheel" "${work}/source"
}
run_logged "${log}" build

# Another set-up may have finished first; its wheel is as good.
mv -T "${work}/wheel" "${folder}" 2>/dev/null || [[ -d "${folder}" ]] ||
  fail "Cannot write ${folder}."
compgen -G "${folder}/horovod-*.whl" >&3
