# Short names for common tasks. CI uses them too.
.PHONY: demo test build clean

PATH := $(PATH):$(HOME)/.cargo/bin:/usr/sbin:/sbin

# The programs of a release build, where cargo writes them.
BIN_DIR ?= $(or $(CARGO_TARGET_DIR),target)/release

# Shows knocks on a filter between interfaces that the demo creates. KEEP=1 keeps them until Ctrl-C, and prints a link to
# the web page of the filter.
demo:
	@tests/setup demo
	@echo "building (release)"
	@cargo build --quiet --locked --release -p knockplane-dataplane -p knockplane-control -p knocker -p knockplane-tests
	@'$(BIN_DIR)'/demo $(if $(filter-out 0,$(KEEP)),--keep)

# All checks of CI: formatting, lints, unit and property tests, end-to-end tests.
test:
	@tests/setup test
	cargo fmt --all --check
	cargo clippy --quiet --locked --workspace --all-targets -- -D warnings
	cargo build --quiet --locked --workspace
	cargo test --locked --workspace --no-fail-fast

build:
	cargo build --locked --release --workspace

# Pictures of every view of the web page, with a filter in network namespaces and Debian's chromium: docs/images/page. As root.
.PHONY: screenshots
screenshots:
	@tests/setup test
	@cargo build --quiet --locked --workspace
	cargo test --locked -p knockplane-tests --test e2e -- --ignored --exact page_views::pictures_of_every_view

# Programs, systemd units, man pages, completions, the example of the configuration, and files for Prometheus and Grafana. Run `make build` first; its
# programs are in BIN_DIR. Programs are stripped unless STRIP is empty. DESTDIR precedes every path, for packages.
PREFIX ?= /usr/local
DESTDIR ?=
STRIP ?= -s
BINDIR = $(PREFIX)/bin
SBINDIR = $(PREFIX)/sbin
DATADIR = $(PREFIX)/share
# systemd looks there for PREFIX=/usr and PREFIX=/usr/local (systemd.unit(5)).
UNITDIR = $(PREFIX)/lib/systemd/system
DOCDIR = $(DATADIR)/doc/knockplane
MANUAL = $(BIN_DIR)/manual

.PHONY: install uninstall
install:
	@for program in knockplane-dataplane knockplane-control knockctl knocker manual; do \
	    test -x '$(BIN_DIR)'/$$program || { echo "$(BIN_DIR)/$$program is not built: run make build" >&2; exit 1; }; done
	install -d '$(DESTDIR)$(BINDIR)' '$(DESTDIR)$(SBINDIR)' '$(DESTDIR)$(UNITDIR)' '$(DESTDIR)$(DOCDIR)'
	install $(STRIP) -m 755 '$(BIN_DIR)'/knockctl '$(BIN_DIR)'/knocker '$(DESTDIR)$(BINDIR)'
	install $(STRIP) -m 755 '$(BIN_DIR)'/knockplane-dataplane '$(BIN_DIR)'/knockplane-control '$(DESTDIR)$(SBINDIR)'
	for unit in configs/systemd/*.service; do \
	    sed 's|/usr/sbin/|$(SBINDIR)/|; s|/usr/share/doc/knockplane|$(DOCDIR)|' "$$unit" \
	        > '$(DESTDIR)$(UNITDIR)'/"$${unit##*/}" && chmod 644 '$(DESTDIR)$(UNITDIR)'/"$${unit##*/}" || exit 1; done
	install -m 644 README.md CHANGELOG.md configs/default.toml configs/two-ports.rsc '$(DESTDIR)$(DOCDIR)'
	for tool in prometheus grafana; do install -d '$(DESTDIR)$(DOCDIR)'/$$tool && \
	    install -m 644 configs/$$tool/* '$(DESTDIR)$(DOCDIR)'/$$tool || exit 1; done
	install -d '$(DESTDIR)$(DOCDIR)'/docs && install -m 644 docs/*.md '$(DESTDIR)$(DOCDIR)'/docs
	install -d '$(DESTDIR)$(DOCDIR)'/docs/schema && install -m 644 docs/schema/*.json '$(DESTDIR)$(DOCDIR)'/docs/schema
	@# The pages and completions go where man and the shells look.
	set -e; made=$$(mktemp -d); trap 'rm -rf "$$made"' EXIT; '$(MANUAL)' "$$made"; \
	for pair in man/man1:man/man1 man/man8:man/man8 bash:bash-completion/completions zsh:zsh/site-functions \
	    fish:fish/vendor_completions.d; do \
	    install -d '$(DESTDIR)$(DATADIR)'/"$${pair#*:}"; \
	    install -m 644 "$$made/$${pair%%:*}"/* '$(DESTDIR)$(DATADIR)'/"$${pair#*:}"; done

# Removes exactly the files of `make install` with the same PREFIX and DESTDIR. /etc/knockplane and /var/lib/knockplane stay.
uninstall:
	rm -f '$(DESTDIR)$(BINDIR)'/knockctl '$(DESTDIR)$(BINDIR)'/knocker
	rm -f '$(DESTDIR)$(SBINDIR)'/knockplane-dataplane '$(DESTDIR)$(SBINDIR)'/knockplane-control
	rm -f '$(DESTDIR)$(UNITDIR)'/knockplane-dataplane.service '$(DESTDIR)$(UNITDIR)'/knockplane-control.service
	rm -rf '$(DESTDIR)$(DOCDIR)'
	rm -f '$(DESTDIR)$(DATADIR)'/man/man1/knockctl*.1 '$(DESTDIR)$(DATADIR)'/man/man1/knocker.1
	rm -f '$(DESTDIR)$(DATADIR)'/man/man8/knockplane-dataplane.8 '$(DESTDIR)$(DATADIR)'/man/man8/knockplane-control.8
	for program in knockctl knocker knockplane-dataplane knockplane-control; do \
	    rm -f '$(DESTDIR)$(DATADIR)'/bash-completion/completions/$$program '$(DESTDIR)$(DATADIR)'/zsh/site-functions/_$$program \
	        '$(DESTDIR)$(DATADIR)'/fish/vendor_completions.d/$$program.fish; done

clean:
	cargo clean

# Rates, losses and latencies on the wire, compared with the smallest AF_XDP forwarder, nftables, XDP and knockd:
# docs/benchmarks.md. Half an hour; QUICK=1 takes five minutes; ONLY=drop selects measurements by name. Results and tables
# are in target/bench.
.PHONY: bench
bench:
	@tests/setup bench
	@echo "building (release)"
	@cargo build --quiet --locked --release -p knockplane-dataplane -p knockplane-control -p knockplane-bench
	@'$(BIN_DIR)'/knockplane-bench $(if $(filter-out 0,$(QUICK)),--quick) \
	    $(if $(ONLY),--only '$(ONLY)')

# Plots of the last run of `make bench`, in target/bench/plots.
.PHONY: plots
plots:
	@tests/setup plots
	@gnuplot bench/plots.gp

# Time of the engine's work in memory: docs/benchmarks-memory.md. Four minutes; QUICK=1 takes one and leaves out ten million
# entries; ONLY=lists selects workloads by name.
.PHONY: bench-memory
bench-memory:
	@tests/setup bench-memory
	@cargo bench --quiet --locked -p knockplane-bench --bench engine -- $(ONLY)

# The web page with 10 and 10,000 rules, all of which count: sizes and times of its requests, first paint, and the work of the main
# thread of chromium. Two minutes.
.PHONY: bench-page
bench-page:
	@tests/setup test
	@echo "building (release)"
	@cargo build --quiet --locked --release -p knockplane-dataplane -p knockplane-control
	@cargo test --quiet --locked --release -p knockplane-tests --test e2e -- --ignored --nocapture measure_the_page

# Ten million entries in the address lists: memory, lookups, additions, and the longest pause in a minute of additions at
# full rate. SECONDS_LONG=5 is shorter.
.PHONY: bench-lists
bench-lists:
	@tests/setup bench-lists
	@cargo run --quiet --locked --release -p knockplane-bench --bin lists -- \
	    $(if $(SECONDS_LONG),--seconds $(SECONDS_LONG))

# Clients admitted by nftables and by knockplane while a flood of forged first knocks fills the lists: docs/benchmarks.md. Four
# floods of SECONDS (30) at a million a second, four at the highest possible rate, and as long without a flood.
.PHONY: bench-crowd
bench-crowd:
	@tests/setup bench
	@cargo build --quiet --locked --release -p knockplane-dataplane -p knockplane-control -p knockplane-bench
	@'$(BIN_DIR)'/crowd $(if $(SECONDS),--seconds $(SECONDS))

# Outage when the dataplane is killed and started again, with 0, 10,000 and 1,000,000 entries, static and with a timeout:
# docs/benchmarks.md. ROUNDS (20) restarts with each.
.PHONY: bench-restart
bench-restart:
	@tests/setup bench
	@cargo build --quiet --locked --release -p knockplane-dataplane -p knockplane-control -p knockplane-bench
	@'$(BIN_DIR)'/restart $(if $(ROUNDS),--rounds $(ROUNDS))

# Losses and latency of accepted traffic while rules are applied again and again: docs/benchmarks.md. APPLIES (1000) of each of two
# rule sets, with and without the kernel's fast path. Some ten minutes.
.PHONY: bench-applies
bench-applies:
	@tests/setup bench
	@cargo build --quiet --locked --release -p knockplane-dataplane -p knockplane-control -p knockplane-bench
	@'$(BIN_DIR)'/applies $(if $(APPLIES),--applies $(APPLIES))

# Grants a second that are written to the journal, traffic that is lost meanwhile, and grants that a kill loses:
# docs/benchmarks.md. SECONDS (10) of knocks at each rate.
.PHONY: bench-grants
bench-grants:
	@tests/setup bench
	@cargo build --quiet --locked --release -p knockplane-dataplane -p knockplane-control -p knockplane-bench
	@'$(BIN_DIR)'/grants $(if $(SECONDS),--seconds $(SECONDS))

# What `knockctl monitor`, the audit file and `knockctl trace` miss during a flood of 500,000 logged drops a second, and frames of
# accepted traffic that are lost meanwhile: docs/benchmarks.md. ROUNDS (3) of 20 s with each. Some four minutes.
.PHONY: bench-watching
bench-watching:
	@tests/setup bench
	@cargo build --quiet --locked --release -p knockplane-dataplane -p knockplane-control -p knockplane-bench
	@'$(BIN_DIR)'/watching $(if $(ROUNDS),--rounds $(ROUNDS))

# Rate and TCP retransmissions with rings of several sizes: docs/benchmarks.md. ROUNDS (5) with each size; SIZES=2048,8192
# selects sizes.
.PHONY: bench-rings
bench-rings:
	@tests/setup bench-rings
	@cargo build --quiet --locked --release -p knockplane-dataplane -p knockplane-control -p knockplane-bench
	@'$(BIN_DIR)'/rings $(if $(ROUNDS),--rounds $(ROUNDS)) $(if $(SIZES),--sizes $(SIZES))

# Throughput of TCP connections through a door, with and without the kernel's fast path, and through a bridge with nftables:
# docs/benchmarks.md. Five minutes; ROUNDS (3) of all candidates.
.PHONY: bench-tcp
bench-tcp:
	@tests/setup bench-tcp
	@cargo build --quiet --locked --release -p knockplane-dataplane -p knockplane-control -p knocker -p knockplane-bench
	@'$(BIN_DIR)'/tcp $(if $(ROUNDS),--rounds $(ROUNDS))

# Instructions of the engine's work in memory, and cache misses of large tables, compared with
# bench/baseline/instructions.toml. Two minutes. UPDATE=1 writes that file.
.PHONY: bench-check
bench-check:
	@tests/setup bench-check
	@cargo run --quiet --locked --release -p knockplane-bench --bin instructions -- \
	    check $(if $(filter-out 0,$(UPDATE)),--update) $(ONLY)

# The property tests of rules and packets, fifty times as long as in `make test`: for example, 100,000 rule sets instead of 2,000
# are exported and read again. Then 100,000 sequences of packets are decided with and without the fast path, by the real XDP
# program, as root. SOAK=500 is longer, ONLY=export runs tests with this in their name.
SOAK ?= 50
.PHONY: soak
soak:
	@tests/setup soak
	env -u PROPTEST_CASES KNOCKPLANE_SOAK=$(SOAK) \
	    cargo test --locked --release -p knockplane-policy -p knockplane-engine $(ONLY)
	env KNOCKPLANE_SOAK=$$(($(SOAK) * 3)) cargo test --locked --release -p knockplane-dataplane --lib $(or $(ONLY),carrier)

# Kills of the dataplane, the control process and both at random times while sources knock, and the wall clock is set by an hour or
# two: KILLS=500 takes half an hour. Before, ten times as many machines that boot and whose wall clock is set: a minute.
KILLS ?= 500
.PHONY: soak-restarts
soak-restarts:
	@tests/setup test
	@cargo build --quiet --locked --workspace
	env KNOCKPLANE_SOAK=$$(($(KILLS) / 10)) cargo test --locked -p knockplane-dataplane --lib journal::tests::clocks
	env KNOCKPLANE_KILLS=$(KILLS) cargo test --locked -p knockplane-tests --test e2e durable

# All end-to-end tests, with the comparison with nftables, while the kernel's fast path carries flows. In `make test` the far
# ends of the interfaces cannot take redirected frames, except in the tests of the fast path.
.PHONY: test-fast-path
test-fast-path:
	@tests/setup test
	@cargo build --quiet --locked --workspace
	env KNOCKPLANE_REDIRECTS=1 cargo test --locked -p knockplane-tests --test e2e

# The same frames with and without the fast path, and changes under full rate: SOAK=100 makes 1,000 changes of each kind.
.PHONY: soak-fast-path
soak-fast-path:
	@tests/setup test
	@cargo build --quiet --locked --workspace
	env KNOCKPLANE_SOAK=$(SOAK) cargo test --locked -p knockplane-dataplane carrier -- --nocapture
	env KNOCKPLANE_SOAK=$(SOAK) cargo test --locked -p knockplane-tests --test e2e revocations

# Both processes under 50,000 accepted packets a second and knocks, for a minute each while standard error is on a full disk,
# broken, stalled, closed and on a file system that fills up; and a logged scan of 200,000 packets a second while 100 doors
# open. SECONDS_LONG=10 is shorter, RATE=10000 and SCAN=20000 are slower. ONLY=a_scan runs the tests with this prefix.
.PHONY: soak-log
soak-log:
	@tests/setup test
	@echo "building (release)"
	@cargo build --quiet --locked --release -p knockplane-dataplane -p knockplane-control -p knocker
	env KNOCKPLANE_LOG_SECONDS=$(or $(SECONDS_LONG),60) KNOCKPLANE_LOG_RATE=$(or $(RATE),50000) \
	    KNOCKPLANE_LOG_SCAN=$(or $(SCAN),200000) \
	    cargo test --locked --release -p knockplane-tests --test e2e log::$(ONLY) -- --nocapture --test-threads 1

# The filter on emulated NICs (virtio, igb, e1000e, vmxnet3) and kernels 6.1, 6.12 and 7.x, in guests of QEMU: docs/hardware.md.
# Without root, KVM or a tap device; the first time it downloads some 330 MB. QUICK=1 runs three cells, ONLY='7.x/igb 6.1/virtio'
# these two. VERBOSE=1 prints every assertion. A release needs all cells.
.PHONY: vm
vm:
	@tests/setup vm
	@echo "building"
	@cargo build --quiet --locked -p knockplane-dataplane -p knockplane-control -p knocker -p knockplane-tests
	@tests/vm/run $(if $(ONLY),$(ONLY),$(if $(filter-out 0,$(QUICK)),quick,all))

# Checks that a cell fails without the safeguards against split frames: docs/hardware.md.
.PHONY: vm-revert
vm-revert:
	@tests/setup vm
	@cargo build --quiet --locked -p knockplane-control -p knocker -p knockplane-tests
	@tests/vm/revert
