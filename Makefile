# make help lists what there is. PODLANE_STACK=n picks one of several test beds on one machine.
GO       ?= go
VERSION  ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
LDFLAGS  := -s -w -X podlane/internal/version.Version=$(VERSION)
STACK    := $(GO) run ./test/stack
LINT     := $(GO) tool -modfile=tools/go.mod

.PHONY: help build test unit e2e demo up down status lint fmt bench bench-cache clean test-faults load helper-image

help: ## this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: ## bin/podlane with its four names, bin/podlane-helper
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o bin/ ./cmd/podlane ./cmd/podlane-helper
	for stage in config prepare run cleanup; do ln -sf podlane bin/podlane-$$stage; done

helper-image: ## bin/helper-image, the helper image for amd64 and arm64 as an OCI layout: docs/helper-image.md
	for arch in amd64 arm64; do CGO_ENABLED=0 GOOS=linux GOARCH=$$arch $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o bin/podlane-helper-$$arch ./cmd/podlane-helper || exit 1; done
	$(GO) run ./scripts/helper-image --version '$(VERSION)' $(if $(MIRROR),--mirror '$(MIRROR)')

test: unit up ## everything: unit tests, then end to end on the test bed (sets itself up)
	$(STACK) program versitygw >/dev/null
	$(GO) test -count=1 -parallel 8 -timeout 30m ./test/e2e/...
	$(GO) test -count=1 -short -parallel 3 -timeout 20m ./test/faults

unit: ## tests that need nothing but Go
	$(GO) test $$($(GO) list ./... | grep -v -e /test/e2e -e '/test/faults$$')

e2e: build ## end to end on the cluster in KUBECONFIG; see docs/testing.md
	$(STACK) images .local/images.tar
	$${PODLANE_E2E_LOAD:?a command that loads an image archive into the cluster} .local/images.tar
	PODLANE_E2E_CLUSTER=1 $(GO) test -count=1 -parallel 8 -timeout 60m ./test/e2e/...

demo: up ## run the example pipeline and show it
	$(GO) run ./test/demo

up: build ## start the test bed: one Kubernetes node on this machine
	$(STACK) up

down: ## stop the test bed
	$(STACK) down

status: ## what of the test bed runs
	$(STACK) status

test-faults: up ## break things while jobs run, one by one; FAULTS='-run X', '-soak 200'; records docs/reliability.md
	$(GO) test -count=1 -v -timeout 120m ./test/faults -record $(FAULTS)

load: up ## many jobs at once, on a simulated kubelet; LOAD='-jobs 200'
	$(GO) run ./test/load $(LOAD)

bench: up ## what a job costs: a table, and .local/bench/overhead.json
	$(GO) run ./test/bench

bench-cache: build ## how fast caches are beside zip and tar: see docs/cache-speed.md; BENCH=-quick for a first look
	$(GO) run ./test/benchcache -minio "$$($(STACK) program minio)" $(BENCH)

lint: ## what CI checks besides the tests
	$(LINT) golangci-lint run ./...
	$(GO) mod verify >/dev/null

fmt: ## format all Go files
	$(LINT) gofumpt -w cmd executor internal podagent scripts test

clean: down ## forget what was built here
	rm -rf bin .local
