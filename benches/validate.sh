#!/bin/sh
# Compares the bare verdict with xmllint --schema in the same run: 5,000 small
# messages in one process each, and one file of 200 MB. Medians of five.
#
#   benches/validate.sh [FOLDER]     FOLDER keeps the data between runs
#
# Needs xmllint (apt-get install libxml2-utils), GNU time and python3.
set -eu
cd "$(dirname "$0")/.."
folder=${1:-$(mktemp -d)}
cargo bench --quiet --bench validate --no-run
ours=$(ls -t target/release/deps/validate-* | grep -v '\.d$' | head -n 1)
exec python3 benches/compare.py "$ours" "$folder"
