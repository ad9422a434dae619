#!/usr/bin/env bash
# Measures searchae on a GPU, without a network; see gpu.py. $PYTHON names another Python.
set -euo pipefail
cd "$(dirname "$0")/.."
exec "${PYTHON:-python3}" -m benchmarks.gpu "$@"
