#!/usr/bin/env bash
# What takes longer than make test may: every test under the race detector, every mutant, every cell of the matrix, and every
# fuzz target for FUZZTIME.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

scripts/provision.sh
echo 'verify: all tests under the race detector'
go test -race -timeout 60m ./...
go test -run '^TestM11_HTTP[12]Flood$' ./internal/daemon # measures memory, so not under the race detector

echo 'verify: every protection taken out once'
go run ./scripts/mutants

echo 'verify: every cell of the matrix, and five times the random cases'
TABARD_MATRIX_WHOLE=1 go test -timeout 40m -count 1 -v -run '^Test(M06_MatrixOfEveryDoor|A01_MatrixOfRandomCases)$' ./internal/e2e | grep -v '^=== '

echo "verify: kill -9 under load for ${CHAOSTIME:-60s} on each engine"
TABARD_TEST_CHAOS=${CHAOSTIME:-60s} go test -timeout 20m -count 1 -v -run '^TestG04_KillDuringLoad$' ./internal/e2e

# FILE:func FuzzX(… for each target
grep -rHoE --include='*_test.go' --exclude-dir=test '^func Fuzz[A-Za-z0-9_]*' . | while IFS=: read -r file func; do
  target=${func#func }
  echo "verify: $target in $(dirname "$file") for ${FUZZTIME:-60s}"
  go test -run '^$' -fuzz "^$target\$" -fuzztime "${FUZZTIME:-60s}" "$(dirname "$file")" </dev/null
done
