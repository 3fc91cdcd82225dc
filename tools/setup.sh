#!/usr/bin/env bash
# Sets up .venv for training, tests and lint; called by the Makefile.
#
#   tools/setup.sh          everything; what is up to date is skipped
#   tools/setup.sh --check  only looks for the tools that it needs
#
# PYTHON=/path/to/python3.12 picks the Python (default: the first of python3,
# python3.12, python3.11 and python3.10 that will do).
set -euo pipefail
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
cd "${root}"
# shellcheck source=tools/_common.sh
source tools/_common.sh

STEPS=5
venv="${root}/.venv"
stamps="${venv}/.setup"
logs="${root}/build/logs"

# --- 1 tools ------------------------------------------------------------------

# Prints "3.11 <base executable> <venv: 0|1> <headers: 0|1> 3.11.7", or fails
# if the program does not run: a version manager's shim may lead nowhere. The
# base executable, because python3 is .venv's own in an activated shell.
describe_python() {
  "$1" -c '
import importlib.util, os, sys, sysconfig
found = importlib.util.find_spec
print(
    "%d.%d" % sys.version_info[:2],
    getattr(sys, "_base_executable", sys.executable),
    int(bool(found("venv") and found("ensurepip"))),
    int(os.path.isfile(os.path.join(sysconfig.get_path("include"), "Python.h"))),
    "%d.%d.%d" % sys.version_info[:3],
)' 2>/dev/null
}

# Sets python, python_version and the list `missing` of "what|Debian package".
find_python() {
  local candidate description version has_venv has_headers full
  local best='' other=''
  for candidate in ${PYTHON:-python3 python3.12 python3.11 python3.10}; do
    description="$(describe_python "${candidate}")" || continue
    read -r version _ has_venv has_headers full <<<"${description}"
    case "${version}" in
      3.10 | 3.11 | 3.12) ;;
      *)
        other="${other:-${candidate} is ${full}}"
        continue
        ;;
    esac
    best="${best:-${description}}"
    if ((has_venv && has_headers)); then
      best="${description}"
      break
    fi
  done
  if [[ -z "${best}" ]]; then
    if [[ -n "${PYTHON:-}" ]]; then
      other="${other:-PYTHON=${PYTHON} does not run}"
    fi
    if [[ -z "${other}" ]]; then
      missing+=("Python 3.10-3.12|python3 python3-venv python3-dev")
    else
      missing+=("Python 3.10-3.12 (${other}; PYTHON=... picks another)|python3.12 python3.12-venv python3.12-dev")
    fi
    return
  fi
  read -r python_version python has_venv has_headers python_full <<<"${best}"
  ((has_venv)) ||
    missing+=("the venv module of Python ${python_version}|python${python_version}-venv")
  ((has_headers)) ||
    missing+=("Python.h of Python ${python_version}|python${python_version}-dev")
}

# Names everything that is missing in one line, with the command that
# installs it.
check_tools() {
  local missing=() entry names='' packages='' sudo=''
  find_python
  compiler="$(command -v "${CXX:-g++}" || true)"
  [[ -n "${compiler}" ]] || missing+=("a C++ compiler|g++")
  command -v make >/dev/null || missing+=("make|make")
  command -v patch >/dev/null || missing+=("patch|patch")
  ((${#missing[@]})) || return 0
  for entry in "${missing[@]}"; do
    names+="${names:+, }${entry%%|*}"
    packages+=" ${entry##*|}"
  done
  ((EUID == 0)) || sudo='sudo '
  fail "Missing: ${names}. Install with: ${sudo}apt-get install${packages}"
}

# --- stamps -------------------------------------------------------------------

is_fresh() { [[ "$(cat "${stamps}/$1" 2>/dev/null)" == "$2" ]]; }

set_fresh() {
  mkdir -p "${stamps}"
  printf '%s\n' "$2" >"${stamps}/$1"
}

hash_files() { sha256sum "$@" | sha256sum | cut -d ' ' -f 1; }

# --- 2 virtual environment ----------------------------------------------------

# Prints why .venv cannot be used; nothing if it can.
find_fault_in_venv() {
  local version tensorflow
  version="$("${venv}/bin/python" -c '
import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)" ||
    { echo "its Python does not run" && return; }
  [[ "${version}" == "${python_version}" ]] ||
    { echo "it was made by Python ${version}" && return; }
  # The scripts of a virtual environment hold its path.
  head -n 3 "${venv}/bin/pip" 2>/dev/null | grep -qF "${venv}/" ||
    { echo "it was made for another folder, or not finished" && return; }
  tensorflow="$("${venv}/bin/python" -c '
import importlib.metadata as metadata
for name in "tensorflow-cpu", "tensorflow":
    try:
        print(metadata.version(name))
        break
    except metadata.PackageNotFoundError:
        pass')"
  [[ -z "${tensorflow}" || "${tensorflow}" == "${tensorflow_version}" ]] ||
    echo "it holds TensorFlow ${tensorflow}"
}

make_venv() {
  local fault=''
  if [[ -d "${venv}" ]]; then
    fault="$(find_fault_in_venv)"
    if [[ -z "${fault}" ]]; then
      done_with "up to date"
      return
    fi
    echo "      making it anew: ${fault}"
    rm -rf "${venv}"
  fi
  run_logged "${logs}/venv.log" "${python}" -m venv "${venv}"
  done_with "made"
}

# --- 3 dependencies -----------------------------------------------------------

install_dependencies() {
  local key
  key="$(hash_files "${lock}" "${no_deps}")"
  if is_fresh dependencies "${key}"; then
    done_with "up to date"
    return
  fi
  run_logged "${logs}/dependencies.log" "${venv}/bin/python" -m pip install \
    --disable-pip-version-check --requirement "${lock}"
  run_logged "${logs}/no_deps.log" "${venv}/bin/python" -m pip install \
    --disable-pip-version-check --no-deps --requirement "${no_deps}"
  set_fresh dependencies "${key}"
  done_with "$(grep -c == "${lock}") packages installed"
}

# --- 4 Horovod ----------------------------------------------------------------

install_horovod() {
  local key wheel
  key="$(hash_files tools/build_horovod.sh tools/gloo.patch \
    requirements/horovod.txt "${lock}")"
  if is_fresh horovod "${key}"; then
    done_with "up to date"
    return
  fi
  wheel="$(tools/build_horovod.sh "${venv}/bin/python")" || exit 1
  run_logged "${logs}/horovod_install.log" "${venv}/bin/python" -m pip \
    install --disable-pip-version-check --no-deps --force-reinstall "${wheel}"
  "${venv}/bin/python" -c '
import sys, horovod.tensorflow as hvd
sys.exit(not hvd.gloo_built())' >"${logs}/horovod_check.log" 2>&1 ||
    fail "Horovod does not load: ${logs}/horovod_check.log. To build it anew: rm -r '$(dirname "${wheel}")' and start again."
  set_fresh horovod "${key}"
  done_with "installed"
}

# --- 5 custom_ops and the package ---------------------------------------------

install_package() {
  local key sources
  # The top-level packages too: an editable install lists them.
  mapfile -t sources < <(
    find custom_ops \( -name '*.cc' -o -name '*.h' -o -name '*.txt' \) | sort
    ls setup.py pyproject.toml ./*/__init__.py
  )
  key="$(hash_files "${lock}" "${sources[@]}") ${build_ops} ${CXX:-}"
  key+="${TF_TERNGRAD_BUILD_CUDA:-}"
  if is_fresh package "${key}" && [[ -f custom_ops/build_info.json ]] &&
    [[ "${build_ops}" == 0 || -f custom_ops/libcustom_ops.so ]]; then
    done_with "up to date"
    return
  fi
  TF_TERNGRAD_BUILD_OPS="${build_ops}" run_logged "${logs}/custom_ops.log" \
    "${venv}/bin/python" -m pip install --verbose --disable-pip-version-check \
    --no-build-isolation --no-deps --editable .
  set_fresh package "${key}"
  done_with "installed"
}

# ------------------------------------------------------------------------------

# A make above leaves its job server's settings behind.
unset MAKEFLAGS MFLAGS MAKELEVEL
# Here a library that cannot be compiled is an error, unless 0 was asked for.
build_ops="${TF_TERNGRAD_BUILD_OPS:-1}"

check_tools
lock="requirements/py${python_version}.txt"
no_deps="requirements/no_deps.txt"
tensorflow_version="$(sed -n 's/^tensorflow[-_]cpu==//p' "${lock}")"
if [[ "${1:-}" == --check ]]; then
  exit
fi

mkdir -p build
exec 9>build/setup.lock
flock 9 # one set-up of a checkout at a time

step "Tools"
done_with "Python ${python_full} (${python}), $("${compiler}" --version | head -n 1)"
step "Virtual environment .venv"
make_venv
step "Dependencies of ${lock}"
install_dependencies
step "Horovod $(sed -n 's/^horovod==\([^ ]*\).*/\1/p' requirements/horovod.txt) for TensorFlow ${tensorflow_version}"
install_horovod
step "custom_ops (CMake) and the package, editable"
install_package
