#!/usr/bin/env bash
# Send to sink at 200 messages a second on loopback, and what a receiver that
# answers in 5 s changes for another one.
#   RUN_SECONDS=20   how long each run takes
#   RATE=200         messages a second
set -euo pipefail
cd "$(dirname "$0")/.."
exec cargo bench --locked --quiet --bench push
