// The nominal peak is that of the card the driver names, not of one whose name begins alike.
#include <doctest/doctest.h>

#include "runtime/device/nominal_peaks.h"

TEST_CASE("nominal peaks by the driver's names") {
    struct { const char* name; double tflops;
    } cards[] = {{"NVIDIA H100 80GB HBM3", 989.4},
                 {"NVIDIA H100 PCIe", 756},
                 {"NVIDIA H100 NVL", 835.5},
                 {"NVIDIA H200", 989.4},
                 {"NVIDIA H200 NVL", 835.5},
                 {"NVIDIA GH200 480GB", 989.4},
                 {"NVIDIA B200", 2250},
                 {"NVIDIA GB200", 2500},
                 {"NVIDIA B300 SXM6 AC", 2250},
                 {"NVIDIA A100-SXM4-80GB", 312},
                 {"A100-PCIE-40GB", 312},
                 {"NVIDIA A100 80GB PCIe", 312},
                 {"NVIDIA A10", 125},
                 {"NVIDIA L4", 121},
                 {"NVIDIA L40", 181},
                 {"NVIDIA L40S", 362},
                 {"NVIDIA GeForce RTX 5090", 209.5},
                 {"NVIDIA GeForce RTX 4090", 165.2},
                 {"NVIDIA RTX 6000 Ada Generation", 364.2},
                 {"NVIDIA RTX A6000", 154.8}};
    for (auto [name, tflops] : cards) {
        INFO(name);
        CHECK(nominal_bf16_flops(name) == tflops * 1e12);
    }
}

TEST_CASE("cards with a similar name have no peak") {
    for (const char* name :
         {"NVIDIA A10G", "NVIDIA RTX A4000", "NVIDIA GeForce RTX 4090 Laptop GPU", "NVIDIA GeForce RTX 4080 SUPER",
          "NVIDIA GeForce RTX 3080 Ti", "NVIDIA GeForce RTX 5090 D", "NVIDIA H20", "NVIDIA A100-SXM4-40GB MIG 1g.5gb",
          "NVIDIA H1000", "Tesla V100-SXM2-16GB", ""}) {
        INFO(name);
        CHECK(nominal_bf16_flops(name) == 0);
    }
}
