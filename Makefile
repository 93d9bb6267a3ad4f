# Everything that a developer or a curious stranger runs.  Each target does its own set-up:
# as root on Debian it installs the packages it needs, otherwise it says which are missing.

SHELL := /bin/bash
VENV ?= .venv
# The services of OpenStack bring some 150 packages along: they have an environment of their own.
OPENSTACK_VENV ?= .venv-openstack
# So has Swift.
SWIFT_VENV ?= .venv-swift
# The first Python of the path that is new enough.
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11 python3.10; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null && \
	command -v $$p && break; done || echo python3)
PY := $(VENV)/bin/python
SOURCES := $(wildcard sheepstack cinder_driver glance_store_driver swift_middleware \
	tests benchmarks demo setup.py)

# mke2fs, tgtd and their like stand where only root's path leads.
export PATH := $(PATH):/usr/sbin:/sbin

# $(value ARGS): as it was typed, since a $ in it is the end of a regular expression.

.PHONY: help venv test-venv demo test unit functional services openstack openstack-venv tempest \
	swift swift-venv conformance bench-object thrash bench bench-openstack lint docs clean
ifndef TOGETHER
.NOTPARALLEL:
endif

help:
	@echo "make demo         a cluster of three sheep that outlives one of them, in a minute"
	@echo "make demo KEEP=1  the same, and leaves the cluster running for you to try"
	@echo "make test         all tests: unit, functional, then openstack and swift side by side"
	@echo "make unit         the unit tests alone      (ARGS='regex' picks some)"
	@echo "make functional   the functional tests alone (ARGS='-k word' picks some)"
	@echo "make openstack    the tests on real OpenStack services alone (ARGS='-k word' picks some)"
	@echo "make swift        the tests of the object API alone          (ARGS='-k word' picks some)"
	@echo "make conformance  all of Swift's own tests on two databases, and clients with much to move"
	@echo "make bench-object the object API beside Swift itself, as ratios"
	@echo "make tempest      tempest's own tests against these services  (ARGS='regex' picks some)"
	@echo "make thrash N=50  break clusters so many times and check what is left of them"
	@echo "                  (JOBS=2: two clusters at a time)"
	@echo "make bench        speed of a cluster on this host; PEER=path/of/C/sheep (or host:port)"
	@echo "                  sets it beside another, QEMU_IMG=path adds the rows of QEMU's driver"
	@echo "make bench-openstack  Glance on sheep beside its file store, volumes from images"
	@echo "make lint         style and syntax of the source, markup of the documents"
	@echo "make docs         the documents as HTML, in build/html"
	@echo "make venv         only install sheepstack, into $(VENV)"
	@echo "make clean        remove what the targets above made"

venv:
	@PYTHON=$(PYTHON) tools/packages.sh demo
	@PYTHON=$(PYTHON) tools/venv.sh $(VENV)

test-venv:
	@PYTHON=$(PYTHON) tools/packages.sh demo
	@PYTHON=$(PYTHON) tools/venv.sh $(VENV) test

demo: venv
	@$(PY) demo/demo.py $(if $(KEEP),--keep)

test: unit functional services

unit: test-venv
	@PYTHON=$(PY) $(VENV)/bin/stestr run $(value ARGS)

functional: test-venv
	@PYTHON=$(PYTHON) tools/packages.sh test
	@$(PY) -m pytest tests/functional $(value ARGS)

# These tests wait more than they work: side by side both take little longer than one.  What
# each of them says is shown at its end.
services: openstack-venv swift-venv
	@$(MAKE) --no-print-directory -j2 --output-sync=target TOGETHER=yes openstack swift

openstack-venv:
	@PYTHON=$(PYTHON) tools/packages.sh openstack
	@PYTHON=$(PYTHON) tools/venv.sh $(OPENSTACK_VENV) openstack

openstack: openstack-venv
	@$(OPENSTACK_VENV)/bin/python -m pytest tests/openstack $(value ARGS)

swift-venv:
	@PYTHON=$(PYTHON) tools/packages.sh swift
	@PYTHON=$(PYTHON) tools/venv.sh $(SWIFT_VENV) swift

swift: swift-venv
	@$(SWIFT_VENV)/bin/python -m pytest tests/swift $(value ARGS)

conformance: swift-venv
	@CONFORMANCE=1 $(SWIFT_VENV)/bin/python -m pytest tests/swift/test_conformance.py \
		tests/swift/test_clients.py tests/swift/test_large.py $(value ARGS)

bench-object: swift-venv
	@$(SWIFT_VENV)/bin/python -m benchmarks.object $(value ARGS)

tempest:
	@PYTHON=$(PYTHON) tools/packages.sh openstack
	@PYTHON=$(PYTHON) tools/venv.sh $(OPENSTACK_VENV) tempest
	@$(OPENSTACK_VENV)/bin/python -m tests.openstack.tempest $(value ARGS)

thrash: test-venv
	@$(PY) -m tests.thrash --faults $(or $(N),50) --jobs $(or $(JOBS),1) $(value ARGS)

bench: venv
	@PYTHON=$(PYTHON) tools/packages.sh bench
	@PYTHON=$(PYTHON) tools/venv.sh $(VENV) bench
	@$(PY) -m benchmarks $(if $(PEER),--peer $(PEER)) $(if $(QEMU_IMG),--qemu-img $(QEMU_IMG)) $(value ARGS)

bench-openstack: openstack-venv
	@$(OPENSTACK_VENV)/bin/python -m benchmarks.openstack $(value ARGS)

lint: test-venv
	@$(PY) -m compileall -q $(SOURCES)
	@$(PY) -m flake8 $(SOURCES)
	@$(VENV)/bin/bashate -i E006 -e E005,E042 $(wildcard devstack/plugin.sh \
		devstack/settings devstack/override-defaults devstack/lib/*)
	@for page in README.rst doc/source/*.rst; do \
		$(PY) -m docutils --report=info --halt=warning $$page /dev/null || exit 1; done
	@echo "No complaints."

docs: test-venv
	@mkdir -p build/html
	@for page in README.rst doc/source/*.rst; do \
		html=build/html/$$(basename $$page .rst).html; \
		$(PY) -m docutils --halt=warning $$page $$html || exit 1; \
		sed -i 's#href="\(doc/source/\)\?\([a-z]*\)\.rst"#href="\2.html"#' $$html; done
	@echo "The documents are in build/html."

clean:
	rm -rf $(VENV) $(OPENSTACK_VENV) $(SWIFT_VENV) .tox .stestr .hypothesis .pytest_cache build dist *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
