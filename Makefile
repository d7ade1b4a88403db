# Everything needs only Python 3.11 to 3.13 and make; what it installs goes into .venv (and .kafka).
PYTHON ?= python3
ARGS ?=
ONLY ?=
PACKAGES := stream_infer topologies features tests tools deploy benchmarks
.DEFAULT_GOAL := help
.PHONY: help demo test faults bench check evaluate lock clean environment kafka

help:  ## Show these lines
	@sed -n 's/^\([a-z]*\):.*  ## /  make \1\t/p' $(MAKEFILE_LIST) | expand -t 18

demo:  ## Predict flight delays live; Ctrl-C stops all of it (ARGS="--duration-s 60 --json")
	@$(PYTHON) tools/install.py demo
	@exec .venv/bin/python tools/foreground.py .venv/bin/stream-infer demo $(ARGS)

evaluate:  ## Replay all flights through a real Kafka and print the errors as one JSON object
	@$(PYTHON) tools/install.py dev
	@exec .venv/bin/python tools/foreground.py .venv/bin/stream-infer evaluate $(ARGS)

test: environment kafka  ## Run all tests, on a real Kafka and a real Redis
	@exec .venv/bin/python -m pytest $(ARGS)

faults: environment kafka  ## Break servers and workers under load, verify each result (ARGS="--only kill --seeds 50")
	@exec .venv/bin/python tools/foreground.py .venv/bin/python -m tests.faults $(ARGS)

bench:  ## Measure, print tables, write benchmarks/results/DATE.json (ONLY="worker http")
	@$(PYTHON) tools/install.py bench
	@.venv/bin/python -m tests.servers.jars
	@.venv/bin/python tools/foreground.py .venv/bin/python -m benchmarks \
		--results benchmarks/results $(if $(ONLY),--only $(ONLY)) $(ARGS); code=$$?; \
		.venv/bin/python -m benchmarks.report && exit $$code

check: environment  ## Lint, formatting, strict types, and which part may import which
	.venv/bin/ruff check $(PACKAGES)
	.venv/bin/ruff format --check $(PACKAGES)
	.venv/bin/python -m mypy
	.venv/bin/python -m pytest -q tests/test_arrows.py

lock: environment  ## Choose the newest allowed versions anew (requirements/*.lock)
	@.venv/bin/python tools/lock.py

clean:  ## Remove the environment and everything made
	rm -rf .venv .kafka .peers .demo build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis

environment:
	@$(PYTHON) tools/install.py dev

kafka: environment
	@.venv/bin/python -m tests.servers.jars
