// report --fill: a page's holes are filled from reports, and nothing else is changed.
#include <doctest/doctest.h>
#include <filesystem>

#include "test/temp_dir.h"
#include "tools/report/fill.h"

TEST_CASE("report --fill: numbers and tables from reports") {
    TempDir t;
    std::filesystem::create_directory(t.path + "/a");
    spill(t.path + "/a/report.json", R"({"sections": [{"matching": "layout", "sd_between_seeds": 0.01234, "rows": [
        {"row": "qkv", "val_loss": 2.0, "difference": null, "verdict": "baseline"},
        {"row": "qv", "val_loss": 2.10199, "difference": 0.101951, "interval": [-0.0995, 0.10441], "pairs": 3,
         "cache_bytes_per_token": 1024.0,
         "p": 0.00001, "verdict": "worse"}]}]})");
    spill(t.path + "/a/report.md", "# a\n## Same layout; positions: rope\n\n| x | y |\n|---|---|\n| 1 | 2 |\n\n| other |\n"
                                    "### More\n| z |\n## Empty\n## Same cache\n### More\n| c |\n");
    auto filled = [&](const std::string& text) {
        spill(t.path + "/page.md", text);
        return fill_page(t.path + "/page.md");
    };
    CHECK(filled("no hole, {one brace}\n") == "no hole, {one brace}\n");
    CHECK(filled("{{a layout qv difference}} over {{a layout qv pairs}} seeds: {{a layout qv verdict}}\n") ==
          "+0.1020 over 3 seeds: worse\n");
    CHECK(filled("{{a layout qkv val_loss}} {{a layout qv interval}}\n") == "2.0000 [-0.0995, +0.1044]\n");
    CHECK(filled("{{a layout qv cache_bytes_per_token}} {{a layout qv p}} {{a layout - sd_between_seeds}}\n") ==
          "1024 below 0.0001 0.0123\n");
    CHECK(filled("{{table a ## Same layout}}\nEnd\n") == "| x | y |\n|---|---|\n| 1 | 2 |\nEnd\n");
    CHECK(filled("{{table a/report.md ## Same layout}}\n") == "| x | y |\n|---|---|\n| 1 | 2 |\n");
    CHECK(filled("{{table a ## Same cache > ### More}}{{table a ## Same layout > ### More}}\n") == "| c || z |\n");
    CHECK(filled("It is.{{holds a layout worse qv}}{{holds a layout order qkv qv}}{{holds a layout around-0 qv}}\n") == "It is.\n");
    CHECK(filled("It is\n  {{holds a layout worse qv}}\nso.\n\n") == "It is\nso.\n\n");
    for (const char* hole : {"holds a layout better qv", "holds a layout order qv qkv", "holds a layout above-0 qv",
                             "holds a layout around-0 qkv", "holds a layout good qv", "holds a layout worse", "holds a params worse qv",
                             "a layout mla difference", "a params qv difference", "a layout qv weight", "a layout qkv difference",
                             "a layout", "b layout qv sd", "table a ## Other", "table a ## Empty", "table a ## Empty > ### More",
                             "a layout qv difference more"}) {
        std::string message;
        try {
            filled("first\n{{" + std::string(hole) + "}}\n");
        } catch (const std::exception& e) {
            message = e.what();
        }
        CHECK_MESSAGE(message.rfind(t.path + "/page.md:2: ", 0) == 0, hole << ": " << message);
    }
}
