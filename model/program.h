// Which attention, norm and MLP this binary was built with, for reading its options.
#pragma once
#include "model/block.h"
#include "runtime/run/build_info.h"

inline Program this_program() { return {ATTENTION_NAME, NORM_NAME, MLP_NAME, ATTENTION_OPTIONS, build_info().variants}; }
