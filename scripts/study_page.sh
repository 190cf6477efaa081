#!/usr/bin/env bash
# From the records in docs/study/ the reports, and from those docs/STUDY.md: trains nothing, takes seconds. `make study` calls
# it at its end.
#   BUILD=build RECORDS=docs/study
# Each comparison's folder gets report.md, report.json and pictures; against-ROW/ in it has the differences to another baseline.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
BUILD=${BUILD:-build} RECORDS=${RECORDS:-docs/study}
for folder in "$RECORDS"/study-*/; do
    folder=${folder%/}
    [[ -e $folder/comparison.json ]] || continue
    "$BUILD/report" "$folder" --baseline qkv --quiet
    for row in qv gqa; do "$BUILD/report" "$folder" --baseline $row --out "$folder/against-$row" --no-plot --quiet; done
done
"$BUILD/report" --fill "$RECORDS/page.md" --out "$(dirname "$RECORDS")/STUDY.md"
