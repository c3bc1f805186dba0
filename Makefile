# Everything that a fresh Debian needs is installed by these targets; see README.md.

PYTHON ?= /usr/bin/python3
VENV   := .venv
BIN    := $(VENV)/bin

# So many tests at a time, whatever the number of processors: most of the time they wait.
UNIT   := $(BIN)/pytest -n 4 --dist worksteal
SYSTEM := $(BIN)/pytest -n 6 --dist loadscope --no-loadscope-reorder tests/system

.PHONY: run test check unit browser deb roots system faults torture fuzz bench clean

run: $(VENV)/run
	$(BIN)/openclaw-gateway run

# With a real systemd too, where that is possible: as root. Otherwise pytest says what was left out.
test: check browser
	@if [ "$$(id -u)" = 0 ]; then packaging/need debootstrap systemd-container iproute2 || true; \
	else echo "tests on a booted system are left out: they need root"; fi
	@code=0; $(SYSTEM) || code=$$?; $(MAKE) --no-print-directory unit || code=$$?; exit $$code

check: $(VENV)/test
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

# The status page is looked at in a browser; where it can't be had, pytest says what was left out.
browser:
	@command -v chromedriver >/dev/null || packaging/need chromium chromium-driver || true

unit: $(VENV)/test browser
	@command -v npm >/dev/null || packaging/need npm || true # for the official client and OpenClaw's own gateway
	@command -v lsof >/dev/null || packaging/need lsof || true # by which the latter looks for others on its port
	@command -v etcd >/dev/null || packaging/need etcd-server || packaging/need etcd || true # for clusters' tests
	$(UNIT)

# The package for each supported release, in dist/; built and linted in clean roots, see packaging/testbed.
deb: roots
	PYTHONPATH=packaging $(PYTHON) -m testbed deb

roots:
	@[ "$$(id -u)" = 0 ] || { echo "make $(or $(MAKECMDGOALS),deb) needs root: it sets up clean Debian roots in" \
	    "containers. Try: sudo make $(or $(MAKECMDGOALS),deb)" >&2; exit 1; }
	packaging/need debootstrap systemd-container iproute2
	PYTHONPATH=packaging $(PYTHON) -m testbed prepare

# What the package does on a booted system, all of it on both releases; "make test" has a sample.
system: $(VENV)/test deb browser
	SYSTEM_TESTS=required SYSTEM_FULL=1 $(SYSTEM)

# Every fault that can be made here, in full length and against other locks too; the README's tables are
# made from what happens. About ten minutes; twenty more with OpenClaw's own gateway, each start of which
# takes its 10 to 60 s, and twenty on booted systems.
faults: export FAULTS_FULL = 1
faults: $(VENV)/test $(VENV)/controls/installed
	PYTHONPATH=tests $(UNIT) -p faults.recorder --record build/faults.json \
	    -o python_files="test_*.py controls.py cluster_matrix.py" tests/model tests/faults \
	    tests/integration/test_claim.py tests/integration/test_supervision.py \
	    tests/integration/test_beside_others.py tests/integration/test_kept_listener.py; code=$$?; \
	    $(BIN)/python tests/faults/table.py build/faults.json README.md; \
	    $(BIN)/pytest tests/integration/test_beside_node.py tests/integration/test_same_settings.py || code=$$?; \
	    $(MAKE) --no-print-directory system || code=$$?; exit $$code

# Other people's locks, to compare with.
$(VENV)/controls/installed: $(VENV)/run
	packaging/need util-linux
	$(PYTHON) -m venv --clear $(VENV)/controls
	$(VENV)/controls/bin/pip install --quiet filelock portalocker pid zc.lockfile fasteners
	touch $@

# make torture SECONDS=3600 SEED=7
torture: $(VENV)/test
	$(BIN)/python tests/faults/torture.py --seconds $(or $(SECONDS),60) $(if $(SEED),--seed $(SEED))

# make fuzz SECONDS=3600
fuzz: $(VENV)/test
	FUZZ_SECONDS=$(or $(SECONDS),60) $(BIN)/pytest tests/faults/test_fuzz.py

# Figures beside their floors and OpenClaw's own gateway, for the README; about fifteen minutes on a quiet machine.
bench: $(VENV)/test $(VENV)/controls/installed
	packaging/need wrk
	-packaging/need npm # for OpenClaw's own gateway
	-packaging/need debootstrap systemd-container # for what needs a real systemd
	PYTHONPATH=tests:tests/system:packaging $(BIN)/python tests/bench/run.py

# What systemd-python is built from, and a virtual environment to put it in.
$(VENV)/run: setup.cfg pyproject.toml
	packaging/need gcc pkg-config libsystemd-dev python3-dev python3-venv
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --editable .
	touch $@

$(VENV)/test: $(VENV)/run
	$(BIN)/pip install --quiet --editable .[test]
	touch $@

clean:
	rm -rf $(VENV) build dist daemon/*.egg-info .mypy_cache .pytest_cache .ruff_cache
