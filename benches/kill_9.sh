#!/usr/bin/env bash
# Kills processes that build templates, copy, run and sweep at random moments, many times; every
# next run must work and nothing may stay. Usage: benches/kill_9.sh [TIMES]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
POSTERN_TEST_KILLS=${1:-100} cargo test --test it db::killed
