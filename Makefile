# Thin: each target is one script or one cargo command. As root, on Debian 12.

.PHONY: deb demo demo-down test test-packages bench fuzz fuzz-guard fmt lint install-packages

# The whole chain for real, in namespaces of its own. KEEP=1 leaves it up.
demo: install-packages
	cargo build --locked --release --workspace --bins
	target/release/demo $(if $(KEEP),--keep)

# Takes a chain down that `make demo KEEP=1` left up.
demo-down:
	target/release/demo --down

# Every test. What a machine cannot run is listed by name with the reason at the end.
test: install-packages
	tests/run

# Every figure of the README, measured here. One part: make bench ONLY="--bench nfdhcpd"
bench: install-packages
	tests/install-packages tests/benches/packages.list
	cargo build --locked --release --workspace --bins
	cargo bench --locked -p snf-tests $(ONLY)

# Every parser, each for so many seconds: make fuzz SECONDS_EACH=600
fuzz:
	fuzz/run $(SECONDS_EACH)

# Random frames of a guest through the guard's rules: make fuzz-guard FRAMES=1000000 SEED=7
fuzz-guard:
	SNF_GUARD_FRAMES=$(or $(FRAMES),1000000) SNF_GUARD_SEED=$(or $(SEED),1) \
		cargo nextest run --locked -p snf-ifup --test guard_fuzz --no-capture

# The Debian packages, into target/deb.
deb: install-packages
	packaging/make-debs --lintian

# The Debian packages, installed in a chroot and on a machine that systemd boots in QEMU.
test-packages: install-packages
	tests/guest/build
	cargo build --locked --workspace --bins
	cargo nextest run --locked -p snf-tests --profile packages

install-packages:
	tests/install-packages

fmt:
	cargo fmt --all

lint:
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets -- -D warnings
	cargo deny --log-level warn check licenses bans sources
