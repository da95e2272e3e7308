#!/usr/bin/env bash
# Fails where go generate would change a file. Compares the files before and after, so that edits not yet committed do
# not count.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# A file that was removed and not yet committed is listed and cannot be read: no matter.
sums() { git ls-files -co --exclude-standard -z | { xargs -0 cksum 2>/dev/null || true; } | sort; }

before=$(sums)
go generate ./...
after=$(sums)
if [ "$before" != "$after" ]; then
  echo 'generated code is out of date; go generate changed:'
  diff <(echo "$before") <(echo "$after") | awk '/^>/ { print "  " $4 }'
  exit 1
fi
