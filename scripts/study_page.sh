#!/usr/bin/env bash
# From the records in docs/study/ the reports, and from those docs/STUDY.md: trains nothing, takes seconds. `make study` calls
# it at its end.
#   BUILD=build RECORDS=docs/study
# Each comparison's folder gets report.md, report.json and pictures; against-ROW/ in it has the differences to another baseline.
# Beside them: claims.md, a verdict for each claim; probes.md, the accuracies of `make recall`; scaling-ladder/ and
# scaling-budget/, over sizes and over numbers of tokens.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
BUILD=${BUILD:-build} RECORDS=${RECORDS:-docs/study}
for folder in "$RECORDS"/study-*/ "$RECORDS"/claims*/ "$RECORDS"/ladder-*/ "$RECORDS"/budget-*/; do
    folder=${folder%/}
    [[ -e $folder/comparison.json ]] || continue
    "$BUILD/report" "$folder" --baseline qkv --quiet
    case ${folder##*/} in study-*) against="qv gqa" ;; claims-mla) against=mla ;; *) against="" ;; esac
    for row in $against; do "$BUILD/report" "$folder" --baseline $row --out "$folder/against-$row" --no-plot --quiet; done
done
[[ ! -d $RECORDS/claims ]] || "$BUILD/claims" "$RECORDS" --write "$RECORDS/claims.md" >&2
if compgen -G "$RECORDS/recall-*" >/dev/null; then
    { printf '# Probes: accuracy\n\n'; "$BUILD/probe-table" "$RECORDS"; } >"$RECORDS/probes.md"
fi
for kind in ladder budget; do
    compgen -G "$RECORDS/$kind-*" >/dev/null || continue
    "$BUILD/scaling" "$RECORDS/$kind"-*/ --out "$RECORDS/scaling-$kind" >/dev/null
done
"$BUILD/report" --fill "$RECORDS/page.md" --out "$(dirname "$RECORDS")/STUDY.md" || {
    echo "study_page: the reports in $RECORDS are made, the page is as it was: a sentence of page.md is about other results" >&2
    exit 1
}
