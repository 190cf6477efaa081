// What this binary is, for config.json, --version and error messages.
#pragma once
#include <string>

// variants: all that there were in attention/, "gqa mla mqa qkv ..".
struct BuildInfo { std::string commit, compiler, flags, date, variants; };
BuildInfo build_info();
