#!/usr/bin/env bash
# The machine code of the kernels' inner loops against docs/gpu/sass.tsv: scripts/sass_check.sh says what is checked.
# Without nvcc or nvdisasm: skipped.    test/ops/test_sass.sh [build folder]
exec "$(dirname "${BASH_SOURCE[0]}")/../../scripts/sass_check.sh" "${1:-build}"
