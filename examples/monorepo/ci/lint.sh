#!/usr/bin/env bash
# Formatting, suspicious code and syntax, of everything in the repository.
set -euo pipefail
cd "$(dirname "$0")/.."

unformatted=$(gofmt -l backend)
if [ -n "$unformatted" ]; then
	echo "not formatted with gofmt:"
	echo "$unformatted"
	exit 1
fi
(cd backend && go vet ./...)

git ls-files '*.mjs' | while read -r file; do
	node --check "$file"
done
git ls-files '*.sh' | while read -r file; do
	bash -n "$file"
done
echo "$(git ls-files | wc -l) files are in order"
