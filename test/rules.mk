# The rules of tests and benchmarks, included by the Makefile, whose names they use.

# ------------------------------------------------------------------------------------------------ tests
# test_ops: every layer, tokenizer, data, files (fp32). test_ops in fp64: the same layers, where rounding hides nothing.
# test_gradients, test_model: whole models, one binary per variant and precision.
test: setup-test
	@$(in_turn) $(MAKE) --no-print-directory -j$(JOBS) test-binaries
	@scripts/run_tests.sh

# Tests are compiled with -O1 (operations: their oracles compute) or -O0, and a doctest check calls a function
# instead of expanding it: half as long to build (docs/LOG.md). What they test is compiled as always.
$(OBJ)/test/ops/test_%.o $(OBJ)/unity/ops%.o $(OBJ)/step-%.o: CXXFLAGS += -O1
$(OBJ)/test/system/test_%.o $(OBJ)/unity/unit%.o $(HOST)/test/main.o $(OBJ)/test-%.o $(OBJ)/test/model/%.gch: CXXFLAGS += -O0
$(OBJ)/test/%.o $(OBJ)/unity/%.o $(HOST)/test/main.o $(OBJ)/test-%.o $(OBJ)/test/model/%.gch: \
    CPPFLAGS += -DDOCTEST_CONFIG_SUPER_FAST_ASSERTS
TEST_MAIN  := $(HOST)/test/main.o
# What every test of a whole model includes, parsed once for each set of flags: a third of their time (docs/LOG.md).
PARSED     := $(OBJ)/test/model/precompiled.h
$(PARSED).gch: test/model/precompiled.h
	@mkdir -p $(@D)
	$(call say,compile $<)$(CXX) $(CPPFLAGS) $(CXXFLAGS) -x c++-header -c $< -o $@
$(OBJ)/test-%.o: private CPPFLAGS += -include $(PARSED)

# Several tests are compiled as one, as the Makefile does it for report and compare. Their helpers must not have the same names.
UNITY_ops-layers    := $(wildcard test/ops/test_ops_*.cpp)
UNITY_ops-attention := $(wildcard test/ops/test_sdpa*.cpp)
OP_TESTS            := $(patsubst %,$(OBJ)/unity/%.o,ops-layers ops-attention)
OTHER_TESTS         := $(UNITY_ops-layers) $(UNITY_ops-attention) test/ops/test_emu.cpp test/system/test_comm.cpp \
    $(wildcard test/ops/test_cuda_*.cpp)
UNITY_unit-report   := $(wildcard test/system/test_report*.cpp)
UNITY_unit-files    := $(wildcard test/system/test_checkpoint*.cpp) \
    $(patsubst %,test/system/test_%.cpp,safetensors rundir inspect)
UNITY_unit-tokens   := $(wildcard test/system/test_tokenizer*.cpp test/system/test_dataloader.cpp)
UNITY_unit-rest     := $(filter-out $(UNITY_unit-report) $(UNITY_unit-files) $(UNITY_unit-tokens) $(OTHER_TESTS), \
    $(wildcard test/ops/test_*.cpp test/system/test_*.cpp))
UNIT_TESTS          := $(patsubst %,$(OBJ)/unity/%.o,unit-report unit-files unit-tokens unit-rest)
# Whole models, for each variant. test_step.cpp compares with the CPU in fp32, so not there; it has not run on a GPU.
UNITY_model         := test/model/test_model.cpp test/model/test_decode.cpp $(if $(filter emu,$(BACKEND)),test/model/test_step.cpp)
UNITY_model-bf16    := test/model/test_model_bf16.cpp $(if $(filter cuda,$(BACKEND)),,test/model/test_step.cpp)
$(OBJ)/unity/%.o: $(OBJ)/unity/%.cpp
	$(call say,compile $(UNITY_$*))$(CXX) $(CPPFLAGS) $(CXXFLAGS) -c $< -o $@
# The PTX interpreter and its tests. No product and sum is contracted where PTX has two roundings; a register is read as any
# type of its width.
PTX_OBJECTS := $(patsubst %,$(HOST)/test/ptx/%.o,parse run integers floats memory warp_operations)
$(PTX_OBJECTS): CXXFLAGS += -O2 -ffp-contract=off -fno-strict-aliasing
$(OBJ)/test/ptx/test_%.o: CXXFLAGS += -O0
OBJ64      := build/obj/cpu-fp64-$(BLAS)-$(MARCH)$(addprefix -,$(SANITIZE))
# The variants, and one model with the other norm and MLP.
ALSO_TESTED = qv-rmsnorm-swiglu
TESTED      = $(sort $(NAMES)) $(ALSO_TESTED)
.PHONY: test-binaries fp64-binaries
# The tools that use a model, of the first variant.
test-binaries: $(patsubst %,build/%-$(firstword $(NAMES)),generate evaluate) build/export build/import
test-binaries: $(patsubst %,build/test-model-%-fp32,$(TESTED)) $(patsubst %,build/step-%.safetensors,$(TESTED) $(CONTROLS))
test-binaries: $(patsubst %,build/train-%,$(sort $(NAMES))) build/tokenizer build/report build/compare build/inspect
test-binaries: build/probe-data build/probe-table build/claims build/scaling build/hostile
test-binaries: build/test-unit build/test-comm $(NCCL_TEST) build/test-ops-fp32
	@$(MAKE) --no-print-directory test-fp64 test-bf16 test-emu-fp32 test-emu-bf16
# The other builds, side by side: what they share, the host's objects, is there by now.
.PHONY: test-fp64 test-bf16 test-emu-fp32 test-emu-bf16
test-fp64:
	@$(MAKE) --no-print-directory PRECISION=fp64 fp64-binaries
test-bf16:
	@$(MAKE) --no-print-directory PRECISION=bf16 build/test-ops-bf16 $(patsubst %,build/test-model-bf16-%,$(sort $(NAMES)))
test-emu-fp32:
	@$(MAKE) --no-print-directory BACKEND=emu PRECISION=fp32 build/test-emu-fp32 $(patsubst %,build/test-emu-model-%,$(TESTED) $(CONTROLS))
test-emu-bf16:
	@$(MAKE) --no-print-directory BACKEND=emu PRECISION=bf16 build/test-emu-bf16 \
	    $(patsubst %,build/test-emu-model-bf16-%,$(TESTED)) build/train-$(firstword $(NAMES))-emu-bf16
fp64-binaries: build/test-ops-fp64 $(patsubst %,build/test-gradients-%,$(TESTED) $(CONTROLS))
fp64-binaries: $(patsubst %,build/test-model-%-fp64,$(TESTED))

# The CUDA kernels in emulation under AddressSanitizer, UndefinedBehaviorSanitizer and ThreadSanitizer: a quarter of `make test` again,
# so apart from it; .ci/run does both.
.PHONY: test-sanitized test-sanitized-binaries test-emu-address test-emu-thread
test-sanitized: setup-test
	@$(in_turn) $(MAKE) --no-print-directory -j$(JOBS) test-sanitized-binaries
	@scripts/run_tests.sh emu-bf16-
test-sanitized-binaries: test-emu-address test-emu-thread
test-emu-address test-emu-thread: test-emu-%:
	@$(MAKE) --no-print-directory BACKEND=emu PRECISION=bf16 SANITIZE=$* COMM=none build/test-emu-bf16-$*

# For whoever writes a variant, a norm or an MLP: `make check ATTN=gta` runs the layers' tests and one
# model's: every gradient against finite differences, PyTorch's values where there are some, the identities,
# overfitting. The CUDA kernels are left to `make test`.
.PHONY: check
CHECKED     = $(ATTN)$(PARTS)
CHECKS      = test-ops-fp32 test-gradients-$(CHECKED) test-model-$(CHECKED)-fp64 test-model-$(CHECKED)-fp32
check: setup-test
	@$(in_turn) $(MAKE) --no-print-directory -j$(JOBS) BACKEND=cpu PRECISION=fp32 \
	    build/test-ops-fp32 build/test-model-$(CHECKED)-fp32 build/train-$(CHECKED)
	@$(in_turn) $(MAKE) --no-print-directory -j$(JOBS) BACKEND=cpu PRECISION=fp64 \
	    build/test-gradients-$(CHECKED) build/test-model-$(CHECKED)-fp64
	@export GOMP_SPINCOUNT=5000; failed=0; for t in $(CHECKS); do build/$$t --no-version --no-colors >build/$$t.log 2>&1; code=$$?; \
	  if [ $$code = 0 ]; then printf 'passed   %-34s %s\n' $$t "$$(sed -n 's/.*test cases: *//p' build/$$t.log)"; \
	  else failed=1; cat build/$$t.log; printf 'FAILED   %s\n' $$t; fi; done; \
	  [ $$failed = 0 ] && echo "$(CHECKED): all right on the CPU; try it: build/train-$(CHECKED) --help;" \
	    "make test has the CUDA kernels, emulated"

build/test-unit: $(TEST_MAIN) $(UNIT_TESTS) $(call objects,test/ptx/test_ptx.cpp) $(PTX_OBJECTS) $(SCALING) $(REPORT) $(COMMON)
	$(link)
# The CUDA kernels in emulation: the same operation tests, the emulator's own, and whole models against PyTorch's values.
# (Linked without the host's files, which these tests do not use: sanitized, they would have to be compiled again.)
build/test-emu-$(PRECISION)$(addprefix -,$(SANITIZE)): $(TEST_MAIN) $(OP_TESTS) $(call objects,test/ops/test_emu.cpp $(LAYERS))
	$(link)
build/test-emu-model-%: $(OBJ)/test-model-%.o $(TEST_MAIN) $(COMMON)
	$(link)
# The CPU in bf16, held against the same: PyTorch's values, and training steps by a plain implementation's error.
build/test-model-bf16-%: $(OBJ)/test-model-bf16-%.o $(TEST_MAIN) $(COMMON)
	$(link)
build/test-emu-model-bf16-%: $(OBJ)/test-model-bf16-%.o $(TEST_MAIN) $(COMMON)
	$(link)
# Training steps, emulated against the CPU, which computes them first. One thread: for models this small, two would mostly wait.
build/step-%.safetensors: build/step-reference-%
	$(call say,write   $@)OMP_NUM_THREADS=1 $<
build/step-reference-%: $(OBJ)/step-reference-%.o $(COMMON)
	$(link)
$(OBJ)/step-reference-%.o: test/model/step_reference.cpp
	$(compile_variant)
build/test-ops-$(PRECISION): $(TEST_MAIN) $(OP_TESTS) $(COMMON)
	$(link)
$(OBJ)/test-gradients-%.o: test/model/test_gradients.cpp $(PARSED).gch
	$(compile_variant)
$(OBJ)/test-model-%.o: $(OBJ)/unity/model.cpp $(PARSED).gch
	$(compile_variant)
# Communication between processes; test/system/test_mpi.sh runs it under mpirun. test-comm-nccl: the NCCL path
# on a fake of NCCL and CUDA (test/fakes/fake_nccl.cpp), where their headers are. Against the real libraries:
# BACKEND=cuda.
build/test-comm$(SUFFIX): $(COMM_OBJ)/test/system/comm_main.o $(COMM_OBJ)/test/system/test_comm.o $(COMMON)
	$(link)
NCCL_TEST := $(if $(and $(filter mpi,$(COMM)),$(NCCL_FOUND)),build/test-comm-nccl)
NCCL_PARTS = test/system/comm_main test/system/test_comm test/fakes/fake_nccl $(patsubst %,runtime/comm/%,$(COMM_SOURCES_nccl))
NCCL_OBJ   = $(patsubst %,build/obj/comm-nccl-$(notdir $(MPICC))-$(MARCH)$(addprefix -,$(SANITIZE))/%.o,$(NCCL_PARTS))
build/obj/comm-nccl-$(notdir $(MPICC))-$(MARCH)$(addprefix -,$(SANITIZE))/%.o: %.cpp
	@mkdir -p $(@D)
	$(call say,compile $< (nccl))$(CXX) -I. $(DEPFLAGS) $(COMM_FLAGS_nccl) -MMD -MP $(CXXFLAGS) -c $< -o $@
build/test-comm-nccl: $(NCCL_OBJ) $(OBJ)/runtime/run/build_info.o
	$(call say,link    $@)$(CXX) $(CXXFLAGS) $^ -o $@ $(DEPLIBS) $(COMM_LIBS_mpi)
build/test-gradients-%: $(OBJ)/test-gradients-%.o $(TEST_MAIN) $(COMMON)
	$(link)
build/test-model-%-$(PRECISION): $(OBJ)/test-model-%.o $(TEST_MAIN) $(COMMON)
	$(link)

# 220 random kills and every passage of every point of the checkpoint protocol; libFuzzer on the parsers, 10 minutes each (needs clang);
# the time of a checkpoint beside dd's.
.PHONY: test-crash fuzz hostile bench-checkpoint inspect
test-crash: setup-test
	@$(MAKE) --no-print-directory -j$(JOBS) build/train-qkv build/tokenizer build/inspect
	@test/system/test_crash.sh build 220
fuzz:
	@test/fuzz/run.sh
# Minimal Debian 12 and 13, and several machines with and without Slurm, made on the spot: as root; each says what it needs.
.PHONY: test-machines test-cluster
test-machines:
	@test/system/machines.sh
test-cluster: setup-test
	@$(in_turn) $(MAKE) --no-print-directory -j$(JOBS) build/train-qv build/tokenizer
	@test/system/cluster.sh build
# Hostile input to the real programs, by kind: prints a table.
hostile: setup-test
	@$(MAKE) --no-print-directory -j$(JOBS) build/train-qkv build/tokenizer build/hostile
	@build/hostile build 40
build/hostile: $(OBJ)/test/fuzz/hostile.o $(COMMON)
	$(link)
bench-checkpoint: setup-test
	@$(MAKE) --no-print-directory -j$(JOBS) build/train-qkv build/tokenizer
	@test/bench/bench_checkpoint.sh
inspect: setup-build
	@$(MAKE) --no-print-directory -j$(JOBS) build/inspect

# ------------------------------------------------------------------------------------------------ a GPU
# The operation tests and whole models with BACKEND=cuda: against PyTorch's values in fp32, to rounding, and in bf16 (emu too).
# They build without a GPU and run with one; gpu-check does all that is to be done on a machine with one.
.PHONY: test-cuda-binaries gpu-check deps
test-cuda-binaries: setup-test
	@$(MAKE) --no-print-directory BACKEND=cuda PRECISION=fp32 -j$(JOBS) build/test-cuda-fp32 \
	    $(patsubst %,build/test-cuda-model-%,$(sort $(NAMES)))
	@$(MAKE) --no-print-directory BACKEND=cuda PRECISION=bf16 -j$(JOBS) build/test-cuda-bf16 \
	    $(patsubst %,build/test-cuda-model-bf16-%,$(sort $(NAMES)))
build/test-cuda-$(PRECISION): $(TEST_MAIN) $(OP_TESTS) $(COMMON)
	$(link)
build/test-cuda-model-%: $(OBJ)/test-model-%.o $(TEST_MAIN) $(COMMON)
	$(link)
build/test-cuda-model-bf16-%: $(OBJ)/test-model-bf16-%.o $(TEST_MAIN) $(COMMON)
	$(link)
$(OBJ)/test-model-bf16-%.o: $(OBJ)/unity/model-bf16.cpp $(PARSED).gch
	$(compile_variant)
build/bench-%-$(BACKEND)-$(PRECISION): $(OBJ)/test/bench/bench_%.cu.o $(COMMON)
	$(link)
build/synthetic-data: $(OBJ)/test/bench/synthetic_data.o $(COMMON)
	$(link)
gpu-check:
	@BACKEND=$(if $(filter emu,$(BACKEND)),emu,cuda) VARIANTS="$(NAMES)" JOBS=$(JOBS) DEPS="$(DEPS)" scripts/gpu_check.sh
# On a machine with a package manager: what a build elsewhere needs, into the folder DEPS.
deps: setup-test
	@scripts/deps.sh "$(DEPS)"

# gdb on one CUDA thread: the emulated operation tests with -O0 -g, and gdb on the test cases that TEST names (doctest's
# pattern), where it is and a person can type; else the command to type. docs/gpu/README.md, "Stepping through one CUDA
# thread".
.PHONY: debug sass-check
TEST      ?=
DEBUG_OF   = $(if $(filter bf16,$(PRECISION)),bf16,fp32)
DEBUG_GDB  = EMU_THREADS=1 EMU_ABORT=1 gdb --args build/test-emu-$(DEBUG_OF)-debug $(if $(TEST),-tc="$(TEST)")
debug: setup-test
	@$(MAKE) --no-print-directory BACKEND=emu PRECISION=$(DEBUG_OF) SANITIZE=debug COMM=none -j$(JOBS) build/test-emu-$(DEBUG_OF)-debug
	@echo '$(DEBUG_GDB)'
	@if [ -t 0 ] && command -v gdb >/dev/null; then $(DEBUG_GDB); fi
# The machine code of the kernels' inner loops, counted, against docs/gpu/sass.tsv. Needs nvcc and nvdisasm, no GPU.
sass-check:
	@scripts/sass_check.sh build

# Compiles every CUDA kernel for sm_80, sm_90, sm_120 in both precisions, warnings as errors, in attention register spills
# too, and runs the backend's memory, copies and graphs, and the choice of matrix algorithms, on stand-ins for the CUDA
# runtime and cuBLASLt. Needs nvcc, no GPU.
.PHONY: cuda-check cuda-objects
cuda-check:
	@$(MAKE) --no-print-directory BACKEND=cuda CUDA_ARCH= PRECISION=bf16 -j$(JOBS) cuda-objects
	@$(MAKE) --no-print-directory BACKEND=cuda CUDA_ARCH= PRECISION=fp32 -j$(JOBS) cuda-objects build/test-cuda-memory build/test-cuda-matmul
	@build/test-cuda-memory --no-colors && build/test-cuda-matmul --no-colors
CUDA_STAND_IN    := test/fakes/fake_cudart.cpp runtime/device/backend_cuda.cu runtime/device/replay.cu runtime/comm/single.cpp
CUDA_MEMORY_TEST := test/ops/test_cuda_memory.cpp test/ops/test_cuda_replay.cpp test/fakes/some_kernels.cu $(CUDA_STAND_IN)
build/test-cuda-memory: $(TEST_MAIN) $(call objects,$(CUDA_MEMORY_TEST))
	$(call say,link    $@)$(CXX) $(CXXFLAGS) $^ -o $@
CUDA_MATMUL_TEST := test/ops/test_cuda_matmul.cpp test/fakes/some_products.cu layers/matmul_cublaslt.cu \
    test/fakes/fake_cublaslt.cpp $(CUDA_STAND_IN)
build/test-cuda-matmul: $(TEST_MAIN) $(call objects,$(CUDA_MATMUL_TEST)) $(patsubst %,$(HOST)/runtime/run/%.o,files matmul_choices)
	$(call say,link    $@)$(CXX) $(CXXFLAGS) $^ -o $@ $(DEPLIBS)
$(OBJ)/test/fakes/fake_cudart.o $(OBJ)/test/fakes/fake_cublaslt.o: CPPFLAGS += -isystem $(CUDA_LIB)/../include
cuda-objects: $(patsubst %.cu,$(OBJ)/%.cu.o,$(KERNELS))

# What nvcc makes of the kernels, executed by an interpreter of PTX (test/ptx): the operation tests, and mistakes planted in
# layers/ptx.cuh. Needs nvcc, no GPU.
.PHONY: ptx-check ptx-files
ptx-check: setup-test
	@test/ptx/ptx_check.sh build
# (layers/matmul_cublaslt.cu has no kernel of its own, runtime/device/backend_cuda.cu none at all.)
PTX_ARCH   ?= 90
PTX_FOLDER  = build/ptx/sm_$(PTX_ARCH)-$(PRECISION)
PTX_FILES   = $(patsubst %.cu,$(PTX_FOLDER)/%.ptx,$(filter-out %/matmul_cublaslt.cu runtime/%,$(KERNELS)))
ptx-files: $(PTX_FILES)
$(PTX_FOLDER)/%.ptx: %.cu
	@mkdir -p $(@D)
	$(call say,compile $< (PTX))$(NVCC) -ptx -std=c++20 -O3 -ftz=true -arch=sm_$(PTX_ARCH) -I. -DPRECISION_$(PRECISION) \
	    -MD -MP -MF $(@:.ptx=.d) $< -o $@
-include $(PTX_FILES:.ptx=.d)
# Linked with AddressSanitizer's library, though nothing is compiled with it: the interpreter asks it for each global address.
build/test-ptx-$(PRECISION): $(TEST_MAIN) $(OP_TESTS) $(call objects,$(LAYERS)) $(OBJ)/test/ptx/hook.o $(PTX_OBJECTS)
	$(call say,link    $@)$(CXX) $(CXXFLAGS) -fsanitize=address $^ -o $@ $(LDLIBS)

# ------------------------------------------------------------------------------------------------ measuring
bench: setup-test
	@$(MAKE) --no-print-directory -j$(JOBS) PRECISION=fp32 build/train-qkv build/bench-step-qkv build/bench-tokenizer build/tokenizer
	@$(MAKE) --no-print-directory -j$(JOBS) PRECISION=bf16 build/bench-step-qkv-cpu-bf16
	@scripts/bench.sh
build/bench-step-%$(SUFFIX): $(OBJ)/bench-step-%.o $(COMMON)
	$(link)
$(OBJ)/bench-step-%.o: test/bench/bench_step.cpp
	$(compile_variant)
# Decoding against the memory's bandwidth, every variant.
.PHONY: bench-decode
bench-decode: setup-build
	@$(MAKE) --no-print-directory -j$(JOBS) $(patsubst %,build/bench-decode-%$(SUFFIX),$(sort $(NAMES)))
	@$(MAKE) --no-print-directory -j$(JOBS) build/synthetic-data build/train-qkv build/generate-qkv build/export
	@VARIANTS="$(sort $(NAMES))" test/bench/bench_decode.sh build
build/bench-decode-%$(SUFFIX): $(OBJ)/bench-decode-%.o $(TOOL_OBJ) $(COMMON)
	$(link)
$(OBJ)/bench-decode-%.o: test/bench/bench_decode.cpp
	$(compile_variant)
# Where a step's time goes, for every variant in fp32 and bf16: the table of docs/BENCHMARKS.md.
.PHONY: bench-parts bench-precision
bench-parts: setup-build
	@$(MAKE) --no-print-directory -j$(JOBS) PRECISION=fp32 $(patsubst %,build/bench-step-%,$(sort $(NAMES)))
	@$(MAKE) --no-print-directory -j$(JOBS) PRECISION=bf16 $(patsubst %,build/bench-step-%-cpu-bf16,$(sort $(NAMES)))
	@VARIANTS="$(sort $(NAMES))" test/bench/bench_parts.sh
# The loss in bf16 beside fp32, over paired seeds, at the default comparison's size.
bench-precision: setup-compare
	@$(MAKE) --no-print-directory -j$(JOBS) PRECISION=fp32 build/train-$(ATTN) build/tokenizer
	@$(MAKE) --no-print-directory -j$(JOBS) PRECISION=bf16 build/train-$(ATTN)-cpu-bf16
	@VARIANT=$(ATTN) test/bench/bench_precision.sh
build/bench-tokenizer: $(OBJ)/test/bench/bench_tokenizer.o $(COMMON)
	$(link)

# Two processes against two threads.
.PHONY: bench-ranks
bench-ranks: setup-build
	@$(MAKE) --no-print-directory -j$(JOBS) build/train-qkv build/tokenizer
	@test/bench/bench_ranks.sh build
# Bandwidth between processes: mpirun -np 2 build/bench-comm 44
build/bench-comm: $(COMM_OBJ)/test/bench/bench_comm.o $(COMM_LINKED) $(OBJ)/runtime/run/build_info.o
	$(link)
