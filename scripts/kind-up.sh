#!/usr/bin/env bash
# Makes a kind cluster for `make e2e`, on a machine that has Docker, kind and kubectl.
#   scripts/kind-up.sh [NAME]     then:  eval "$(scripts/kind-up.sh NAME)" && make e2e
# Prints the variables that make e2e reads; everything else goes to stderr.
set -euo pipefail
name=${1:-podlane}
namespace=podlane-ci
here=$(cd "$(dirname "$0")/.." && pwd)

for tool in docker kind kubectl; do
  command -v "$tool" >/dev/null || { echo "kind-up: $tool is not installed" >&2; exit 1; }
done

kubeconfig=$here/.local/kind-$name.kubeconfig
mkdir -p "$here/.local"
if ! kind get clusters 2>/dev/null | grep -qx "$name"; then
  kind create cluster --name "$name" --kubeconfig "$kubeconfig" >&2
fi
kind get kubeconfig --name "$name" >"$kubeconfig"
export KUBECONFIG=$kubeconfig
kubectl create namespace "$namespace" --dry-run=client -o yaml | kubectl apply -f - >&2
sed "s/namespace: podlane-ci/namespace: $namespace/" "$here/deploy/rbac.yaml" | kubectl apply -n "$namespace" -f - >&2

cat <<EOT
export KUBECONFIG=$kubeconfig
export PODLANE_E2E_NAMESPACE=$namespace
export PODLANE_E2E_LOAD="kind load image-archive --name $name"
EOT
