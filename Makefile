# SPDX-License-Identifier: Apache-2.0
# A thin door to deploy/setup.sh (what is missing on this machine) and meson (the build).
#
#   make            build, in build/
#   make demo       build, build the four models, run the main job on a farm of this machine
#   make test       build and pass every test
#   make fpga       build, and run the tests on the FPGA vendors' runtimes (installs them: 700 MB)
#   make bench      print the speed table
#   make models     build the four models, in build/models/
#   make format     clang-format over every C file
#   make docs       write the generated part of docs/protocol.md
#   make install    PREFIX=/usr/local DESTDIR=
#   make uninstall  remove what make install put there; say what set-up added to the machine
#   make clean      remove build*/ (what set-up fetched stays in .deps/)

BUILD ?= build
PREFIX ?=
DESTDIR ?=
MESON ?= meson
python := .deps/venv/bin/python

.PHONY: all build demo test fpga bench models format docs install uninstall clean
all: build

build: $(BUILD)/build.ninja
	ninja -C $(BUILD)

# Set-up runs once per make, at the deepest level that the goals ask for.
level := build
level := $(if $(filter demo models bench,$(MAKECMDGOALS)),demo,$(level))
level := $(if $(filter test,$(MAKECMDGOALS)),test,$(level))
level := $(if $(filter fpga,$(MAKECMDGOALS)),test --fpga,$(level))
level := $(if $(filter format,$(MAKECMDGOALS)),ci,$(level))

.PHONY: setup
setup:
	@deploy/setup.sh $(level)

$(BUILD)/build.ninja: | setup
	$(MESON) setup $(BUILD)

models: setup
	@$(python) models/build.py --out $(BUILD)/models

demo: build models
	@$(python) deploy/demo.py --build $(BUILD)

test: build models
	@deploy/run_tests.sh $(BUILD)

fpga: build models
	@SONIC_FPGA=required deploy/run_tests.sh $(BUILD) --suite fpga

bench: build models
	$(MESON) test -C $(BUILD) --no-rebuild --benchmark --verbose

format: setup
	git ls-files -z -- '*.c' '*.h' | xargs -0r clang-format -i

docs: build
	docs/protocol_page.sh $(BUILD)/docs/wire_table docs/protocol.md

install: build
	$(if $(PREFIX),$(MESON) configure $(BUILD) -Dprefix=$(abspath $(PREFIX)))
	ninja -C $(BUILD)
	DESTDIR=$(DESTDIR) $(MESON) install -C $(BUILD) --no-rebuild

uninstall:
	@deploy/uninstall.sh $(BUILD)

# What make uninstall goes by outlives the build folder.
clean:
	@! [ -f $(BUILD)/meson-logs/install-log.txt ] || mv $(BUILD)/meson-logs/install-log.txt .deps/install-log.txt
	rm -rf $(BUILD) build-*/
