# The front door. Every target does what it needs itself, packages included, and is quick the second time.
.DEFAULT_GOAL := help
.PHONY: help deps build demo test image test-chart test-cluster test-kernels soak lint format faults bench bench-cluster clean

JOBS ?= $(shell nproc)
# Output of a build is for when it fails.
quiet = $(1) > build/last.log 2>&1 || { tail -n 40 build/last.log; exit 1; }

help: ## Show this
	@echo 'Thruway: eBPF dataplane and service load balancer for Kubernetes'
	@echo
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 22

deps: ## Install the packages that building and testing needs (Debian 12, as root)
	@.ci/deps

build: deps ## Build everything into build/bin
	@mkdir -p build
	@$(call quiet,cmake --preset release)
	@$(call quiet,cmake --build --preset release -j $(JOBS))

demo: build ## Three nodes in network namespaces: real requests by every path
	@tools/demo

test: build ## Unit, packet and lab tests, the unit tests also under asan and tsan
	@.ci/test

image: build ## The container image, as an OCI archive: build/image.tar
	@.ci/deps buildah patchelf
	@tools/image

test-chart: image ## The chart by Helm's own library (Go), and the image in a lab, under the chart's rights
	@.ci/deps runc
	@tests/chart/run

test-cluster: build ## Real etcd, API server and controllers, built by Go: agents in a lab follow them
	@tests/cluster/run

test-kernels: build ## Boot Debian's Linux 6.1 and 6.12 in qemu: packet tests and a small lab in each
	@.ci/deps "qemu-system-x86>=1:10" busybox-static cpio kmod
	@tests/kernels/run

soak: build ## Look for rare faults for SOAK_MINUTES (30): flow table model and stress, fuzzer, API server
	@tests/soak

faults: build ## Plant each fault of tests/faults; the test that it names must fail
	@tests/faults/run

lint: deps ## clang-format and clang-tidy
	@.ci/lint

format: deps ## Put all code into the layout that lint wants
	@git ls-files '*.c' '*.h' '*.cpp' | xargs clang-format-19 -i

bench: build ## Measure, print a table, and write build/bench.json
	@build/bin/thruway-bench --output build/bench.json

bench-cluster: build ## Measure agent and kube-proxy at 10,000 and 44,000 Services of a real API server (half an hour)
	@tests/cluster/run -run TestFigures -figures -v -timeout 60m

clean: ## Remove all that was built
	@rm -rf build build-asan build-tsan build-dev
