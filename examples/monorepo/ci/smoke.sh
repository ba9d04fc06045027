#!/usr/bin/env bash
# smoke.sh SERVER: starts the built server and asks it something.
set -euo pipefail
server=$1
addr=127.0.0.1:18080

deployed=$(mktemp)
printf '[[deployments]]\nservice = "db"\nversion = "16"\nat = 2026-05-01T12:00:00Z\n' > "$deployed"
"$server" -addr "$addr" -deployed "$deployed" &
pid=$!
trap 'kill "$pid"; wait "$pid"; rm "$deployed"' EXIT
curl --silent --show-error --fail --retry 20 --retry-connrefused --retry-delay 0 --retry-max-time 10 "http://$addr/healthz"
curl --silent --show-error --fail --data '{"service":"web","version":"1.4"}' "http://$addr/api/deployments"
curl --silent --show-error --fail "http://$addr/api/deployments" | grep '"service":"db".*"service":"web"'
