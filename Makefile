# What a newcomer types. Everything slow is cached outside the checkout and made again only when its inputs change.
#
#   make demo      install what is needed, build everything, run a container in a guest of its own
#   make test      all tests: the quick ones first, then those with real guests; CALLERS=all for all that Docker, Podman,
#                  containerd and its pods are shown to do
#   make bench     start, exec, network, streams, files, memory, growth, size and pods, side by side with runc, crun and QEMU;
#                  writes docs/benchmarks.md
#   make check     formatting, lints and the tests that need neither KVM nor root
#   make install   PREFIX=/usr/local DESTDIR=: husk, containerd's shim, manual pages, completions, a commented configuration file
#   make fuzz      every fuzzer for SECONDS=45
#   make soak      for hours: a thousand containers and commands, deaths at every point, every system call failing
#   make shell     a prompt inside the emulated machine
.PHONY: all demo test bench fuzz soak check install shell prepare kernel build clean
.DELETE_ON_ERROR:
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c

PREFIX ?= /usr/local
DESTDIR ?=
SECONDS ?= 45
CALLERS ?= quick
CARGO ?= cargo
TARGET := $(shell uname -m)-unknown-linux-gnu
OUT := $(or $(CARGO_TARGET_DIR),$(CURDIR)/target)
BIN := $(OUT)/$(TARGET)/release
HUSK := $(OUT)/husk/husk
SHIM := $(BIN)/containerd-shim-husk-v2

all: build

prepare:
	@integration/prepare.sh

# The guest kernel: minutes the first time, nothing after. Its path is the script's standard output.
$(OUT)/husk/kernel-path: kernel-config/build.sh kernel-config/common.config kernel-config/$(shell uname -m).config \
		$(wildcard kernel-config/patches/*) | prepare
	@mkdir -p $(OUT)/husk
	@kernel-config/build.sh > $@.new && mv $@.new $@
kernel: $(OUT)/husk/kernel-path

# One file is the whole installation: kernel and agent stand in it as page-aligned sections, uncompressed, so that a
# start maps them instead of unpacking them.
build: $(OUT)/husk/kernel-path
	@[ -s "$$(cat $(OUT)/husk/kernel-path)" ] || kernel-config/build.sh > $(OUT)/husk/kernel-path
	@$(CARGO) build --release -p husk -p husk-agent -p containerd-shim-husk-v2
	@[ $(OUT)/husk/initrd -nt $(BIN)/husk-agent ] || agent/initramfs.sh $(OUT)/husk/initrd $(BIN)/husk-agent
	@integration/embed.sh $(BIN)/husk "$$(cat $(OUT)/husk/kernel-path)" $(OUT)/husk/initrd $(HUSK)

demo: build
	@integration/demo.sh $(HUSK)

check:
	@$(CARGO) fmt --all --check
	@$(CARGO) metadata --locked --format-version 1 --manifest-path fuzz/Cargo.toml >/dev/null
	@$(CARGO) clippy --workspace --all-targets --locked -- -D warnings
	@$(CARGO) test --workspace --exclude husk-integration --locked

test: prepare check build
	@fuzz/run.sh 4
	@integration/run.sh $(HUSK)
	@integration/callers/run.sh $(HUSK) $(SHIM) $(CALLERS)

bench: build
	@integration/bench.sh $(HUSK) $(SHIM)

fuzz:
	@fuzz/run.sh $(SECONDS)

soak: build
	@integration/soak.sh $(HUSK)

shell: prepare
	@integration/emulated/machine shell

install: build
	@integration/install.sh $(HUSK) $(SHIM) "$(DESTDIR)" "$(PREFIX)"

clean:
	@$(CARGO) clean
