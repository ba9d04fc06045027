#!/usr/bin/env bash
# push.sh LAYOUT DIGEST REPOSITORY: pushes an image that lies as an OCI layout in
# a tar file to a registry, with nothing but curl and tar. REPOSITORY is
# HOST/PATH; CI_REGISTRY_USER and CI_REGISTRY_PASSWORD open it.
# Protocol: https://github.com/opencontainers/distribution-spec
set -euo pipefail
layout=$1 digest=$2 repository=$3
base=${REGISTRY_SCHEME:-https}://${repository%%/*}
name=${repository#*/}

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
tar --extract --file "$layout" --directory "$work"
# A file, for arguments can be read by everybody on the machine.
printf 'user = "%s:%s"\n' "$CI_REGISTRY_USER" "$CI_REGISTRY_PASSWORD" > "$work/curlrc"

ask() { curl --config "$work/curlrc" --silent --show-error --fail "$@"; }

for blob in "$work"/blobs/sha256/*; do
	sum=sha256:${blob##*/}
	if [ "$sum" = "$digest" ] || ask --output /dev/null --head "$base/v2/$name/blobs/$sum" 2>/dev/null; then
		continue
	fi
	upload=$(ask --output /dev/null --dump-header - --request POST --header 'Content-Length: 0' "$base/v2/$name/blobs/uploads/" |
		tr -d '\r' | awk 'tolower($1) == "location:" { print $2 }')
	case $upload in
	/*) upload=$base$upload ;;
	esac
	case $upload in
	*\?*) upload="$upload&digest=$sum" ;;
	*) upload="$upload?digest=$sum" ;;
	esac
	ask --output /dev/null --request PUT --header 'Content-Type: application/octet-stream' --upload-file "$blob" "$upload"
done
ask --output /dev/null --request PUT --header 'Content-Type: application/vnd.oci.image.manifest.v1+json' \
	--data-binary "@$work/blobs/sha256/${digest#sha256:}" "$base/v2/$name/manifests/$digest"
echo "pushed $repository@$digest"
