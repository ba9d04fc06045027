#!/bin/sh
# The classic example of a custom executor: everything runs on the host.
# $DRIVER_DIR holds builds, cache, a record of all calls and what makes a call
# misbehave: a file fail-<stage> is run instead of the stage.
set -eu
kind=$1
shift
stage=$kind
if [ "$kind" = run ]; then stage=$2; fi
echo "$stage" >> "$DRIVER_DIR/calls"
env -0 > "$DRIVER_DIR/env-$stage"
if [ -f "$JOB_RESPONSE_FILE" ]; then cp "$JOB_RESPONSE_FILE" "$DRIVER_DIR/response.json"; fi
if [ -f "$DRIVER_DIR/fail-$stage" ]; then . "$DRIVER_DIR/fail-$stage"; fi
case $kind in
config)
	cat <<-END
	{"driver": {"name": "host", "version": "v1"}, "hostname": "here",
	 "builds_dir": "$DRIVER_DIR/builds", "cache_dir": "$DRIVER_DIR/cache",
	 "job_env": {"FROM_CONFIG": "yes"}, "shell": "${DRIVER_SHELL:-bash}"}
	END
	;;
prepare)
	echo "prepared with ${FROM_CONFIG:-nothing}"
	;;
run)
	cp "$1" "$DRIVER_DIR/script-$stage"
	rm -f "$BUILD_EXIT_CODE_FILE"
	code=0
	env -i PATH="$PATH" HOME="$DRIVER_DIR" ${DRIVER_SH:-bash} < "$1" || code=$?
	if [ "$code" -ne 0 ]; then
		echo "$code" > "$BUILD_EXIT_CODE_FILE"
		exit "$BUILD_FAILURE_EXIT_CODE"
	fi
	;;
cleanup)
	echo "cleaned up"
	echo "with a warning" >&2
	;;
esac
