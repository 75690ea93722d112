# Two folders of pictures in, a translator between them out. `make` alone lists the targets.
PYTHON     ?= python3
DOMAIN     ?= noto2twemoji
DIRECTION  ?= AtoB
PROCESSES  ?= 1
GENERATOR  ?= $(lastword $(sort $(wildcard runs/$(DOMAIN)/*/generators/G_$(subst to,,$(DIRECTION)))))
INPUT      ?= datasets/$(DOMAIN)/test$(firstword $(subst to, ,$(DIRECTION)))
OUTPUT     ?= outputs/$(DOMAIN)/$(DIRECTION)
BENCH      ?= step loader train startup
WORKERS    ?= 2
ARGS       ?=

VENV  := .venv
BIN   := $(VENV)/bin
STAMP := $(VENV)/.installed

# torchrun starts the processes, on GPUs and on CPUs alike.
ifeq ($(PROCESSES),1)
CYCLEGAN := $(BIN)/cyclegan
else
CYCLEGAN := $(BIN)/torchrun --nproc-per-node $(PROCESSES) -m cyclegan
endif

.DEFAULT_GOAL := help
.PHONY: help setup data train translate stylize evaluate app test test-slow lint bench clean

help: ## this table
	@echo "Two folders of pictures in, a translator between them out."
	@echo
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo
	@echo "  Variables: DOMAIN=$(DOMAIN) DIRECTION=$(DIRECTION) PROCESSES=$(PROCESSES) PYTHON=$(PYTHON)"
	@echo "             GENERATOR= INPUT= OUTPUT=  and ARGS='...', passed on to the command"

setup: $(STAMP) ## make .venv with everything that setup.cfg names

$(STAMP): setup.cfg pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing into $(VENV) (torch is large; the first time takes minutes) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

data: $(STAMP) ## fetch, check and unpack DOMAIN
	$(BIN)/cyclegan data prepare $(DOMAIN) $(ARGS)

train: $(STAMP) ## train both generators on DOMAIN
	$(CYCLEGAN) train $(DOMAIN) $(ARGS)

translate: $(STAMP) ## translate INPUT with GENERATOR (default: DOMAIN's newest) into OUTPUT
	@test -n "$(GENERATOR)" || { echo "make translate: no generator in runs/$(DOMAIN); 'make train' first, or name one: GENERATOR=" >&2; exit 2; }
	$(CYCLEGAN) translate "$(GENERATOR)" "$(INPUT)" "$(OUTPUT)" $(ARGS)

stylize: $(STAMP) ## give CONTENT (a picture or a folder) the look of STYLE, into OUTPUT
	@test -n "$(CONTENT)" && test -n "$(STYLE)" || { echo "make stylize: name the pictures: CONTENT=photo.jpg STYLE=painting.jpg OUTPUT=out.jpg" >&2; exit 2; }
	$(BIN)/cyclegan stylize "$(CONTENT)" "$(STYLE)" "$(OUTPUT)" $(ARGS)

evaluate: $(STAMP) ## judge GENERATOR (default: DOMAIN's newest) on held-out images
	@test -n "$(GENERATOR)" || { echo "make evaluate: no generator in runs/$(DOMAIN); 'make train' first, or name one: GENERATOR=" >&2; exit 2; }
	$(BIN)/cyclegan evaluate "$(GENERATOR)" $(ARGS)

app: $(STAMP) ## open a page to translate, train and look at runs with a mouse
	$(BIN)/cyclegan app $(ARGS)

test: $(STAMP) ## run the tests, in WORKERS processes; five to thirteen minutes on two cores
	$(BIN)/python -m pytest -m "not slow" -n $(WORKERS) --dist worksteal $(ARGS)

test-slow: $(STAMP) ## run the tests that train for minutes, in WORKERS processes
	$(BIN)/python -m pytest -m slow -n $(WORKERS) --dist load --maxschedchunk 1 --durations=12 $(ARGS)

lint: $(STAMP) ## check style and formatting
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

bench: $(STAMP) ## measure this machine (BENCH='step loader train startup', or translate, tiling, ...)
	@for name in $(BENCH); do $(BIN)/python benchmarks/$$name.py $(ARGS) || exit; done

clean: ## remove .venv and caches; datasets/ and runs/ stay
	rm -rf $(VENV) .pytest_cache .ruff_cache build dist *.egg-info
	find . -name __pycache__ -not -path './runs/*' -not -path './datasets/*' -prune -exec rm -rf {} +
