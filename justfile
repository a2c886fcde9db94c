# The list of developer commands. Everything works without `just` too: each recipe is one or two lines of cargo.

# Show this list.
default:
    @just --list

# Format all code.
fmt:
    cargo fmt --all

# Formatting, clippy with warnings denied, documentation links.
lint:
    cargo fmt --all --check
    cargo clippy --workspace --all-targets --locked -- -D warnings
    RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --locked

# All tests; ARGS go to cargo (`just test -p linnet-bus`).
test *ARGS="--workspace":
    cargo test --locked {{ ARGS }}

# Seeded simulations only; SEED replays one.
sim SEED="":
    {{ if SEED == "" { "" } else { "SEED=" + SEED } }} cargo test --locked -p linnet-tests --test sim -- --nocapture

# Licences, bans, sources and advisories; needs cargo-deny. Its core is in the tests of linnet-runtime.
deny:
    cargo deny --locked check

# Start everything in one process, for trying out; ARGS as `linnet dev --help` shows.
dev *ARGS:
    cargo run --release --locked -p linnet -- dev {{ ARGS }}

# Drive a running server; ARGS as `linnet-loadtest --help` shows.
load *ARGS:
    cargo run --release --locked -p linnet-loadtest -- {{ ARGS }}

# Write docs/config.md from the declarations.
docs:
    cargo run --locked -q -p linnet -- config docs > docs/config.md

# What a change must pass; the same as `.ci/run`.
ci:
    .ci/run
