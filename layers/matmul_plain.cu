// The products of BACKEND=emu. See matmul_plain.cuh.
#include "layers/matmul_plain.cuh"

bool matmul(const Matmul& p) {
    if (p.epilogue != Epilogue::none) return false;
    matmul_plain(p);
    return true;
}
