# demo | check | bench | audit | reproduce | install. Each target calls one script; see README.md.
PREFIX ?= /usr/local
SYSCONFDIR ?= $(if $(filter /usr,$(PREFIX)),/etc,$(PREFIX)/etc)
DESTDIR ?=
export PREFIX SYSCONFDIR DESTDIR

.PHONY: help demo check bench audit reproduce install clean
help:
	@echo "make demo                           install what is needed, build, boot 4 brokers, run jobs, shut down"
	@echo "make check                          run all tests"
	@echo "make bench                          measure, beside the figures of flux-core"
	@echo "make audit                          the figures of the privileged part, within their budgets"
	@echo "make reproduce                      build flux-imp in two directories and compare the bytes"
	@echo "make install PREFIX= SYSCONFDIR= DESTDIR="

demo:
	@etc/build/demo.sh

check:
	@etc/build/check.sh

bench:
	@etc/build/bench.sh

audit:
	@cargo run --quiet -p xtask -- audit

reproduce:
	@etc/build/reproduce.sh

install:
	@etc/build/install.sh

clean:
	cargo clean
