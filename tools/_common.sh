# shellcheck shell=bash
# Sourced by setup.sh and build_horovod.sh.

# Prints "[2/5] What happens now", and starts that step's clock.
step_number=0
step() {
  step_number=$((step_number + 1))
  step_started=${SECONDS}
  printf '[%d/%d] %s\n' "${step_number}" "${STEPS:?}" "$*"
}

# Prints the result of a step and the seconds it took.
done_with() {
  printf '      %s (%d s)\n' "$*" "$((SECONDS - step_started))"
}

fail() {
  printf '%s\n' "$*" >&2
  exit 1
}

# run_logged LOG COMMAND...: the command's output goes to LOG. Every half a
# minute a line says that it still runs, with the percentage of CMake's last
# line if there is one. A command that fails shows the errors in its log, which
# may lie far above the end, and the end.
run_logged() {
  local log="$1" status=0 pulse
  shift
  mkdir -p "$(dirname "${log}")"
  : >"${log}"
  _pulse "${log}" &
  pulse=$!
  "$@" >"${log}" 2>&1 </dev/null || status=$?
  kill "${pulse}" 2>/dev/null || true
  wait "${pulse}" 2>/dev/null || true
  if ((status)); then
    printf -- '--- the last 40 lines of %s\n' "${log}" >&2
    tail -n 40 "${log}" >&2
    printf -- '--- the first errors in it\n' >&2
    grep -nE 'error: |CMake Error|^ERROR' "${log}" | head -n 10 >&2 || true
    fail "--- Failed with exit status ${status}: $*
--- The whole log: ${log}"
  fi
}

_pulse() {
  local progress
  while true; do
    # Holds neither a pipe of the caller's nor the lock once it is orphaned.
    sleep 30 >/dev/null 2>&1 9>&-
    progress="$(grep -oE '^ *\[ *[0-9]+%\]' "$1" | tail -n 1 | tr -d ' ' || true)"
    printf '      ... %d s %s\n' "$((SECONDS - step_started))" "${progress}"
  done 9>&-
}
