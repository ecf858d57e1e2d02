# `make` lists what there is. Every target sets up what it needs in .venv, once:
# its stamps there are older than pyproject.toml or constraints.txt only after a change.

PYTHON ?= python3
# serve: onnxruntime-gpu, which runs without a GPU too. serve-cpu: the small CPU-only build.
SERVE_EXTRA ?= serve
# An additional package index to take torch from, for instance one with its small CPU builds.
TORCH_INDEX_URL ?=
# Processes that share the tests, a file each at a time; 0: none but pytest's own, as a debugger needs it.
TEST_WORKERS ?= 2
# More arguments for pytest, the demo or the server: make test ARGS='-k image'
ARGS ?=

VENV := .venv
PY := $(VENV)/bin/python
PROTO_VENV := .venv-proto
PINS := pyproject.toml client/pyproject.toml constraints.txt
APP := $(VENV)/.installed-$(SERVE_EXTRA)
DEV := $(VENV)/.installed-$(SERVE_EXTRA)-dev
PROTO_TOOLS := $(PROTO_VENV)/.installed

# Both builds of ONNX Runtime fill the same package folder, so they can't stay side by side.
OTHER_serve := onnxruntime
OTHER_serve-cpu := onnxruntime-gpu
ifndef OTHER_$(SERVE_EXTRA)
$(error SERVE_EXTRA is '$(SERVE_EXTRA)'; expected serve or serve-cpu)
endif

export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
# Two targets at once would install into one environment at once.
.NOTPARALLEL:
.DELETE_ON_ERROR:
.PHONY: .there-is-a-model help demo serve test lint types format proto proto-check proto-breaking wheels clean clean-demo clean-all

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-15s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))
	@echo
	@echo "Variables: PYTHON=$(PYTHON) SERVE_EXTRA=$(SERVE_EXTRA) (or serve-cpu) TORCH_INDEX_URL=$(TORCH_INDEX_URL) TEST_WORKERS=$(TEST_WORKERS) ARGS=$(ARGS)"

PHOTOS ?=
demo: $(APP)  ## digits from training to search, then photographs (yours: PHOTOS=folder); trains only once
	@$(PY) -m demo $(if $(PHOTOS),--photos "$(PHOTOS)") $(ARGS)

MODELS ?= $(if $(wildcard models/*/*/manifest.json),models,demo/work/models)
serve: .there-is-a-model $(APP)  ## start the server on models/ (or the demo's model) and stay up
	@echo "Serving the models in $(MODELS)/"
	@exec $(VENV)/bin/fovea serve --model-repository "$(MODELS)" \
	  $(if $(filter demo/work/models,$(MODELS)),--default-model efficientnet-lite0) $(ARGS)

.there-is-a-model:
	@ls "$(MODELS)"/*/*/manifest.json >/dev/null 2>&1 || { \
	  echo "No model package in $(MODELS)/. 'make demo' trains one into demo/work/models/;"; \
	  echo "'fovea-train export' writes your own into models/; MODELS=folder names another place."; exit 1; }

test: $(DEV)  ## run the tests
	@$(PY) -m pytest --numprocesses $(TEST_WORKERS) --dist loadfile --no-loadscope-reorder $(ARGS)

lint: $(DEV)  ## check style, formatting and the protos
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/buf lint protos

types: $(DEV)  ## check types
	$(PY) -m mypy

format: $(DEV)  ## rewrite the formatting and what ruff can fix
	$(VENV)/bin/ruff format .
	$(VENV)/bin/ruff check --fix .

proto: $(PROTO_TOOLS)  ## regenerate client/fovea/v1 from protos/
	@PATH="$(CURDIR)/$(PROTO_VENV)/bin:$$PATH" PYTHON=$(PROTO_VENV)/bin/python sh protos/generate.sh

proto-check: $(PROTO_TOOLS)  ## fail when client/fovea/v1 is not what protos/ generates
	@fresh=$$(mktemp -d) && trap 'rm -rf "$$fresh"' EXIT && \
	PATH="$(CURDIR)/$(PROTO_VENV)/bin:$$PATH" PYTHON=$(PROTO_VENV)/bin/python sh protos/generate.sh "$$fresh" && \
	if diff -r -x __init__.py -x __pycache__ client/fovea/v1 "$$fresh/fovea/v1"; \
	then echo "client/fovea/v1 is fresh."; \
	else echo "client/fovea/v1 is stale or edited; run 'make proto' and commit what changes."; exit 1; fi

proto-breaking: $(DEV)  ## fail when protos/ breaks callers of the last tagged release
	@tags=$$(git tag --list 'v*' --merged HEAD) || \
	  { echo "git can't tell which releases there are, so nothing was compared."; exit 1; }; \
	[ -n "$$tags" ] || { echo "No tag v* yet: there is no released contract to break."; exit 0; }; \
	tag=$$(git describe --tags --abbrev=0 --match 'v*') && \
	released=$$(mktemp -d) && trap 'rm -rf "$$released"' EXIT && \
	git archive --output="$$released/protos.tar" "$$tag" protos && \
	tar -xf "$$released/protos.tar" -C "$$released" && \
	$(VENV)/bin/buf breaking protos --against "$$released/protos" && \
	echo "protos/ breaks nothing that $$tag had."

wheels: $(DEV)  ## build both distributions' wheels into dist/
	$(PY) -m build --wheel --outdir dist client
	$(PY) -m build --wheel --outdir dist .

clean:  ## remove what was built and cached; keeps the environments and the demo's work
	rm -rf dist build client/build *.egg-info client/*.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find service training client tests demo benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

clean-demo:  ## remove what the demo trained and made, so that the next one starts afresh
	rm -rf demo/work demo/summary.json demo/contact_sheet.png demo/photos.png

clean-all: clean  ## also remove .venv and .venv-proto
	rm -rf $(VENV) $(PROTO_VENV)

# $(call new-venv,folder)
define new-venv
	@command -v $(PYTHON) >/dev/null || { \
	  echo "There is no '$(PYTHON)' here. Fovea needs Python 3.11 or newer; on Debian and Ubuntu: apt install python3-venv"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "Fovea needs Python 3.11 or newer; '$(PYTHON)' is $$($(PYTHON) --version 2>&1). Name another: make PYTHON=python3.12 …"; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { \
	  echo "'$(PYTHON)' can't make virtual environments. On Debian and Ubuntu: apt install python3-venv"; exit 1; }
	@$(1)/bin/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv $(1)
endef

$(VENV)/.created:
	$(call new-venv,$(VENV))
	@touch $@

# $(call install,extras): both distributions in one call, since fovea-serving needs fovea-client.
define install
	@rm -f $(VENV)/.installed-*
	@if $(PY) -m pip show --quiet $(OTHER_$(SERVE_EXTRA)) 2>/dev/null; \
	then $(PY) -m pip uninstall --yes onnxruntime onnxruntime-gpu; fi
	$(PY) -m pip install $(if $(TORCH_INDEX_URL),--extra-index-url "$(TORCH_INDEX_URL)") \
	  -c constraints.txt -e ./client -e '.[$(1)]'
endef

$(APP): $(PINS) | $(VENV)/.created
	$(call install,$(SERVE_EXTRA)$(comma)train$(comma)pretrained)
	@touch $@

$(DEV): $(PINS) | $(VENV)/.created
	$(call install,$(SERVE_EXTRA)$(comma)openvino$(comma)bench$(comma)video$(comma)train$(comma)pretrained$(comma)dev)
	@touch $(APP) $@

comma := ,

# Pinned apart: generated code stays the same whatever the application's own versions are.
$(PROTO_TOOLS): protos/constraints.txt
	$(call new-venv,$(PROTO_VENV))
	$(PROTO_VENV)/bin/python -m pip install -c protos/constraints.txt grpcio-tools mypy-protobuf
	@touch $@
