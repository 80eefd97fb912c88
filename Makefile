# make sample   set up, and build the embedded sample crawl into build/sample
# make train    go on from it: train the tiny Flamingo into runs/tiny, and caption pictures that nothing was trained on
# make test     set up, and run the whole test suite
# make test-oldest   set up an environment of its own with the oldest torch and transformers, and test the model there
# make spark-test   set up, and build the sample on a Spark cluster of its own (Java, Maven; 10 minutes, 4 GB)
# make flink-test   the same on a Flink cluster
# make kill-test    set up, and kill 50 builds at random moments (half an hour)
# make bench    set up, and run every benchmark (several minutes)
# make check    set up, and run ruff and the type checker
# make clean    remove what these made
#
# Any Python from 3.10 to 3.12 does: make sample PYTHON=python3.12

PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin

.PHONY: sample train test test-oldest spark-test flink-test kill-test bench check clean
.DELETE_ON_ERROR:

sample: $(VENV)/.sample
	$(BIN)/mmc4-build --crawl sample --output build/sample

train: $(VENV)/.sample build/sample/shards/sizes.json
	$(BIN)/mmc4-train --config tiny --data build/sample --output runs/tiny
	$(BIN)/python -m mmc4_builder.sample.gallery build/pictures
	$(BIN)/mmc4-caption --checkpoint runs/tiny/model.safetensors build/pictures/*.jpg

build/sample/shards/sizes.json: | $(VENV)/.sample
	$(BIN)/mmc4-build --crawl sample --output build/sample

test: $(VENV)/.test
	$(BIN)/python -m pytest -n 2 --dist loadfile $(TESTS)

# The lower bounds of setup.cfg, and beside them only what the model's tests need. Change them together.
OLDEST = 'torch==2.6.*' 'torchvision==0.21.*' 'transformers==4.51.*'

test-oldest: $(VENV)-oldest/.test
	$(VENV)-oldest/bin/python -m pytest -n 2 --dist loadfile tests/test_model_*.py

spark-test: $(VENV)/.test
	$(BIN)/python -u tests/engine_suite.py --engine spark $(SCENES)

flink-test: $(VENV)/.test
	$(BIN)/python -u tests/engine_suite.py --engine flink $(SCENES)

kill-test: $(VENV)/.test
	$(BIN)/python tests/kill_suite.py --seeds 50

bench: $(VENV)/.bench
	@for script in documents images fetch images_stage match corpus_duplicates alignment memory index scale; do \
		echo "== benchmarks/$$script.py"; $(BIN)/python benchmarks/$$script.py || exit 1; done

check: $(VENV)/.check
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf $(VENV) $(VENV)-oldest build runs *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis

# One virtual environment; each target adds the extras that it needs and leaves a mark.
$(VENV)/.sample: EXTRAS =
$(VENV)/.test: EXTRAS = [test]
$(VENV)/.bench: EXTRAS = [bench]
$(VENV)/.check: EXTRAS = [check]
$(VENV)/.%: setup.cfg pyproject.toml | $(VENV)/pyvenv.cfg
	$(BIN)/pip install --quiet --editable '.$(EXTRAS)'
	$(BIN)/pip check
	@touch $@

$(VENV)/pyvenv.cfg:
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 12))' || \
		{ echo "Python 3.10, 3.11 or 3.12 is needed; pass PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip

$(VENV)-oldest/.test: setup.cfg Makefile
	$(PYTHON) -m venv $(VENV)-oldest
	$(VENV)-oldest/bin/pip install --quiet $(OLDEST) open_clip_torch timm safetensors \
		pytest pytest-timeout pytest-xdist hypothesis
	@touch $@
