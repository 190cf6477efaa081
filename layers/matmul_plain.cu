// The products of BACKEND=emu. See matmul_plain.cuh.
#include "layers/matmul_plain.cuh"

void matmul_start() {}
size_t matmul_workspace_bytes() { return 0; }
std::string matmul_keep_choices(const std::string&) { return ""; }

bool matmul(const Matmul& p) {
    if (p.epilogue != Epilogue::none) return false;
    matmul_plain(p);
    return true;
}
