#!/usr/bin/env bash
# review.sh IMAGE NAMESPACE OUT: writes the manifest of a merge request's review
# app.
set -euo pipefail
image=$1 namespace=$2 out=$3

sed \
	-e "s|@NAMESPACE@|$namespace|g" \
	-e "s|@IMAGE@|$image|g" \
	-e "s|@HOST@|mr-$CI_MERGE_REQUEST_IID.review.example.com|g" \
	"$(dirname "$0")/review.yaml.in" > "$out"

if grep -n '@[A-Z]*@' "$out"; then
	echo "$out: something is left to fill in"
	exit 1
fi
