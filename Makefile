# Every command of this repository; CI runs `make test` and the five targets beside it, in `.ci/run`.
#
# Where no cluster is given, a real one (API server, kubelet, containerd) is built and started on this machine by
# tools/localcluster. With KUBECONFIG or RETUNE_KUBECONTEXT set, the demo and the end to end tests use that cluster
# instead; it must already be able to pull the images, as after `make kind-up`. Tests against the API server and fault
# tests always start a control plane of their own, so that no other cluster is touched.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.NOTPARALLEL:

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PY := $(BIN)/python
STAMP := $(VENV)/.installed
PIP := $(PY) -m pip install --quiet --disable-pip-version-check --no-deps
LOCALCLUSTER := $(PY) -m tools.localcluster
CACHE := $${RETUNE_CACHE:-$${XDG_CACHE_HOME:-$$HOME/.cache}/retune}
MINILM := RETUNE_CACHE="$(CACHE)/downloads" $(PY) -m tools.minilm.files
IN_OPTIMIZER := $(MINILM) && $(LOCALCLUSTER) inside optimizer -- python -m tests.optimizer
IN_MONITOR := $(LOCALCLUSTER) inside monitor -- python
# What `pip install '.[local]'` brings, from the locks, in an environment of its own beside the tools of .venv.
LOCAL := $(CACHE)/downloads/local
IN_LOCAL := RETUNE_CACHE="$(CACHE)/downloads" "$(LOCAL)/bin/python"

# The real Triton Inference Server, from its lock, in an environment of its own.
TRITON := $(CACHE)/downloads/triton

# The real MLflow, from its lock, in an environment of its own.
MLFLOW := $(CACHE)/downloads/mlflow
# Microsoft's emulator of Azure Blob Storage, which `make test-neighbours-azure` installs and tests against.
AZURITE := $(CACHE)/downloads/azurite
# Where KServe's fetcher of models is installed, which `make test-neighbours-oci` runs.
FETCHER := $(CACHE)/downloads/fetcher

# Libraries that report home are told not to, here as in every image.
export DO_NOT_TRACK := 1
export ORT_DISABLE_TELEMETRY := 1

# `local` unless the caller brought a cluster.
CLUSTER := $(if $(KUBECONFIG)$(RETUNE_KUBECONTEXT),given,local)
USE_CLUSTER := $(if $(filter local,$(CLUSTER)),settings="$$($(LOCALCLUSTER) env)"; eval "$$settings";)

# $(call stage,name,expected duration,command): one headed, timed step of a long run.
define stage
@printf '\n==> %s (about %s)\n' '$(1)' '$(2)'; began=$$SECONDS; $(3); \
	printf '==> %s: done in %d s\n' '$(1)' $$((SECONDS - began))
endef

# $(call room,GB,what): stop before anything begins where a disk has less free space; a full one fails many tests in odd ways.
define room
@mkdir -p "$(CACHE)"; df -Pm . "$${TMPDIR:-/tmp}" "$(CACHE)" | awk -v least=$(1) -v what='$(2)' 'NR > 1 && $$4 < least * 1000 { \
	printf "%s needs %d GB free where %s is mounted, and %.1f GB are: remove what you can, or set TMPDIR and RETUNE_CACHE to another disk\n", \
	what, least, $$6, $$4 / 1000; exit 1 }' >&2
endef

.PHONY: help
help: ## List the targets.
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# --- tools -----------------------------------------------------------------------------------------------------------

.PHONY: venv
venv: $(STAMP) ## Build .venv from its lock (1 min the first time, then nothing).

$(STAMP): requirements/dev.txt pyproject.toml
	@echo 'Building .venv from requirements/dev.txt: about 1 min ...'
	@test -x $(PY) || $(PYTHON) -m venv $(VENV)
	@$(PIP) --require-hashes --requirement requirements/dev.txt
	@$(PIP) --no-build-isolation --no-index --editable .
	@touch $@

.PHONY: local-venv
local-venv: $(STAMP) ## Build the environment of a person without a cluster, as `make test-foreign` needs it (2 min the first time).
	@cat requirements/dev.txt requirements/optimizer.txt | cmp --silent - "$(LOCAL)/lock.txt" || { \
		echo 'Installing what a person without a cluster has: about 2 min ...'; \
		rm -rf "$(LOCAL)"; $(PYTHON) -m venv "$(LOCAL)"; \
		for lock in dev optimizer; do "$(LOCAL)/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps \
			--require-hashes --requirement "requirements/$$lock.txt"; done; \
		cat requirements/dev.txt requirements/optimizer.txt > "$(LOCAL)/lock.txt"; }

.PHONY: triton-venv
triton-venv: $(STAMP) ## Build the environment of the server that `make test-neighbours-triton` starts (30 s the first time).
	@cmp --silent requirements/neighbours/triton.txt "$(TRITON)/lock.txt" || { \
		echo 'Installing Triton Inference Server: about 30 s ...'; \
		rm -rf "$(TRITON)"; $(PYTHON) -m venv "$(TRITON)"; \
		"$(TRITON)/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes \
			--requirement requirements/neighbours/triton.txt; \
		cp requirements/neighbours/triton.txt "$(TRITON)/lock.txt"; }

.PHONY: mlflow-venv
mlflow-venv: $(STAMP) ## Build the environment of the server that `make test-neighbours-mlflow` starts (1 min the first time).
	@cmp --silent requirements/neighbours/mlflow.txt "$(MLFLOW)/lock.txt" || { \
		echo 'Installing MLflow: about 1 min ...'; \
		rm -rf "$(MLFLOW)"; $(PYTHON) -m venv "$(MLFLOW)"; \
		"$(MLFLOW)/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes \
			--requirement requirements/neighbours/mlflow.txt; \
		cp requirements/neighbours/mlflow.txt "$(MLFLOW)/lock.txt"; }

.PHONY: fetcher-venv
fetcher-venv: $(STAMP) ## Build the environment of KServe's fetcher, which `make test-neighbours-oci` runs (10 s the first time).
	@cmp --silent requirements/neighbours/fetcher.txt "$(FETCHER)/lock.txt" || { \
		echo "Installing KServe's fetcher of models: about 10 s ..."; \
		rm -rf "$(FETCHER)"; $(PYTHON) -m venv "$(FETCHER)"; \
		"$(FETCHER)/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes \
			--requirement requirements/neighbours/fetcher.txt; \
		cp requirements/neighbours/fetcher.txt "$(FETCHER)/lock.txt"; }

# $(call lock,name,arguments): requirements/name.txt, complete and hashed, free of addresses and paths.
define lock
@echo 'Locking requirements/$(1).txt ...'
@{ echo '# Made by `make lock` from pyproject.toml; install with pip --no-deps --require-hashes.'; \
	$(BIN)/uv pip compile --quiet pyproject.toml --universal --python-version 3.11 --upgrade --generate-hashes \
	--no-emit-index-url --no-annotate --no-header $(2); } > requirements/$(1).new
@mv requirements/$(1).new requirements/$(1).txt
endef

# $(call lock_server,name): the lock of a quickstart's environment, with the runtime's own libraries as the optimizer has
# them; the rest is as its server wants it.
define lock_server
@echo 'Locking requirements/server-$(1).txt ...'
@{ echo '# Made by `make lock` from tools/runtime and examples/servers/$(1); install with pip --no-deps --require-hashes.'; \
	$(BIN)/uv pip compile --quiet tools/runtime/pyproject.toml --extra capture examples/servers/$(1)/requirements.txt \
	--universal --python-version 3.11 --upgrade --generate-hashes --no-emit-index-url --no-annotate --no-header \
	--constraints <(sed -En '/^($(RUNTIME))==/s/ .*//p' requirements/optimizer.txt); } > requirements/server-$(1).new
@mv requirements/server-$(1).new requirements/server-$(1).txt

endef

# $(call lock_runtime): the lock of retune-runtime by itself, beside servers of others.
define lock_runtime
@echo 'Locking requirements/runtime.txt ...'
@{ echo '# Made by `make lock` from tools/runtime; install with pip --no-deps --require-hashes.'; \
	$(BIN)/uv pip compile --quiet tools/runtime/pyproject.toml --extra remote --universal --python-version 3.11 --upgrade \
	--generate-hashes --no-emit-index-url --no-annotate --no-header $(AS_OPTIMIZER); } > requirements/runtime.new
@mv requirements/runtime.new requirements/runtime.txt

endef

# The optimizer's lock comes first and constrains the others, so that host, Jobs and model server run one version of
# each library. torch has a lock, and an image layer, of its own below the rest.
AS_OPTIMIZER := --constraints requirements/optimizer.txt
AS_OPTIMIZER_BUT_NUMPY := --constraints <(grep -o '^[a-z0-9.-]*==[^ ]*' requirements/optimizer.txt | grep -v '^numpy==')
RUNTIME := ml-dtypes|numpy|onnx|onnxruntime|prometheus-client|protobuf|pyarrow|pydantic
SERVERS := bentoml fastapi kserve mlserver ray_serve

.PHONY: lock
lock: $(STAMP) ## Resolve every lock in requirements/ anew (1 min).
	$(call lock,optimizer,--extra jobs --extra training --extra boosters --extra engines --extra remote --excludes <(printf 'torch\nopenvino-telemetry\nplotly\ngraphviz\nhf-xet\ntyper\n'))
	$(call lock,torch,--extra torch $(AS_OPTIMIZER))
	$(call lock,monitor,--extra monitor --extra remote $(AS_OPTIMIZER))
	$(call lock,server,--extra server --extra engines --extra remote --excludes <(echo openvino-telemetry) $(AS_OPTIMIZER))
	$(call lock,operator,--extra operator $(AS_OPTIMIZER))
	$(call lock_runtime)
	$(call lock,peers,--extra peers --excludes <(echo torch) $(AS_OPTIMIZER))
	$(call lock,neighbours/triton,--extra triton --excludes <(printf 'grpcio\nimportlib-metadata\npyzmq\nsh\ntritonclient\ntyper\ntyping-inspect\nwrapt\n') $(AS_OPTIMIZER_BUT_NUMPY))
	$(call lock,neighbours/mlflow,--extra mlflow)
	$(call lock,neighbours/fetcher,--extra fetcher --excludes <(printf '%s\n' aiohttp azure-core azure-identity azure-storage-blob azure-storage-file-share boto3 cryptography dulwich google-cloud-storage hf-xet huggingface-hub modelscope-hub pyasn1 pyjwt))
	$(call lock,neighbours/rdb,--extra rdb --excludes <(echo pydantic))
	$(call lock,neighbours/streams,--extra streams --no-deps --excludes <(echo pydantic))
	$(call lock,dev,--extra operator --extra cli --extra jobs --extra remote --extra dev --excludes <(echo python-rapidjson) $(AS_OPTIMIZER))
	$(foreach server,$(SERVERS),$(call lock_server,$(server)))

.PHONY: crds
crds: $(STAMP) ## Generate crds/ from retune.api.
	@$(PY) -m retune.api.generate

WHEELS := out/wheels

.PHONY: runtime-wheel
runtime-wheel: $(STAMP) ## Build retune-runtime, what a model server of your own needs to serve bundles, into out/wheels (5 s, no network).
	@$(PY) -m pip wheel --quiet --disable-pip-version-check --no-build-isolation --no-index --no-deps \
		--wheel-dir $(WHEELS) tools/runtime
	@ls $(WHEELS)/retune_runtime-*.whl

.PHONY: docs
docs: $(STAMP) ## Generate docs/reference/ from the CRDs and the command line.
	@$(PY) -m tools.docs

# --- checks ----------------------------------------------------------------------------------------------------------

.PHONY: lint
lint: $(STAMP) ## Style, types, import rules, fresh CRDs and references, links of the documentation (30 s).
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --quiet --check .
	@$(BIN)/mypy operator/retune optimizer_jobs tests examples tools
	@$(BIN)/lint-imports
	@$(PY) -m retune.api.generate --check
	@$(PY) -m tools.docs --check
	@$(PY) -m tools.docs.links

.PHONY: test-fast
test-fast: $(STAMP) ## Lint, and unit tests but the slow ones, with fewer examples of each property: no cluster, 2 min.
	$(call stage,lint,30 s,$(MAKE) --no-print-directory lint)
	$(call stage,unit tests,90 s,RETUNE_TEST_PROFILE=brief $(PY) -m pytest -n 2 -m 'not slow' tests/unit)

.PHONY: simulate
simulate: $(STAMP) ## Play histories of the control loop in an unreliable cluster, and change specs at any moment, from printed seeds (14 min; HISTORIES=1000 for fewer).
	$(call stage,simulation,6 min,PYTHONPATH=operator:. $(PY) -m tests.unit.plan.simulation $(HISTORIES))
	$(call stage,changes of mind,4 min,RETUNE_TEST_SEQUENCES=80 $(PY) -m pytest -s tests/cluster/test_operations.py)
	$(call stage,simulation of routes,2 min,PYTHONPATH=operator:. $(PY) -m tests.unit.plan.simulation_routed)
	$(call stage,hostile specs,2 min,RETUNE_TEST_SPECS=200 $(PY) -m pytest -s tests/cluster/test_hostile_specs.py)

.PHONY: coverage
coverage: $(STAMP) ## Which lines of the operator the unit and API server tests run: out/coverage/index.html (6 min).
	@$(LOCALCLUSTER) binaries
	$(call stage,unit and API server tests under coverage,6 min,$(PY) -m coverage run -m pytest tests/unit tests/cluster)
	@$(PY) -m coverage html --quiet && $(PY) -m coverage report

.PHONY: test-jobs
test-jobs: $(STAMP) ## Tests of whole Jobs, guides among them, run here as processes (6 min).
	$(call stage,tests of whole Jobs,6 min,$(PY) -m pytest -n 2 tests/jobs)

.PHONY: test
test: $(STAMP) ## What runs without containers, but for guides, faults and the longest runs: units, whole Jobs, models of others, a real API server (25 min the first time, 15 min after).
	$(call room,5,make test)
	@printf 'Stages: lint, unit, whole Jobs, foreign models, Kubernetes binaries, object stores, API server.\n'
	$(call stage,lint,30 s,$(MAKE) --no-print-directory lint)
	$(call stage,unit tests,3 min,$(PY) -m pytest -n 2 tests/unit)
	$(call stage,tests of whole Jobs,4 min,$(PY) -m pytest -n 2 -m 'not slow' tests/jobs)
	$(call stage,a slice of the models of others,5 min and 2 min more the first time,$(MAKE) --no-print-directory test-foreign-slice)
	$(call stage,Kubernetes binaries,9 min the first time and nothing after,$(LOCALCLUSTER) binaries)
	$(call stage,tests against object stores,4 min and 3 min more the first time,RETUNE_AZURITE=none $(PY) -m pytest -n 2 --dist loadfile tests/storage)
	$(call stage,tests against the API server,2 min,$(PY) -m pytest -n 2 --dist loadfile -m 'not slow' tests/cluster)

.PHONY: test-guides
test-guides: $(STAMP) ## The guide for people without a cluster word by word, the examples it leads to, and the longest tests of Jobs (6 min).
	$(call stage,guides and examples and long runs,6 min,$(PY) -m pytest -n 2 -m slow tests/jobs)

.PHONY: test-faults
test-faults: $(STAMP) ## Faults and disasters on a real API server: killed anywhere, cut off, restored, changed at any moment (7 min).
	@$(LOCALCLUSTER) binaries
	$(call stage,an operator that is killed at every call,4 min,$(PY) -m pytest tests/faults)
	$(call stage,faults and disasters,3 min,$(PY) -m pytest -n 2 --dist loadfile -m slow tests/cluster)

.PHONY: test-images
test-images: test-optimizer test-monitor ## Tests inside the images: what needs torch, OpenVINO or Evidently (11 min, 9 more the first time).

.PHONY: test-journeys
test-journeys: $(STAMP) ## Journeys on a real kubelet that take no windows of real time (8 min, 8 more the first time).
	$(call stage,$(CLUSTER) cluster,8 min the first time and 1 min after,$(MAKE) --no-print-directory $(CLUSTER)-cluster)
	$(call stage,end to end tests,8 min,$(USE_CLUSTER) $(PY) -m pytest -n 2 --dist loadfile tests/e2e -m 'not windows and not verdicts')

.PHONY: test-neighbours-gateway
test-neighbours-gateway: $(STAMP) ## A canary by the weights of a real Envoy Gateway on the local cluster, with its requests counted (8 min, 16 more the first time).
	@$(MAKE) --no-print-directory local-cluster
	$(call stage,Envoy Gateway,8 min the first time and nothing after,$(LOCALCLUSTER) gateway)
	$(call stage,a canary by the weights of a real gateway,8 min,settings="$$($(LOCALCLUSTER) env)"; eval "$$settings"; $(PY) -m pytest -s tests/neighbours/test_gateway.py)

.PHONY: test-windows
test-windows: $(STAMP) ## Journeys that take windows of real time, on a real cluster: from drift to recovery (10 min).
	@$(MAKE) --no-print-directory $(CLUSTER)-cluster
	$(call stage,journeys over windows,10 min,$(USE_CLUSTER) $(PY) -m pytest -s tests/e2e -m windows)

.PHONY: test-verdicts
test-verdicts: $(STAMP) ## What an owner is told of a segment that is lost and of rows that nobody can judge, on a real cluster (7 min).
	@$(MAKE) --no-print-directory $(CLUSTER)-cluster
	$(call stage,verdicts,7 min,$(USE_CLUSTER) $(PY) -m pytest -s tests/e2e -m verdicts)

# What a neighbour does: first beside an API server without a kubelet, then on a real cluster under requests.
.PHONY: test-neighbours-argo-rollouts
test-neighbours-argo-rollouts: $(STAMP) ## A Rollout as target under Argo's own controller, built on first use (7 min, 4 more the first time).
	$(call stage,Argo Rollouts,4 min the first time and nothing after,$(LOCALCLUSTER) binaries kubernetes argo-rollouts)
	$(call stage,its controller beside an API server,1 min,$(PY) -m pytest tests/neighbours/controllers/test_argo_rollouts.py)
	@$(MAKE) --no-print-directory $(CLUSTER)-cluster
	$(call stage,journeys,6 min,$(USE_CLUSTER) $(PY) -m pytest -s tests/neighbours/journeys/test_argo_rollouts.py)

.PHONY: test-neighbours-kserve
test-neighbours-kserve: $(STAMP) ## An InferenceService as target under KServe's own controller, built on first use (2 min, 8 more the first time).
	$(call stage,KServe,8 min the first time and nothing after,$(LOCALCLUSTER) binaries kubernetes helm kserve)
	$(call stage,its controller beside an API server,2 min,$(PY) -m pytest tests/neighbours/controllers/test_kserve.py)

.PHONY: test-neighbours-capture
test-neighbours-capture: triton-venv ## What KServe's logger, a Triton and a proxy capture, held against our own capture (3 min, 10 more the first time).
	$(call stage,KServe and an object store,11 min the first time and nothing after,$(LOCALCLUSTER) binaries kserve storage kubernetes helm)
	$(call stage,captured by others and by us,3 min,RETUNE_TRITON="$(TRITON)" $(PY) -m pytest tests/neighbours/servers/test_capture_kserve.py \
		tests/neighbours/servers/test_capture_triton.py tests/neighbours/controllers/test_kserve_logger.py)

.PHONY: test-neighbours-flux
test-neighbours-flux: $(STAMP) ## A target that Git declares, under Flux's own controller, built on first use (2 min, 5 more the first time).
	$(call stage,Flux,5 min the first time and nothing after,$(LOCALCLUSTER) binaries kubernetes flux)
	$(call stage,its controller beside an API server,2 min,$(PY) -m pytest tests/neighbours/controllers/test_flux.py)

.PHONY: test-neighbours-kueue
test-neighbours-kueue: $(STAMP) ## Jobs that wait in a queue, under Kueue's own controller, built on first use (3 min, 6 more the first time).
	$(call stage,Kueue,6 min the first time and nothing after,$(LOCALCLUSTER) binaries kubernetes helm kueue)
	$(call stage,its controller beside an API server,3 min,$(PY) -m pytest tests/neighbours/controllers/test_kueue.py)

.PHONY: test-neighbours-triton
test-neighbours-triton: triton-venv ## What is written for and given to a real Triton, with ONNX Runtime played, and judged through it (7 min, 1 more the first time).
	$(call stage,a real Triton,3 min,RETUNE_TRITON="$(TRITON)" $(PY) -m pytest tests/neighbours/servers/test_triton.py \
		tests/neighbours/servers/test_triton_running.py tests/neighbours/servers/test_agent_triton.py)
	$(call stage,the judge beside it,4 min,RETUNE_TRITON="$(TRITON)" $(PY) -m pytest tests/neighbours/servers/test_triton_judged.py)

.PHONY: test-neighbours-pods
test-neighbours-pods: $(STAMP) ## Stock Tritons as pods of the local cluster: prepared, followed, given versions by the key, and beside the judge, by the manifests of docs/ (13 min, 4 more the first time).
	@$(MAKE) --no-print-directory local-cluster
	$(call stage,stock Tritons as pods,13 min and 4 more the first time,settings="$$($(LOCALCLUSTER) env)"; eval "$$settings"; $(PY) -m pytest -s tests/neighbours/pods)

.PHONY: test-neighbours-mlflow
test-neighbours-mlflow: mlflow-venv ## A real MLflow: models in it are read, and accepted versions registered, by its REST API (4 min, 4 more the first time).
	$(call stage,an object store,3 min the first time and nothing after,$(LOCALCLUSTER) binaries storage)
	$(call stage,a real MLflow,4 min,RETUNE_MLFLOW="$(MLFLOW)" $(PY) -m pytest tests/neighbours/servers/test_mlflow.py tests/neighbours/servers/test_mlflow_registers.py)

# npm installs by the digests of the lock, which names no registry; no package's script is run.
.PHONY: azurite
azurite: ## Install Microsoft's emulator of Azure Blob Storage, which tests then use (2 min the first time).
	@command -v npm >/dev/null || { echo 'npm is not on PATH; it comes with Node.js and installs Azurite.' >&2; exit 1; }
	@cmp --silent tests/storage/azurite/package-lock.json "$(AZURITE)/installed.json" || { \
		echo 'Installing Azurite: about 2 min ...'; rm -rf "$(AZURITE)"; mkdir -p "$(AZURITE)"; \
		cp tests/storage/azurite/package.json tests/storage/azurite/package-lock.json "$(AZURITE)"; \
		(cd "$(AZURITE)" && npm ci --ignore-scripts --no-audit --no-fund); \
		cp tests/storage/azurite/package-lock.json "$(AZURITE)/installed.json"; }

.PHONY: test-neighbours-azure
test-neighbours-azure: $(STAMP) azurite ## az:// as a store and a source, on Microsoft's emulator (3 min, 2 more the first time).
	$(call stage,az:// on Azurite,3 min,RETUNE_AZURITE="$(AZURITE)" $(PY) -m pytest -n 2 --dist loadfile -k az tests/storage)

.PHONY: test-neighbours-oci
test-neighbours-oci: fetcher-venv ## Bundles as images in a real registry, pulled by tools of others (2 min, 3 more the first time).
	$(call stage,a registry of images,3 min the first time and nothing after,$(LOCALCLUSTER) binaries registry)
	$(call stage,a real registry,2 min,RETUNE_KSERVE_STORAGE="$(FETCHER)" $(PY) -m pytest tests/neighbours/servers/test_oci.py)

# $(call install_server,name): an environment with the quickstart's server from its lock, and retune-runtime as built.
SERVER_VENVS := $(CACHE)/downloads/servers
define install_server
@cmp --silent "requirements/server-$(1).txt" "$(SERVER_VENVS)/$(1)/lock.txt" || { \
	echo 'Installing what examples/servers/$(1) needs: about 1 min ...'; rm -rf "$(SERVER_VENVS)/$(1)"; \
	$(PYTHON) -m venv "$(SERVER_VENVS)/$(1)"; "$(SERVER_VENVS)/$(1)/bin/python" -m pip install --quiet \
		--disable-pip-version-check --no-deps --require-hashes --requirement "requirements/server-$(1).txt"; \
	cp "requirements/server-$(1).txt" "$(SERVER_VENVS)/$(1)/lock.txt"; }
@"$(SERVER_VENVS)/$(1)/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps --no-index \
	--force-reinstall $(WHEELS)/retune_runtime-*.whl

endef

.PHONY: server-venvs
server-venvs: runtime-wheel
	$(foreach server,$(SERVERS),$(call install_server,$(server)))

.PHONY: test-neighbours-servers
test-neighbours-servers: server-venvs ## The quickstarts of examples/servers as real servers of a real bundle, whole and damaged, and a Ray Serve that is given versions while it runs (5 min, 5 more the first time).
	$(call stage,real servers,5 min,RETUNE_SERVERS="$(SERVER_VENVS)" $(PY) -m pytest tests/neighbours/servers/test_quickstarts.py \
		tests/neighbours/servers/test_agent_ray.py)

.PHONY: test-demo
test-demo: $(STAMP) ## make demo from nothing, and what it printed held against what it left; for every night (15 min).
	@$(MAKE) --no-print-directory $(CLUSTER)-cluster
	$(call stage,the demo,15 min,$(USE_CLUSTER) $(PY) -m pytest -s tests/demo)

.PHONY: test-demo-strict
test-demo-strict: $(STAMP) ## The same in the local cluster with network policies enforced: who may not ask the model server cannot (15 min, 3 more the first time).
	@$(MAKE) --no-print-directory local-cluster
	$(call stage,the demo with network policies enforced,15 min and 3 more the first time,trap '$(LOCALCLUSTER) policies --off' EXIT; \
		$(LOCALCLUSTER) policies; settings="$$($(LOCALCLUSTER) env)"; eval "$$settings"; RETUNE_POLICIES=enforced $(PY) -m pytest -s tests/demo)

.PHONY: test-optimizer
test-optimizer: $(STAMP) ## Tests of what needs torch or OpenVINO, inside the optimizer image (10 min, 6 more the first time).
	$(call stage,tests in the optimizer image,10 min,$(IN_OPTIMIZER) -n 2 -m torch tests/optimizer tests/jobs tests/unit/jobs)

.PHONY: test-monitor
test-monitor: $(STAMP) ## Tests of what needs Evidently, inside the monitor image (5 min, 3 more the first time).
	$(call stage,tests in the monitor image,5 min,$(IN_MONITOR) -m tests.optimizer -n 2 tests/monitor)

.PHONY: test-foreign-slice
test-foreign-slice: local-venv ## The same for six of the models (5 min).
	@$(IN_LOCAL) -m pytest -n 2 -m slice tests/foreign

.PHONY: test-foreign
test-foreign: local-venv ## Optimize every model of tests/foreign, made by others, and check each without our code (50 min).
	$(call stage,models of others,50 min,$(IN_LOCAL) -m pytest -n 2 tests/foreign)

.PHONY: bench-control
bench-control: $(STAMP) ## Measure the control loop on an API server of its own, beside Argo Rollouts: latency, API writes, memory (15 min).
	@$(LOCALCLUSTER) binaries kubernetes argo-rollouts
	@$(PY) -m tests.bench.control

.PHONY: bench-rollout
bench-rollout: $(STAMP) ## How long a canary takes beside its holds, and how soon harm ends it, beside Argo Rollouts (8 min, 4 more the first time).
	@$(LOCALCLUSTER) binaries kubernetes argo-rollouts
	@$(PY) -m tests.bench.rollouts

.PHONY: bench-noisy
bench-noisy: $(STAMP) ## What pods with hostile metrics cost the resources of others (2 min).
	@$(PY) -m tests.bench.noisy

.PHONY: bench-watching
bench-watching: $(STAMP) ## Measure the watch over 10, 100 and 1000 champions: lateness, API writes, CPU, memory (25 min).
	@$(LOCALCLUSTER) binaries
	@$(PY) -m tests.bench.watching

.PHONY: bench-check-host
bench-check-host: $(STAMP) ## What checks of 100 models cost with a check host and without: CPU, memory, lateness (8 min; ARGS="1000" for more).
	@$(IN_MONITOR) -m tests.bench.check_host $(ARGS)

.PHONY: bench-verdicts
bench-verdicts: $(STAMP) ## How often a verdict deceives on rare classes, with the old defaults beside (20 min; ARGS="--draws 15" for more).
	@$(PY) -m tests.bench.verdicts $(ARGS)

.PHONY: bench-error-rates
bench-error-rates: $(STAMP) ## 1,040 whole verdicts on candidates of known true loss, against the stated error rate (15 min).
	@$(PY) -m tests.bench.error_rates $(ARGS)

.PHONY: bench-analysis
bench-analysis: $(STAMP) ## How often the judging of a canary errs, and how soon it sees harm, beside the rules of others (7 min; ARGS="--kept 2000" for narrower intervals).
	@PYTHONPATH=operator:. nice $(PY) -m tests.bench.analysis $(ARGS)

# The driver of PostgreSQL, from its lock, in a folder of its own that only Optuna's own workers look into.
RDB := $(CACHE)/downloads/rdb

.PHONY: bench-stores
bench-stores: $(STAMP) ## What stores of objects cost beside a shared folder, how 1 to 8 workers share a search, beside Optuna's storage in PostgreSQL, and 64 simulated (40 min; ARGS="--parts crowd" for one).
	@cmp --silent requirements/neighbours/rdb.txt "$(RDB)/lock.txt" || { \
		echo 'Installing the driver of PostgreSQL: about 10 s ...'; rm -rf "$(RDB)"; \
		$(PIP) --require-hashes --target "$(RDB)" --requirement requirements/neighbours/rdb.txt \
		&& cp requirements/neighbours/rdb.txt "$(RDB)/lock.txt"; }
	@PYTHONPATH=operator:. $(PY) -m tests.bench.stores --drivers "$(RDB)" $(ARGS)

.PHONY: bench-servers
bench-servers: $(STAMP) ## Whether the quickstarts of examples/servers show the judged speed (9 min, 5 more the first time).
	@$(MAKE) --no-print-directory server-venvs
	@RETUNE_SERVERS="$(SERVER_VENVS)" PYTHONPATH=operator:. $(PY) -m tests.bench.servers

.PHONY: bench-capturing
bench-capturing: $(STAMP) ## What capturing requests costs the example's server, in latency (3 min).
	@$(PY) -m tests.bench.capturing

# What a check, a search and a judge need in one process, from the locks, and the two packages whose data is played.
STREAMS := $(CACHE)/downloads/streams
IN_STREAMS := PYTHONPATH="operator:.:$(STREAMS)/monitor" OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 nice env $(IN_LOCAL)

.PHONY: streams-packages
streams-packages: local-venv
	@cat requirements/monitor.txt requirements/neighbours/streams.txt "$(LOCAL)/lock.txt" | cmp --silent - "$(STREAMS)/lock.txt" || { \
		echo 'Installing Evidently, flights and census: about 2 min ...'; rm -rf "$(STREAMS)"; \
		$(PIP) --require-hashes --target "$(STREAMS)/monitor" --requirement requirements/monitor.txt; \
		$(PIP) --require-hashes --no-build-isolation --target "$(STREAMS)/data" --requirement requirements/neighbours/streams.txt; \
		cat requirements/monitor.txt requirements/neighbours/streams.txt "$(LOCAL)/lock.txt" > "$(STREAMS)/lock.txt"; }

.PHONY: bench-monitoring
bench-monitoring: streams-packages ## False alarms, delays and cost of drift checks, beside Evidently's defaults (1 to 2 h, 2 min more the first time).
	@$(IN_STREAMS) -m tests.bench.monitoring $(ARGS)

.PHONY: bench-streams
bench-streams: streams-packages ## A year of flights and four of a census through the real loop, beside other ways to retrain (about 50 min on one core, 2 more the first time; ARGS="--streams flights" for one).
	@$(IN_STREAMS) -m tests.bench.streams --packages "$(STREAMS)/data" $(ARGS)

.PHONY: bench-estimates
bench-estimates: $(STAMP) ## Estimates of quality without labels on fourteen shifts whose labels are known (4 min; ARGS="--nannyml PYTHON" for NannyML's CBPE beside, with an interpreter that has it and statsmodels).
	@cmp --silent requirements/neighbours/streams.txt "$(STREAMS)/data/lock.txt" || { \
		echo 'Downloading flights and census ...'; rm -rf "$(STREAMS)/data"; \
		$(PIP) --require-hashes --no-build-isolation --target "$(STREAMS)/data" --requirement requirements/neighbours/streams.txt \
		&& cp requirements/neighbours/streams.txt "$(STREAMS)/data/lock.txt"; }
	@PYTHONPATH=operator:. OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 nice $(PY) -m tests.bench.estimates --packages "$(STREAMS)/data" $(ARGS)

.PHONY: bench-asking
bench-asking: $(STAMP) ## What labels that `retune labels suggest` asks for are worth beside labels at random, on eleven shifts (5 min).
	@cmp --silent requirements/neighbours/streams.txt "$(STREAMS)/data/lock.txt" || { \
		echo 'Downloading flights and census ...'; rm -rf "$(STREAMS)/data"; \
		$(PIP) --require-hashes --no-build-isolation --target "$(STREAMS)/data" --requirement requirements/neighbours/streams.txt \
		&& cp requirements/neighbours/streams.txt "$(STREAMS)/data/lock.txt"; }
	@PYTHONPATH=operator:. OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 nice $(PY) -m tests.bench.asking --packages "$(STREAMS)/data" $(ARGS)

PEERS := $(CACHE)/downloads/peers

.PHONY: bench-optimizer
bench-optimizer: $(STAMP) ## Compare the optimizer with Olive, NNCF + OpenVINO and ONNX Runtime (45 min; ARGS="--tighter 20" 22 more).
	@cmp --silent requirements/peers.txt "$(PEERS)/lock.txt" || { \
		echo 'Installing the peers: about 1 min ...'; rm -rf "$(PEERS)"; \
		$(PIP) --require-hashes --target "$(PEERS)" --requirement requirements/peers.txt \
		&& cp requirements/peers.txt "$(PEERS)/lock.txt"; }
	@$(MINILM) && $(LOCALCLUSTER) inside optimizer -- python -m tests.bench.optimizer $(ARGS)

.PHONY: bench-foreign
bench-foreign: local-venv ## The optimizer beside its peers over the networks of tests/foreign (50 min; ARGS="magika" for one).
	@PYTHONPATH=operator:. $(IN_LOCAL) -m tests.bench.foreign $(ARGS)

# --- clusters --------------------------------------------------------------------------------------------------------

.PHONY: cluster-up cluster-down cluster-status images
cluster-up: $(STAMP) ## Start the local cluster (8 min the first time, 20 s after).
	@$(LOCALCLUSTER) up

cluster-down: $(STAMP) ## Stop the local cluster; its binaries stay cached.
	@$(LOCALCLUSTER) down

cluster-status: $(STAMP) ## Say what runs and where its logs are.
	@$(LOCALCLUSTER) status

images: $(STAMP) ## Build the images and load them into the local cluster (8 min the first time).
	$(call room,5,an image build)
	@$(LOCALCLUSTER) images

.PHONY: boms
boms: $(STAMP) ## Write the bill of materials of every image to out/images, in CycloneDX (seconds).
	@PYTHONPATH=operator:. $(PY) -m tools.bom

.PHONY: local-cluster given-cluster
local-cluster: cluster-up
	$(call room,5,an image build)
	@$(LOCALCLUSTER) images operator optimizer monitor digits-server

given-cluster:
	@kubectl $(if $(RETUNE_KUBECONTEXT),--context "$(RETUNE_KUBECONTEXT)") version --request-timeout=10s >/dev/null \
		|| { echo 'The given cluster does not answer: check KUBECONFIG and RETUNE_KUBECONTEXT.' >&2; exit 1; }

# $(call need,probe,sentence): stop with a sentence when a probe fails.
need = @$(1) >/dev/null 2>&1 || { echo '$(2) Without it: make cluster-up images.' >&2; exit 1; }

KIND_CLUSTER ?= retune
KIND_IMAGES := operator monitor optimizer digits-server
dockerfile_operator := operator/Dockerfile
dockerfile_monitor := optimizer_jobs/monitor.Dockerfile
dockerfile_optimizer := optimizer_jobs/Dockerfile
dockerfile_digits-server := examples/digits/server/Dockerfile

.PHONY: kind-up kind-down
kind-up: ## Create a kind cluster, build the images with Docker, load them (10 min).
	$(call need,docker info,Docker does not answer; it builds the images.)
	$(call need,kind version,kind is not on PATH; it creates the cluster.)
	@kind get clusters | grep -qx '$(KIND_CLUSTER)' \
		|| kind create cluster --name '$(KIND_CLUSTER)' --config kind-config.yaml
	$(foreach image,$(KIND_IMAGES),$(call kind_image,$(image)))

define kind_image
@echo 'Building and loading the $(1) image ...'
@docker build --tag localhost/retune/$(1):dev --file $(dockerfile_$(1)) .
@kind load docker-image --name '$(KIND_CLUSTER)' localhost/retune/$(1):dev

endef

kind-down: ## Delete the kind cluster.
	$(call need,kind version,kind is not on PATH; it deletes its cluster.)
	@kind delete cluster --name '$(KIND_CLUSTER)'

# --- demo ------------------------------------------------------------------------------------------------------------

.PHONY: demo demo-clean
demo: $(STAMP) $(CLUSTER)-cluster ## Optimize a served digits classifier, shift its traffic, watch it recover (30 min the first time; RETUNE_STORE=s3 for no shared volume, RETUNE_TARGET=kserve for KServe).
	@test '$(RETUNE_STORE)-$(CLUSTER)' != s3-local || $(LOCALCLUSTER) object-store
	@test '$(RETUNE_TARGET)-$(CLUSTER)' != kserve-local || $(LOCALCLUSTER) kserve
	@$(USE_CLUSTER) $(PY) -m examples.digits.demo

demo-clean: $(STAMP) ## Remove what the demo created; the cluster stays.
	@$(USE_CLUSTER) $(PY) -m examples.digits.demo --clean

.PHONY: example-recommender example-recommender-clean
example-recommender: $(STAMP) $(CLUSTER)-cluster ## Make a recommender that is too slow and too large cheap, and tell before and after (25 min).
	@$(USE_CLUSTER) $(PY) -m examples.recommender.demo

example-recommender-clean: $(STAMP) ## Remove what the recommender example created; the cluster stays.
	@$(USE_CLUSTER) $(PY) -m examples.recommender.demo --clean

# --- tidying ---------------------------------------------------------------------------------------------------------

.PHONY: clean distclean
clean: ## Remove the venv, caches and outputs of this tree; the cluster and its binaries stay.
	@rm -rf $(VENV) out build dist *.egg-info operator/*.egg-info .hypothesis \
		.import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	@find operator optimizer_jobs tests examples tools -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true

distclean: ## Also stop the local cluster and remove its state, images and binaries.
	@test ! -x $(PY) || $(LOCALCLUSTER) down --purge
	@rm -rf "$${RETUNE_CACHE:-$${XDG_CACHE_HOME:-$$HOME/.cache}/retune}"
	@$(MAKE) --no-print-directory clean
