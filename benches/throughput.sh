#!/bin/sh
# Messages accepted, and leased and acknowledged, a second by the release
# binary over TLS: 64 connections that stay open, 4 KB messages that all
# differ, the generator on the same cores; medians, with two peers in the same
# run. Also start, memory, and a thousand pollers that wait.
#
#   benches/throughput.sh            RUNS=5 RUN_SECONDS=6 by default
#
# Needs cargo only, and 2,100 file descriptors.
set -eu
cd "$(dirname "$0")/.."
command -v cargo >/dev/null || { echo "cargo is missing: install Rust" >&2; exit 2; }
ulimit -n 4096 2>/dev/null || { echo "needs ulimit -n 4096" >&2; exit 2; }
exec env RUNS="${RUNS:-5}" RUN_SECONDS="${RUN_SECONDS:-6}" cargo bench --quiet --bench throughput
