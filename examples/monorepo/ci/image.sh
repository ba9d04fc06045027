#!/usr/bin/env bash
# image.sh SERVER STATIC OUT: writes an image as an OCI layout in a tar file, and
# its digest beside it. It needs no daemon and no privileges, only tar, gzip and
# sha256sum; the same input gives the same digest.
# Format: https://github.com/opencontainers/image-spec
set -euo pipefail
server=$1 static=$2 out=$3

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
layout=$work/layout
mkdir -p "$layout/blobs/sha256" "$work/root/app"
cp "$server" "$work/root/app/server"
cp -R "$static" "$work/root/app/static"

digest() { sha256sum "$1" | cut -d ' ' -f 1; }

# add FILE: puts it among the blobs and prints its digest.
add() {
	local sum
	sum=$(digest "$1")
	cp "$1" "$layout/blobs/sha256/$sum"
	echo "$sum"
}

tar --create --file "$work/layer.tar" --directory "$work/root" \
	--sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner --mode=u=rwX,go=rX app
diff_id=$(digest "$work/layer.tar")
gzip --no-name "$work/layer.tar"
layer=$(add "$work/layer.tar.gz")

case $(uname -m) in
x86_64) arch=amd64 ;;
aarch64) arch=arm64 ;;
*) arch=$(uname -m) ;;
esac
cat > "$work/config.json" <<JSON
{"architecture":"$arch","os":"linux",
 "config":{"Entrypoint":["/app/server","-static","/app/static"],"User":"65534:65534","ExposedPorts":{"8080/tcp":{}}},
 "rootfs":{"type":"layers","diff_ids":["sha256:$diff_id"]}}
JSON
config=$(add "$work/config.json")

type=application/vnd.oci.image
size() { stat --format %s "$layout/blobs/sha256/$1"; }
cat > "$work/manifest.json" <<JSON
{"schemaVersion":2,"mediaType":"$type.manifest.v1+json",
 "config":{"mediaType":"$type.config.v1+json","digest":"sha256:$config","size":$(size "$config")},
 "layers":[{"mediaType":"$type.layer.v1.tar+gzip","digest":"sha256:$layer","size":$(size "$layer")}]}
JSON
manifest=$(add "$work/manifest.json")

echo '{"imageLayoutVersion":"1.0.0"}' > "$layout/oci-layout"
cat > "$layout/index.json" <<JSON
{"schemaVersion":2,"manifests":[{"mediaType":"$type.manifest.v1+json","digest":"sha256:$manifest","size":$(size "$manifest")}]}
JSON
tar --create --file "$out" --directory "$layout" --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner .
echo "sha256:$manifest" > "${out%.tar}.digest"
echo "$out: $(stat --format %s "$out") bytes, image sha256:$manifest"
