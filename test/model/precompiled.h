// What the tests of whole models include, compiled once for each set of flags and then read as it is (test/rules.mk). Only headers
// that are not ours: ours differ with the variant.
#include <algorithm>
#include <array>
#include <cmath>
#include <cstdarg>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <doctest/doctest.h>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>
