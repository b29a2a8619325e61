#!/usr/bin/env bash
# sqlx against the server of PGHOST and PGPORT; built beside the project, as a crate of its own.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$here/../../../target}"
cargo build --quiet --locked --manifest-path "$here/Cargo.toml"
timeout 120 "$CARGO_TARGET_DIR/debug/starkeep-clients"
