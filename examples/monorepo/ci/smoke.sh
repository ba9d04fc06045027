#!/usr/bin/env bash
# smoke.sh SERVER: starts the built server and asks it something.
set -euo pipefail
server=$1
addr=127.0.0.1:18080

"$server" -addr "$addr" &
pid=$!
trap 'kill "$pid"; wait "$pid"' EXIT
curl --silent --show-error --fail --retry 20 --retry-connrefused --retry-delay 0 --retry-max-time 10 "http://$addr/healthz"
curl --silent --show-error --fail --data '{"service":"web","version":"1.4"}' "http://$addr/api/deployments"
curl --silent --show-error --fail "http://$addr/api/deployments" | grep '"service":"web"'
