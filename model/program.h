// What this binary was built as, for the reading of its options.
#pragma once
#include "attention/attention.h"
#include "runtime/run/build_info.h"

inline Program this_program() { return {ATTENTION_NAME, ATTENTION_OPTIONS, build_info().variants}; }
