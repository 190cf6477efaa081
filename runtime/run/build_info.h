// What this binary is, for config.json, --version and error messages.
#pragma once
#include <string>

struct BuildInfo { std::string commit, compiler, flags, date; };
BuildInfo build_info();
