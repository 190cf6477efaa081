// The Makefile writes build_info.inc, one for each kind of build, whenever the commit or the flags change. See build_info.h.
#include "runtime/run/build_info.h"

#include "build_info.inc"

BuildInfo build_info() { return {BUILD_COMMIT, __VERSION__, BUILD_FLAGS, __DATE__, BUILD_VARIANTS}; }
