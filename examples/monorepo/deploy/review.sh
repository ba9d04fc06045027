#!/usr/bin/env bash
# review.sh DIGEST OUT: writes the manifest of a merge request's review app.
set -euo pipefail
digest=$1 out=$2

sed \
	-e "s|@IID@|$CI_MERGE_REQUEST_IID|g" \
	-e "s|@IMAGE@|registry.example.com/$CI_PROJECT_PATH@$digest|g" \
	-e "s|@HOST@|mr-$CI_MERGE_REQUEST_IID.review.example.com|g" \
	"$(dirname "$0")/review.yaml.in" > "$out"

if grep -n '@[A-Z]*@' "$out"; then
	echo "$out: something is left to fill in"
	exit 1
fi
