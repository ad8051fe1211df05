# Two commands do everything: `make demo` and `make test`. Both set themselves up.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
NODES ?= 50
PARALLEL ?= 10
REPEAT ?= 1
UPGRADES ?= 10000
SECONDS ?= 600
MINUTES ?= 60
LOCK = $(VENV)/lock/bin/uv pip compile -c constraints.txt --universal --generate-hashes --python-version 3.11 --no-header --no-annotate --quiet
# Keeps the two lines that say what a lock is for; where uv fails, the lock stays as it was.
relock = $(LOCK) $(1) > lock.new && { head -2 $(2); cat lock.new; } > lock.whole && mv lock.whole $(2) && rm lock.new

.DEFAULT_GOAL := help
.PHONY: help setup demo test lint unit cluster faults sim pairs soak endurance bench dashboard control-plane image image-test e2e docs constraints lock sbom licences audit clean

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-14s %s\n", $$1, $$2}'

setup: $(READY) ## the virtual environment, at the versions of constraints.txt

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "Python 3.11 or newer is needed: set PYTHON=/path/to/python3.11"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null \
	  || { echo "Python's venv module is missing: on Debian, apt-get install python3-venv"; exit 1; }
	@echo "Setting up $(VENV) ..."
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@PIP_CONSTRAINT=constraints.txt $(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $@

demo: setup ## a real control plane, 24 fake nodes, a driver upgrade with live progress; ends by itself
	@$(BIN)/python -m tools.demo

test: lint unit sim cluster image-test ## all tests but those on a real node (e2e)

lint: setup ## ruff, mypy --strict, import-linter, generated docs
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m tools.policy_docs --check
	$(BIN)/python -m tools.alerts --check
	$(BIN)/python -m tools.monitoring.dashboard --check

unit: setup ## tests without a control plane
	$(BIN)/python -m pytest tests --ignore=tests/cluster --ignore=tests/faults --ignore=tests/image --ignore=tests/e2e -m 'not cluster'

# Real processes on a shared machine: a test that fails is tried once more on a fresh control plane. What fails again fails
# the run; what passes then is printed with its first failure, and is a flaky test to be mended.
ON_CLUSTER = $(BIN)/python -m pytest tests/cluster tests/contract tests/faults -m cluster
cluster: setup ## tests on the real control plane, built once outside the checkout
	@$(ON_CLUSTER) || { [ $$? -eq 1 ] || exit 1; echo "FLAKY? What failed above, once more on a fresh control plane:"; \
	  $(ON_CLUSTER) --last-failed --last-failed-no-failures none --exitfirst; }

faults: setup ## rollouts on the real control plane behind the fault proxy for SECONDS, seed after seed; one JSON line
	@$(BIN)/python -m tests.faults --seconds $(SECONDS)

sim: setup ## simulate UPGRADES node upgrades with faults in virtual time, and hunt the mutants; one JSON line
	@$(BIN)/python -m tests.sim --upgrades $(UPGRADES)

pairs: setup ## simulate a killed process twice: every pair of writes of 13 scenes, at every pair of moments (two hours of a core)
	@$(BIN)/python -m tests.sim.pairs

soak: setup ## simulate a million node upgrades over all cores; goes on where it was stopped (soak.jsonl)
	@$(BIN)/python -m tests.sim.soak

endurance: setup ## live through weeks of virtual time for MINUTES: what grows, what is asked at rest; a table and a JSON line
	@$(BIN)/python -m tests.sim.endurance --minutes $(MINUTES)

bench: setup ## roll NODES nodes PARALLEL at a time, REPEAT times, beside the floor, and beside broken ones; table, JSON
	@$(BIN)/python -m tools.bench --nodes $(NODES) --parallel $(PARALLEL) --repeat $(REPEAT) --broken

dashboard: setup ## draw docs/dashboard.png from a real rollout (needs Debian's prometheus and prometheus-alertmanager)
	@PIP_CONSTRAINT=constraints.txt $(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev,docs]'
	@$(BIN)/python -m tools.monitoring

control-plane: setup ## build the control plane, then run one until Ctrl-C
	@$(BIN)/python -m tools.controlplane run

image: setup ## build the controller's image from the Dockerfile, without a container engine
	@$(BIN)/python -m tools.image build

image-test: setup ## the image, really built and run
	$(BIN)/python -m pytest tests/image

e2e: setup ## the image and the manifests on one real kubelet with containerd, in namespaces of its own; needs root on Linux
	@$(BIN)/python -m tools.e2e

docs: setup ## regenerate what is generated in docs/ and manifests/monitoring
	$(BIN)/python -m tools.policy_docs
	$(BIN)/python -m tools.alerts
	$(BIN)/python -m tools.monitoring.dashboard

constraints: setup ## pin the newest versions that pyproject.toml allows
	$(BIN)/python -m pip install --quiet --upgrade --upgrade-strategy eager -e '.[dev]'
	{ head -2 constraints.txt; $(BIN)/python -m pip freeze --exclude-editable --exclude pip --exclude setuptools; } > constraints.new
	mv constraints.new constraints.txt

lock: setup ## hashed locks of what the image installs, from pyproject.toml and constraints.txt
	@test -x $(VENV)/lock/bin/uv || { $(PYTHON) -m venv $(VENV)/lock && $(VENV)/lock/bin/python -m pip install --quiet uv==0.13.9; }
	$(call relock,pyproject.toml,requirements.lock)
	echo 'hatchling>=1.27' > lock.in && $(call relock,lock.in,requirements-build.lock) && rm lock.in
	$(call relock,tools/supplychain/requirements.in,tools/supplychain/requirements.lock)

sbom: setup ## the image's bill of materials (CycloneDX JSON), out/sbom.cdx.json
	@$(BIN)/python -m tools.supplychain sbom

licences: setup ## write docs/licences.md
	@$(BIN)/python -m tools.supplychain licences

audit: setup ## look the locked packages up among known vulnerabilities; ADVISORIES=/path/to/advisory-database without network
	@$(BIN)/python -m tools.supplychain audit $(if $(ADVISORIES),--advisories $(ADVISORIES))

clean: ## remove the virtual environment and caches of the checkout (not the control plane's build)
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis
