# The one vocabulary of people and CI. Everything is set up by need; nothing outside this folder is touched.

SHELL := /bin/bash
PYTHON ?= python3
# Another Python beside this one: make PYTHON=python3.13 VENV=.venv-3.13 suite
VENV ?= .venv
BIN := $(VENV)/bin
# Of the time of the whole suite its processes wait a quarter, for each other and for timeouts.
WORKERS ?= $(shell echo $$(($$(getconf _NPROCESSORS_ONLN) * 3 / 2)))
UV := VIRTUAL_ENV=$(CURDIR)/$(VENV) $(BIN)/uv
# Tests start Python again hundreds of times; without bytecode each loads LangChain in 5 s instead of 1.
export UV_COMPILE_BYTECODE := 1
# Nor does an environment that forbids to write bytecode hold here: pytest would rewrite the assertions of 781 modules
# in each of its processes, which takes 5 s of CPU each.
export PYTHONDONTWRITEBYTECODE :=
HOST = $(shell rustc -vV | sed -n 's/^host: //p')
MSRV := $(shell sed -n 's/^rust-version = "\(.*\)"/\1.0/p' Cargo.toml)
RUST := $(shell find rust -name '*.rs' -o -name Cargo.toml) Cargo.toml Cargo.lock

.PHONY: help demo test quick test-python suite bytecode matrix test-rust kills loom miri e2e peers bench bench-smoke gates valgrind chromium lint platforms msrv wheels check-wheels release format docs pictures coverage clean

help: ## list what there is to make
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(VENV)/native ## meter a real pipeline under load on this machine
	$(BIN)/python -m examples.fix_generator
	$(BIN)/langmeter demo --report target/demo.html

test: test-rust kills loom test-python ## run every test

test-python: bytecode ## run the tests of the Python package, with coverage
	-@[ -d target/tools/faketime ] || $(MAKE) target/tools/faketime
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal --cov --cov-report=term --durations=20

suite: bytecode ## run the tests of the Python package, without coverage
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal --no-cov

# The processes that tests start write none: one that may write little would leave half a file.
bytecode: $(VENV)/native
	@$(BIN)/python -m compileall -q python/langmeter tests examples

# Python 3.11 to the newest that this machine has or can get, with langchain-core 1.0 and the newest; takes half an hour.
matrix: $(BIN)/uv ## run the tests on every Python and langchain-core supported
	.ci/matrix

# No coverage, fewer examples, no real clients, no processes.
quick: bytecode ## run the tests of the Python package that need seconds
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal --no-cov --ignore=tests/clients --ignore=tests/e2e \
		-m "not clients and not process and not slow" --hypothesis-profile=quick

test-rust: ## run the tests of the Rust core
	cargo test --locked --quiet --package langmeter-core --lib --tests

# The points at which processes are killed are there in this build alone.
kills: ## kill processes that count into files at every step
	cargo test --locked --quiet --package langmeter-core --features stops --test kills

# Every lock-free type under every interleaving of at most three preemptions.
loom: ## check the lock-free types with loom
	RUSTFLAGS="--cfg loom" LOOM_MAX_PREEMPTIONS=3 \
		cargo test --locked --quiet --profile loom --target-dir target/loom --package langmeter-core --lib loom

# What nothing here runs: the compiler and the types hold it. A target that cannot be had is left out.
platforms: $(VENV)/native $(VENV)/lint ## check the code of macOS and Windows
	@for target in aarch64-apple-darwin x86_64-pc-windows-msvc; do \
	if rustup --quiet target add $$target; \
	then cargo clippy --locked --quiet --workspace --target $$target -- -D warnings || exit 1; \
	else echo "$$target cannot be had here: not checked"; fi; done
	$(BIN)/mypy --platform darwin --cache-dir .mypy_cache/darwin python/langmeter
	$(BIN)/mypy --platform win32 --cache-dir .mypy_cache/win32 python/langmeter

# The Rust of Cargo.toml's `rust-version`: a newer compiler does not check it, and once an `if let` guard needed 1.95.
msrv: ## check that the oldest supported Rust builds it
	@if rustup toolchain list | grep -q "^$(MSRV)" || rustup toolchain install $(MSRV) --profile minimal --no-self-update; \
	then cargo +$(MSRV) check --locked --quiet --workspace --target-dir target/msrv; \
	else echo "Rust $(MSRV) cannot be installed here: not checked"; fi

# Undefined behaviour; needs a nightly toolchain with miri, so it is not part of `test`.
miri: ## look for undefined behaviour with miri (needs a nightly toolchain)
	PROPTEST_CASES=3 MIRIFLAGS=-Zmiri-disable-isolation \
		cargo +nightly miri test --target-dir target/miri --package langmeter-core --lib -- --skip tokenizer

# A server that cannot be had here is left out: its tests are skipped, and say how it gets there.
e2e: $(VENV)/native $(VENV)/node $(VENV)/browser ## run the tests against real servers and a browser (needs npm, Debian's packages and Go)
	-$(MAKE) --keep-going target/tools/prometheus target/tools/victoria-metrics chromium
	$(BIN)/python -m pytest -m e2e --no-cov -rs tests/e2e
	TEST_SECONDS=60 $(BIN)/python -m pytest --no-cov -s -k 64_processes tests/directory/test_servers.py

# The own tests of langchain-core, langchain and langgraph, with a meter and with an empty handler.
peers: $(VENV)/native ## run LangChain's own tests with a meter installed
	$(BIN)/python -m tests.peers

# Of a native module as wheels have it.
bench: $(VENV)/bench $(VENV)/profiled valgrind ## print every speed that the pages claim
	cargo bench --locked --package langmeter-core
	$(BIN)/python -m benches

# The whole suite in a short form, so that it cannot rot; it judges counts, never times.
bench-smoke: $(VENV)/bench ## run each benchmark once, without judging times
	cargo bench --locked --package langmeter-core -- --test
	$(BIN)/python -m benches --smoke
	$(BIN)/python -m benches.training --smoke

# Instructions inside the native module, which no neighbour on the machine disturbs.
gates: $(VENV)/native valgrind ## hold instruction counts to the measured ones
	$(BIN)/python -m benches.instructions --gate

# Counts them; installed where CI lacks it.
valgrind:
	@command -v valgrind >/dev/null || [ -z "$$CI" ] || { apt-get update -qq && apt-get install -qq --yes valgrind; }

lint: $(VENV)/native $(VENV)/lint platforms ## check style and types
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets -- -D warnings
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m mypy.stubtest langmeter._core
	$(BIN)/python .ci/words.py
	git ls-files '*.py' '*.pyi' '*.rs' '*.md' '*.toml' | xargs $(BIN)/codespell

# Some eight minutes of two cores. zig links for the glibc of manylinux2014 whatever this machine's is.
wheels: $(VENV)/release ## build wheels (Linux, x86_64 and aarch64) and the source distribution in dist/
	-$(MAKE) --keep-going target/tools/advancecomp target/profiled/langmeter.profdata
	.ci/wheels

# The wheel of aarch64 runs by qemu in Debian's Python; where these cannot be had it is only read.
check-wheels: $(VENV)/release ## install what is in dist/ into empty environments and run the quick start
	-$(MAKE) --keep-going target/tools/qemu target/tools/debian-arm64
	$(BIN)/python -m pytest -m wheels --no-cov -rs tests/package

# Whoever releases uploads dist/ by hand, then.
release: $(VENV)/native $(VENV)/release ## check version, changelog and licences, build and check dist/; publishes nothing
	$(BIN)/python .ci/release.py
	$(BIN)/python .ci/licences.py
	$(MAKE) wheels
	$(BIN)/twine check --strict dist/*
	$(MAKE) check-wheels

# The site, with search and the API reference; a warning is an error. Every page that runs code is a test of `test-python`.
docs: $(VENV)/docs ## build the site in target/docs
	$(BIN)/python -m sphinx --fail-on-warning --keep-going --quiet --builder dirhtml docs target/docs

pictures: $(VENV)/native $(VENV)/browser ## draw the pictures of the pages from what the commands print
	$(BIN)/python docs/pictures.py

format: $(VENV)/lint ## format the sources
	cargo fmt --all
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Line coverage of the core; installs cargo-llvm-cov under target/ at its first use.
coverage: target/tools/bin/cargo-llvm-cov ## measure the line coverage of the core
	PATH="$(CURDIR)/target/tools/bin:$$PATH" \
		cargo llvm-cov --package langmeter-core --all-targets --ignore-filename-regex 'benches|examples' --fail-under-lines 95

target/tools/bin/cargo-llvm-cov:
	rustup component add llvm-tools
	cargo install --quiet --locked --root target/tools cargo-llvm-cov

# The browser itself; installed where CI lacks it.
chromium:
	@command -v chromium >/dev/null || [ -z "$$CI" ] || { apt-get update -qq && apt-get install -qq --yes chromium; }

# Debian's package, unpacked: nothing is installed.
target/tools/prometheus:
	mkdir -p target/tools/deb
	cd target/tools/deb && apt-get download prometheus
	dpkg -x target/tools/deb/prometheus_*.deb $@

target/tools/faketime:
	mkdir -p target/tools/deb
	cd target/tools/deb && apt-get download libfaketime
	dpkg -x target/tools/deb/libfaketime_*.deb $@

target/tools/advancecomp target/tools/qemu: target/tools/%:
	mkdir -p target/tools/deb
	cd target/tools/deb && apt-get download $(if $(filter qemu,$*),qemu-user-static,$*)
	dpkg -x target/tools/deb/$(if $(filter qemu,$*),qemu-user-static,$*)_*.deb $@

# Python 3.11 for aarch64, of packages whose lists are read into a folder of their own.
target/tools/debian-arm64:
	.ci/debian-arm64 $@

# From source through the Go proxy: a minute.
target/tools/victoria-metrics:
	mkdir -p target/tools/go-victoria-metrics
	cd target/tools/go-victoria-metrics && (test -f go.mod || go mod init langmeter.test/victoria-metrics) \
		&& GOFLAGS=-mod=mod go get github.com/VictoriaMetrics/VictoriaMetrics/app/victoria-metrics@v1.151.0 \
		&& GOFLAGS=-mod=mod go build -o ../victoria-metrics/victoria-metrics github.com/VictoriaMetrics/VictoriaMetrics/app/victoria-metrics

# Six minutes: not part of `e2e`, which tests against it once it is there.
target/tools/otelcol: tests/e2e/collector.yaml ## build the OpenTelemetry Collector for `make e2e`
	GOBIN=$(CURDIR)/target/tools/bin go install go.opentelemetry.io/collector/cmd/builder@v0.165.0
	target/tools/bin/builder --config tests/e2e/collector.yaml

clean: ## delete what make made
	rm -rf $(VENV) target python/langmeter/*.so

# --- set-up, each step once -------------------------------------------------------------------------------

$(BIN)/uv:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "langmeter needs Python 3.11 or newer: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@command -v cargo >/dev/null || { echo "langmeter's core is Rust: install cargo (rustup.rs), then try again"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv

$(VENV)/packages: pyproject.toml $(BIN)/uv
	$(UV) pip install --quiet 'maturin>=1.16,<2' --group test
	# Ships tiktoken's vocabularies, so that the oracle needs no network. It is only located, never imported;
	# its dependencies would pin the openai client to an older one.
	$(UV) pip install --quiet --no-deps 'litellm>=1.60'
	@touch $@

$(VENV)/native: $(VENV)/packages $(RUST)
	VIRTUAL_ENV=$(CURDIR)/$(VENV) PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/maturin develop --quiet --release --locked --uv --extras demo
	@touch $@

# What wheels are built by; where it cannot be had, a build goes on without.
target/profiled/langmeter.profdata: $(RUST) benches/training.py .ci/profile | $(VENV)/native
	.ci/profile

# Built by the profile, as a wheel is. By --target alone the names of its functions are those of the profile.
$(VENV)/profiled: $(VENV)/native benches/training.py
	-$(MAKE) target/profiled/langmeter.profdata
	@if [ -f target/profiled/langmeter.profdata ]; then \
	VIRTUAL_ENV=$(CURDIR)/$(VENV) PATH="$(CURDIR)/$(BIN):$$PATH" RUSTFLAGS=-Cprofile-use=$(CURDIR)/target/profiled/langmeter.profdata \
		$(BIN)/maturin develop --quiet --release --locked --uv --extras demo --target $(HOST) --target-dir target/profiled/build; \
	else echo "no profile: what is measured is slower than a wheel"; fi
	@touch $(VENV)/native $@

$(VENV)/lint: $(VENV)/packages
	$(UV) pip install --quiet --group lint
	@touch $@

$(VENV)/release: $(VENV)/packages
	$(UV) pip install --quiet --group release
	@touch $@

$(VENV)/bench: $(VENV)/native
	$(UV) pip install --quiet --group bench
	@touch $@

$(VENV)/browser: $(VENV)/native
	$(UV) pip install --quiet --group browser
	@touch $@

$(VENV)/docs: $(VENV)/native
	$(UV) pip install --quiet --group docs
	@touch $@

$(VENV)/node: tests/e2e/package.json
	npm install --prefix tests/e2e --no-audit --no-fund --loglevel=error
	@touch $@
