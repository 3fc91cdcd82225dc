#!/usr/bin/env bash
# Pins requirements/requirements.in for one or more versions of Python:
#
#   tools/lock.sh 3.10 3.11 3.12
#
# Each version is installed into a throw-away virtual environment, checked with
# `pip check`, and written to requirements/py<version>.txt. That what no_deps.txt
# pins by hand imports beside it is checked as well.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

for version in "${@:?versions of Python, such as 3.11}"; do
  folder="$(mktemp -d)"
  trap 'rm -rf "${folder}"' EXIT
  "python${version}" -m venv "${folder}"
  "${folder}/bin/python" -m pip install --quiet --upgrade pip
  "${folder}/bin/python" -m pip install --quiet \
    --requirement requirements/requirements.in
  "${folder}/bin/python" -m pip check
  {
    echo "# Made by tools/lock.sh ${version} from requirements.in."
    "${folder}/bin/python" -m pip freeze --all | grep -v '^pip=='
  } >"requirements/py${version}.txt"
  "${folder}/bin/python" -m pip install --quiet --no-deps \
    --requirement requirements/no_deps.txt
  "${folder}/bin/python" -c 'import keras_hub'
  echo "requirements/py${version}.txt: $(grep -c == "requirements/py${version}.txt") packages"
  rm -rf "${folder}"
done
