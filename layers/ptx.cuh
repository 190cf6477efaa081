// The few PTX instructions that the kernels use, one function each, few and frozen: their assembly runs on a GPU only.
// Under BACKEND=emu the same names are executed by runtime/device/emu (tensor_core.h, memory.h). Included by cuda_common.cuh.
//
//   SharedAddress               a byte of shared memory as an integer, for arithmetic that must stay cheap: shared_address(pointer).
//                               Where the instructions below take one, a pointer will do as well
//   keep(address)               the compiler must keep this value in its register, instead of computing it again at each use
//   ldmatrix_x4(r, row)         four 8x8 matrices of 16-bit elements from shared memory. Lane l gives the address of one row (16
//                               bytes, 16-byte aligned): rows of matrix q come from lanes 8q .. 8q+7. r[q] of lane l holds elements
//                               (l/4, 2(l%4)) and (l/4, 2(l%4)+1) of matrix q, the first in the low half
//   ldmatrix_x4_trans(r, row)   the same with each matrix transposed: r[q] holds (2(l%4), l/4) and (2(l%4)+1, l/4)
//   mma_bf16_16816(d, a, b0, b1)    D (16x8, float) += A (16x16) B (16x8). With g = l/4, t = l%4, lane l holds
//                               a[0] = A[g][2t..2t+1]      a[1] = A[g+8][2t..2t+1]
//                               a[2] = A[g][2t+8..2t+9]    a[3] = A[g+8][2t+8..2t+9]
//                               b0 = B[2t..2t+1][g]        b1 = B[2t+8..2t+9][g]        (first index in the low half)
//                               d[0] = D[g][2t]  d[1] = D[g][2t+1]  d[2] = D[g+8][2t]  d[3] = D[g+8][2t+1]
//   cp_async16(smem, gmem, valid)   starts copying 16 aligned bytes from global to shared memory; not valid: writes zeros, reads nothing
//   cp_async_commit()           closes this thread's group of copies
//   cp_async_wait<N>()          waits until at most the N newest groups of this thread are under way; other threads' copies are
//                               visible only after the barrier that must follow
//   named_barrier_sync<ID>(n), named_barrier_arrive<ID>(n)    bar.sync / bar.arrive number ID (1 to 15) for n threads
#pragma once
#if defined(__CUDACC__)
#include <cstdint>

// All `volatile` with a memory clobber where they touch memory: the compiler must not move shared-memory accesses across them.
using SharedAddress = uint32_t;
__device__ __forceinline__ SharedAddress shared_address(const void* p) { return uint32_t(__cvta_generic_to_shared(p)); }
__device__ __forceinline__ void keep([[maybe_unused]] SharedAddress& address) {
#if __CUDA_ARCH__ < 1200                         // there the registers are taken: attention's kernels spill with it
    asm volatile("" : "+r"(address));
#endif
}

__device__ __forceinline__ void ldmatrix_x4(uint32_t (&r)[4], SharedAddress row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(row) : "memory");
}
__device__ __forceinline__ void ldmatrix_x4_trans(uint32_t (&r)[4], SharedAddress row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(row) : "memory");
}
__device__ __forceinline__ void mma_bf16_16816(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
__device__ __forceinline__ void ldmatrix_x4(uint32_t (&r)[4], const void* row) { ldmatrix_x4(r, shared_address(row)); }
__device__ __forceinline__ void ldmatrix_x4_trans(uint32_t (&r)[4], const void* row) { ldmatrix_x4_trans(r, shared_address(row)); }
__device__ __forceinline__ void cp_async16(SharedAddress smem, const void* gmem, bool valid = true) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(smem), "l"(gmem), "r"(valid ? 16 : 0) : "memory");
}
__device__ __forceinline__ void cp_async16(void* smem, const void* gmem, bool valid = true) {
    cp_async16(shared_address(smem), gmem, valid);
}
__device__ __forceinline__ void cp_async_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int N> __device__ __forceinline__ void cp_async_wait() { asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory"); }
template <int ID> __device__ __forceinline__ void named_barrier_sync(int threads) {
    asm volatile("bar.sync %0, %1;" ::"n"(ID), "r"(threads) : "memory");
}
template <int ID> __device__ __forceinline__ void named_barrier_arrive(int threads) {
    asm volatile("bar.arrive %0, %1;" ::"n"(ID), "r"(threads) : "memory");
}
#endif
