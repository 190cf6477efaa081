// Nominal dense bf16 tensor-core rates with fp32 accumulation, by which "MFU" divides. Figures published with sparsity are
// halved here; on GeForce cards the rate with fp32 accumulation is half of that with fp16 accumulation. NVIDIA publishes
// them in the cards' data sheets, the Blackwell Architecture Technical Brief (table 3), and the GA102, Ada and RTX
// Blackwell whitepapers; these documents could not be opened when the table was written. Confirmed by at least two other
// published tables: H100 and H200 SXM, B200, GB200, A100, A10, A40, L4, L40S, RTX 4090, RTX 5090. Not confirmed: all
// others (for the B300 one published figure disagrees).
// Clocks under load are lower than the nominal ones, so no program reaches these rates: `make gpu-check` measures what
// can be reached.
// Not for cards that are not listed: their MFU is left out rather than guessed.
#pragma once
#include <string>

struct NominalPeak {
    const char* name;            // after "NVIDIA " and "GeForce "
    double tflops;
    // The driver's name may continue ("A100-SXM4-80GB", "H100 80GB HBM3"); otherwise it must end there, since "RTX 4080
    // SUPER" is another card.
    bool family;
};
// The first that fits wins, so special cases come before their family.
inline constexpr NominalPeak NOMINAL_PEAKS[] = {
    {"GB300", 2500, true},    {"B300", 2250, true},      {"GB200", 2500, true},    {"B200", 2250, true},    {"GH200", 989.4, true},
    {"H200 NVL", 835.5, true}, {"H200", 989.4, true},    {"H100 NVL", 835.5, true}, {"H100 PCIe", 756, true}, {"H100", 989.4, true},
    {"H800 PCIe", 756, true}, {"H800", 989.4, true},     {"A100", 312, true},      {"A800", 312, true},     {"A30", 165, true},
    {"A10", 125, false},      {"A40", 149.7, false},     {"L40S", 362, false},     {"L40", 181, false},     {"L4", 121, false},
    {"RTX 6000 Ada Generation", 364.2, false},           {"RTX A6000", 154.8, false},
    {"RTX 3080", 59.5, false}, {"RTX 3090", 71, false},  {"RTX 4080", 97.5, false}, {"RTX 4090", 165.2, false},
    {"RTX 5080", 112.6, false}, {"RTX 5090", 209.5, false}};

// FLOP/s of the device with this name; 0: unknown. A slice of a card (MIG) has no figure of its own.
inline double nominal_bf16_flops(std::string name) {
    for (const std::string prefix : {"NVIDIA ", "GeForce ", "Tesla "})
        if (name.rfind(prefix, 0) == 0) name.erase(0, prefix.size());
    if (name.find(" MIG ") != std::string::npos) return 0;
    for (const NominalPeak& peak : NOMINAL_PEAKS) {
        std::string part = peak.name;
        if (name.rfind(part, 0) != 0) continue;
        bool ends = name.size() == part.size(), word_ends = ends || name[part.size()] == ' ' || name[part.size()] == '-';
        if (ends || (peak.family && word_ends)) return peak.tflops * 1e12;
    }
    return 0;
}
