# A developer's commands, in an environment made by: python3 -m venv .venv && .venv/bin/pip install -e ".[dev]"
# Another environment: make test BIN=/path/to/bin/
BIN ?= .venv/bin/
export OMP_WAIT_POLICY = PASSIVE

.PHONY: help lint format test snapshots bench ci

help:
	@echo "make lint     format, lint, types and imports, without changing anything"
	@echo "make format   format, and mend what the linter can"
	@echo "make test     the whole suite; TESTS=tests/model for a part"
	@echo "make snapshots  write what --help and --json say anew; read the diff"
	@echo "make bench    the speed of converting, as ratios"
	@echo "make ci       all that must pass before a change lands"

lint:
	$(BIN)ruff format --check .
	$(BIN)ruff check .
	$(BIN)mypy
	$(BIN)lint-imports

format:
	$(BIN)ruff format .
	$(BIN)ruff check --fix .

test:
	$(BIN)python -m pytest -n 2 --dist loadfile $(TESTS)

snapshots:
	SNAPSHOTS=write $(BIN)python -m pytest tests/ldr2hdr_cli/test_snapshots.py

bench:
	$(BIN)python benchmarks/speed.py

ci:
	.ci/run
