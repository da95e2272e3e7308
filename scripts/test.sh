#!/usr/bin/env bash
# Runs all tests: under the race detector where our own concurrency lives, without it end to end, where whole servers
# on SQLite would only be slow (make verify runs those under it too). With CI=true a test that skips is a failure.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

output=$(mktemp)
trap 'rm -f "$output"' EXIT
failed=0

# run NAME ARGUMENTS…: go test, with its own result lines on standard output.
run() {
  echo "test: $1"
  shift
  if [ "${CI:-}" = true ]; then
    # -v shows what was skipped; the lines of the tests that passed are left out again.
    go test -v -timeout 15m "$@" 2>&1 | tee -a "$output" | quietly || failed=1
  else
    go test -timeout 15m "$@" || failed=1
  fi
}

quietly() { grep -Ev '^(=== (RUN|PAUSE|CONT|NAME)|PASS$| *--- PASS)' || true; }

slow='/(internal/e2e|demo|bench|chaos)(/|$)'
all=$(go list ./...) || exit 1
whole=$(grep -E "$slow" <<<"$all")
fast=$(grep -Ev "$slow" <<<"$all")

race=-race
if ! command -v "${CC:-cc}" >/dev/null 2>&1; then
  echo 'test: no C compiler, so the race detector could not be built in'
  [ "${CI:-}" = true ] && exit 1
  race=
fi
# Neither the flag nor import paths have spaces: they are split on purpose.
# shellcheck disable=SC2086
run 'packages, race detector on (builds for a while when the cache is cold)' $race $fast
# What measures memory is not built under the race detector, which multiplies it.
[ -z "$race" ] || run 'floods, and the memory that they cost' -run '^TestM11_HTTP[12]Flood$' ./internal/daemon
# shellcheck disable=SC2086
[ -z "$whole" ] || run 'end to end' $whole

echo 'test: some protections taken out (make verify does all of them)'
go run ./scripts/mutants -sample 8 || failed=1

if [ "${CI:-}" = true ] && grep -E '^ *--- SKIP' "$output"; then
  echo 'test: CI=true, and the tests above were skipped'
  failed=1
fi
exit "$failed"
