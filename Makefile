# qv.cu: `make help` lists what there is. `make compare` and `make test` do everything, set-up included.

# ------------------------------------------------------------------------------------------------ choices
# The attention variant of `make train`, and the list of all: a new variant is attention/NAME.h and one word here.
ATTN      ?= qkv
VARIANTS  ?= qkv mqa gqa mla qv qv_ka gta
# Variants that must lose, to check that a comparison can tell (make claims). Built and compared when VARIANTS names them.
CONTROLS  ?= qk one
# The norm and the MLP of every block: model/norm/NAME.h (layernorm, rmsnorm), model/mlp/NAME.h (gelu, swiglu). A binary
# with other choices than these has them in its name: NORM=rmsnorm MLP=swiglu makes build/train-qv-rmsnorm-swiglu, and so
# does `make build/train-qv-rmsnorm-swiglu`.
NORM      ?= layernorm
MLP       ?= gelu
# Where it runs: cpu; emu, the CUDA kernels executed on the CPU by a model of CUDA, to test and to learn (slow); cuda,
# NVIDIA GPUs (needs nvcc).
BACKEND   ?= cpu
# Storage of weights and activations: fp32; bf16, what tensor cores and AVX512_BF16 are for; fp64 (cpu) for gradient checks.
PRECISION ?= $(if $(filter cuda,$(BACKEND)),bf16,fp32)
# Matrix products on the CPU: onednn (fastest here, docs/BENCHMARKS.md), openblas, none (our own, no library). auto: the
# first of these that is installed.
BLAS      ?= auto
# Attention on the CPU: panels (attention/sdpa.cpp), or naive, a textbook's loops (attention/sdpa_naive.cpp), to read and to
# check (slow).
SDPA      ?= panels
# Instruction set. native: the best of the machine that builds. For binaries that will be copied elsewhere: x86-64-v3
# (AVX2), x86-64-v4 (AVX-512).
MARCH     ?= native
# A folder of copied headers and libraries (DEPS/include, DEPS/lib), for machines without a package manager.
DEPS      ?=
CXX       ?= g++
# A build with sanitizers, for tests. address: AddressSanitizer and UndefinedBehaviorSanitizer; thread: ThreadSanitizer,
# for BACKEND=emu; debug: for gdb, which then sees every variable (`make debug`).
SANITIZE  ?=
# Processes: mpi (cpu, emu); nccl (cuda; MPI starts it); none: one process. auto: the first that the machine has. MPICC:
# the compiler of the MPI to use.
COMM      ?= auto
MPICC     ?= mpicc
# BACKEND=cuda: the compiler and the GPUs to build for. Default: the GPU of this machine, else sm_80, sm_90, sm_120 and, for
# all others (B200), PTX.
NVCC      ?= $(firstword $(wildcard /usr/local/cuda/bin/nvcc) nvcc)
CUDA_ARCH ?= $(shell nvidia-smi --query-gpu=compute_cap --format=csv,noheader 2>/dev/null | head -1 | tr -d .)
ifeq ($(BACKEND),cuda)
CUDA_ARCH := $(CUDA_ARCH)
ifeq ($(shell command -v $(NVCC)),)
$(error BACKEND=cuda needs nvcc, which is not here: install the CUDA toolkit, give NVCC=path/to/nvcc, \
    or build for the processor with BACKEND=cpu)
endif
endif

# mla:dc=64 is a row of a comparison, mla with an option: one trainer, and one test, for all rows of mla.
NAMES     := $(foreach v,$(VARIANTS),$(firstword $(subst :, ,$(v))))
# A mistyped name is reported before anything is compiled.
UNKNOWN   := $(firstword $(foreach v,$(ATTN) $(NAMES),$(if $(wildcard attention/$(firstword $(subst -, ,$(v))).h),,$(v))))
ifneq ($(UNKNOWN),)
$(error $(UNKNOWN): no such variant, there is no attention/$(UNKNOWN).h; choose among: \
    $(shell sed -n 's/^VARIANTS *?= *//p' $(firstword $(MAKEFILE_LIST))))
endif
ifneq ($(filter-out panels naive,$(SDPA))$(if $(filter naive,$(SDPA)),$(filter-out cpu,$(BACKEND))),)
$(error SDPA=$(SDPA) with BACKEND=$(BACKEND): it is panels or, with BACKEND=cpu, naive)
endif
NORMS     := $(filter-out norm,$(patsubst model/norm/%.h,%,$(wildcard model/norm/*.h)))
MLPS      := $(filter-out mlp,$(patsubst model/mlp/%.h,%,$(wildcard model/mlp/*.h)))
ifneq ($(words $(filter $(NORMS),$(NORM)) $(filter $(MLPS),$(MLP))),2)
$(error NORM=$(NORM) MLP=$(MLP): choose NORM among: $(NORMS), and MLP among: $(MLPS))
endif

# ------------------------------------------------------------------------------------------------ flags, each with its reason
ifneq ($(DEPS),)
DEPFLAGS  := -isystem $(DEPS)/include
DEPLIBS   := -L$(DEPS)/lib -Wl,-rpath,$(abspath $(DEPS))/lib
endif
# (The number sign through a variable: make before 4.3 wants it escaped in a function, later ones take the backslash literally.)
HASH      := \#
comma     := ,
has_header = $(shell echo '$(HASH)include <$(1)>' | $(CXX) $(DEPFLAGS) $(2) -E -x c++ - >/dev/null 2>&1 && echo yes)
BLAS_DEFINE_onednn   := -DBLAS_ONEDNN
BLAS_DEFINE_openblas := -DBLAS_OPENBLAS
BLAS_LIB_onednn      := -ldnnl
BLAS_LIB_openblas    := -lopenblas
# A program is linked: a cblas.h alone may be the reference library's.
BLAS_HEADER_onednn   := dnnl.h
BLAS_HEADER_openblas := cblas.h
has_blas = $(shell printf '$(HASH)include <$(BLAS_HEADER_$(1))>\nint main() {}\n' | \
    $(CXX) $(DEPFLAGS) -x c++ - $(DEPLIBS) $(BLAS_LIB_$(1)) -o /dev/null >/dev/null 2>&1 && echo yes)
CHOSEN_BLAS := $(BLAS)
ifneq ($(BACKEND),cpu)
override BLAS := none
endif
ifeq ($(BLAS),auto)
override BLAS := $(if $(call has_blas,onednn),onednn,$(if $(call has_blas,openblas),openblas,none))
else ifneq ($(filter build/% %-binaries,$(MAKECMDGOALS)),)
BLAS_ADVICE := $(if $(BLAS_LIB_$(BLAS)),no program can be linked with $(BLAS_LIB_$(BLAS)); apt-get install \
    $(if $(filter onednn,$(BLAS)),libdnnl-dev,libopenblas-dev)$(comma) or build with BLAS=auto,choose auto$(comma) \
    onednn$(comma) openblas or none)
$(if $(filter-out none,$(BLAS)),$(if $(call has_blas,$(BLAS)),,$(error BLAS=$(BLAS): $(BLAS_ADVICE))))
endif

# -fno-math-errno       sqrt and log need not set errno: lets loops with them vectorise; values unchanged
# -fno-trapping-math    no floating-point traps are used: lets branch-free selects vectorise; values unchanged
# -Wno-pass-failed      clang tells which loops marked simd it leaves scalar (about eight on AVX2): slower, not wrong
# (-Ofast and -ffast-math are not used: they would let the compiler change results.)
CXXFLAGS  := -std=gnu++20 -O3 -march=$(MARCH) -fopenmp -fno-math-errno -fno-trapping-math -Wall -Wextra -Wno-pass-failed \
    -g1 $(EXTRA_CXXFLAGS)
# -O1                   sanitized code compiles three times as fast, and its reports keep their lines
# clang for thread      it also watches the copies that g++ expands inline; no OpenMP there: its run-time library is not instrumented
SANITIZE_FLAGS_address := -O1 -fsanitize=address,undefined -fno-sanitize-recover=all
SANITIZE_FLAGS_thread  := -O1 -fsanitize=thread -fno-openmp -Wno-source-uses-openmp
SANITIZE_FLAGS_debug   := -O0 -g -fno-inline
CXXFLAGS  += $(SANITIZE_FLAGS_$(SANITIZE))
ifeq ($(SANITIZE)-$(origin CXX),thread-default)
CXX       := $(if $(shell command -v clang++),clang++,g++)
endif
CPPFLAGS  := -I. $(DEPFLAGS) -DPRECISION_$(PRECISION) $(BLAS_DEFINE_$(BLAS)) -MMD -MP
LDLIBS    := $(DEPLIBS) $(BLAS_LIB_$(BLAS)) -lxxhash $(EXTRA_LDFLAGS)

# Kernels: by g++ with -DBACKEND_EMU, or by nvcc. -Xptxas -v prints registers and spills with V=1. -Xcompiler
# -fopenmp: --threads is set there.
# -Wno-restrict: g++ 12's warning about std::string is mistaken (clang does not know it). #pragma unroll is nvcc's.
ifeq ($(BACKEND),emu)
CPPFLAGS  += -DBACKEND_EMU
CXXFLAGS  += -Wno-unknown-pragmas -Wno-unknown-warning-option -Wno-restrict
endif
KERNEL_emu  = $(CXX) $(CPPFLAGS) $(CXXFLAGS) $(if $(SANITIZE),,-O2) -x c++
code_for    = -gencode arch=compute_$(1)$(comma)code=sm_$(1)
GENCODE     = $(if $(CUDA_ARCH),$(call code_for,$(CUDA_ARCH)),$(foreach a,80 90 120,$(call code_for,$(a))) \
    -gencode arch=compute_90$(comma)code=compute_90)
# -ftz=true: exp2f without denormals is one instruction (the bf16 attention kernels spill registers without it).
# Warnings are errors; in attention, spills too. WERROR= lets them pass: an unknown compiler may have unknown warnings.
WERROR     ?= -Werror all-warnings
KERNEL_cuda = $(NVCC) -std=c++20 -O3 -ftz=true $(if $(findstring attention/,$<),-Xptxas -warn-spills) \
    $(WERROR) $(GENCODE) $(filter -I% -D%,$(CPPFLAGS)) -Xcompiler -Wall,-Wextra,-fopenmp \
    $(if $(V),-Xptxas -v) -MMD -MP
# The toolkit's libraries are found at run time without LD_LIBRARY_PATH.
# (A toolkit made of Python packages has lib/ and no libNAME.so, only libNAME.so.13: then that file is named.)
CUDA_ROOT    = $(abspath $(dir $(shell command -v $(NVCC) 2>/dev/null))..)
CUDA_LIB     = $(or $(firstword $(wildcard $(CUDA_ROOT)/lib64 $(CUDA_ROOT)/lib)),$(CUDA_ROOT)/lib64)
cuda_library = $(or $(if $(wildcard $(CUDA_LIB)/lib$(1).so),-l$(1)),$(lastword $(sort $(wildcard $(CUDA_LIB)/lib$(1).so.*))),-l$(1))
LDLIBS_cuda  = -L$(CUDA_LIB) -Wl,-rpath,$(CUDA_LIB) $(call cuda_library,cudart) $(call cuda_library,cublasLt)
LDLIBS    += $(LDLIBS_$(BACKEND))

# Communication. `mpicc -show` prints the flags of Open MPI, MPICH and Intel MPI alike; of MPI only the C interface is used, by g++.
MPI_SHOW  := $(filter -I% -L% -l% -Wl% -pthread,$(shell $(MPICC) -show 2>/dev/null))
MPI_FLAGS := $(if $(call has_header,mpi.h,$(filter -I%,$(MPI_SHOW))),$(or $(MPI_SHOW),-lmpi))
CUDA_HOME := $(patsubst %/bin/,%,$(dir $(NVCC)))
NCCL_FOUND = $(or $(wildcard $(CUDA_HOME)/include/nccl.h),$(call has_header,nccl.h))
ifeq ($(COMM),auto)
override COMM := $(if $(MPI_FLAGS),$(if $(filter cuda,$(BACKEND)),$(if $(NCCL_FOUND),nccl,none),mpi),none)
COMM_WANT := $(if $(MPI_FLAGS),NCCL,MPI)
COMM_PACKAGES := $(if $(MPI_FLAGS),libnccl-dev,libopenmpi-dev openmpi-bin)
COMM_NOTE := $(if $(filter none,$(COMM)),no $(COMM_WANT) found: single-process binary; apt-get install $(COMM_PACKAGES))
endif
COMM_SOURCES_none := single
COMM_SOURCES_mpi  := mpi wait collectives_mpi
COMM_SOURCES_nccl := mpi wait collectives_nccl
COMM_SOURCES = $(patsubst %,runtime/comm/%.cpp,$(COMM_SOURCES_$(COMM)))
COMM_FLAGS_mpi  := $(filter -I% -pthread,$(MPI_FLAGS))
COMM_FLAGS_nccl  = $(COMM_FLAGS_mpi) -isystem $(CUDA_HOME)/include
COMM_LIBS_mpi   := $(filter -L% -l% -Wl% -pthread,$(MPI_FLAGS))
COMM_LIBS_nccl  := $(COMM_LIBS_mpi) -lnccl
LDLIBS    += $(COMM_LIBS_$(COMM))

# ------------------------------------------------------------------------------------------------ files
SDPA_NOTE := $(if $(filter naive,$(SDPA)),-naive)
BLAS_NOTE := $(if $(filter cpu,$(BACKEND)),-$(BLAS))
ARCH_NOTE := $(if $(filter cuda,$(BACKEND)),-sm$(or $(CUDA_ARCH),_all))
CONFIG    := $(BACKEND)-$(PRECISION)$(BLAS_NOTE)$(SDPA_NOTE)$(ARCH_NOTE)-$(MARCH)$(addprefix -,$(SANITIZE))
OBJ       := build/obj/$(CONFIG)
# x.h declares, x.cpp (CPU) and x.cu (emu, cuda) define; the backend links one of them.
LAYERS_cpu  := $(wildcard layers/*.cpp) attention/sdpa$(subst -,_,$(SDPA_NOTE)).cpp attention/sdpa_decode.cpp runtime/device/backend_cpu.cpp
# matmul.cuh's product: cuBLASLt's for cuda, our own for emu.
KERNELS     := $(wildcard layers/*.cu) attention/sdpa.cu attention/sdpa_decode.cu runtime/device/backend_cuda.cu runtime/device/replay.cu
LAYERS_cuda := $(filter-out layers/matmul_plain.cu,$(KERNELS))
LAYERS_emu  := $(filter-out layers/matmul_cublaslt.cu,$(KERNELS))
LAYERS      := $(LAYERS_$(BACKEND))
RUNTIME   := $(filter-out runtime/run/build_info.cpp,$(wildcard runtime/run/*.cpp)) $(wildcard dataloader/*.cpp)
TOKENIZER := $(filter-out tokenizer/main.cpp,$(wildcard tokenizer/*.cpp))
objects    = $(patsubst %.cpp,$(OBJ)/%.o,$(patsubst %.cu,$(OBJ)/%.cu.o,$(1)))
# What the tools beside the trainer share: command lines, opening a run.
TOOLS     := tools/arguments.cpp tools/open_run.cpp tools/questions.cpp
# The runtime, the data and the tokenizer know neither backend nor precision: compiled once for all of them.
HOST      := build/obj/host-$(MARCH)$(addprefix -,$(SANITIZE))
# The parts of report (the tests use them too) and of compare, but for their mains. Each is compiled as one file, unity/NAME.cpp, that
# includes those of UNITY_NAME: the headers take longer to read than they do (docs/LOG.md).
UNITY_report  := $(filter-out tools/report/report.cpp,$(wildcard tools/report/*.cpp))
UNITY_compare := $(filter-out tools/compare/compare.cpp,$(wildcard tools/compare/*.cpp))
REPORT    := $(HOST)/unity/report.o
COMPARE   := $(HOST)/unity/compare.o
SCALING   := $(patsubst %,$(HOST)/tools/scaling/%.o,ladder power_law)
COMM_OBJ  := build/obj/comm-$(COMM)$(if $(filter none,$(COMM)),,-$(notdir $(MPICC)))-$(MARCH)$(addprefix -,$(SANITIZE))
COMM_LINKED = $(patsubst %.cpp,$(COMM_OBJ)/%.o,$(COMM_SOURCES))
COMMON    := $(call objects,$(LAYERS)) $(patsubst %.cpp,$(HOST)/%.o,$(RUNTIME) $(TOKENIZER)) $(COMM_LINKED) $(OBJ)/runtime/run/build_info.o
SUFFIX    := $(if $(filter-out cpu-fp32,$(BACKEND)-$(PRECISION)),-$(BACKEND)-$(PRECISION))$(SDPA_NOTE)

# Rebuilt when the commit or the flags change, so that config.json tells the truth.
COMMIT    := $(shell git describe --always --dirty --abbrev=12 2>/dev/null || echo unknown)
EXISTING  := $(shell grep -l '^inline void attention_defaults' attention/*.h | sed 's|attention/||; s|\.h||')
FLAGS     := $(BACKEND) $(PRECISION) $(BLAS)$(SDPA_NOTE) -march=$(MARCH)
INFO      := '\#define BUILD_COMMIT "$(COMMIT)"' '\#define BUILD_FLAGS "$(FLAGS)"' \
    '\#define BUILD_VARIANTS "$(EXISTING)"' '// linked with $(COMM_OBJ)'
$(shell mkdir -p $(OBJ) && printf '%s\n' $(INFO) > $(OBJ)/build_info.tmp && \
    { cmp -s $(OBJ)/build_info.tmp $(OBJ)/build_info.inc || cp $(OBJ)/build_info.tmp $(OBJ)/build_info.inc; })

# None of make's own rules: they would try to link the .d files.
MAKEFLAGS += --no-builtin-rules
# `make` alone explains itself; `make BACKEND=cuda ATTN=qv` builds that trainer.
.DEFAULT_GOAL := $(if $(filter command,$(origin ATTN) $(origin NORM) $(origin MLP) $(origin BACKEND)),train,help)
.PHONY: help train train-all tokenizer report generate evaluate exchange compare data test bench clean
.PHONY: setup-build setup-data setup-test setup-compare
.SECONDARY:
JOBS      := $(shell nproc 2>/dev/null || echo 2)
# One short line for each file; `make V=1` shows the whole commands.
say        = $(if $(V),,@echo "  $(1)";)

link       = $(call say,link    $@)$(CXX) $(CXXFLAGS) $^ -o $@ $(LDLIBS)
# What includes model/gpt.h is compiled once for each model, qv or qv-rmsnorm-swiglu: the stem of the object's name.
define compile_variant
@mkdir -p $(@D)
$(call say,compile $< ($*))$(CXX) $(CPPFLAGS) $(CXXFLAGS) $(call choices,$*) -x c++ -c $< -o $@
endef
# The choices that a name like qv-rmsnorm-swiglu makes, for the compiler; of this make's NORM and MLP, for a name.
words_of   = $(subst -, ,$(1))
unknown_of = $(filter-out $(NORMS) $(MLPS),$(wordlist 2,9,$(words_of)))
choices    = $(if $(unknown_of),$(error $(1): choose among the norms $(NORMS) and the MLPs $(MLPS)),) \
    -DATTN=$(firstword $(words_of)) -DNORM=$(or $(filter $(NORMS),$(words_of)),layernorm) \
    -DMLP=$(or $(filter $(MLPS),$(words_of)),gelu)
PARTS     := $(addprefix -,$(filter-out layernorm,$(NORM)))$(addprefix -,$(filter-out gelu,$(MLP)))

help:
	@sed 's/^\t//' scripts/help.txt

# ------------------------------------------------------------------------------------------------ building
# Set-up runs first and a second make then looks at what is installed. Two of them in one tree take turns,
# where there is flock (util-linux).
in_turn    = mkdir -p build && exec 9>build/.lock && if command -v flock >/dev/null; then \
    flock -n 9 || { echo "another make builds here: waiting for it" >&2; flock 9; }; fi &&
train: setup-build
	@$(in_turn) $(MAKE) --no-print-directory -j$(JOBS) build/train-$(ATTN)$(PARTS)$(SUFFIX)
	@echo "built build/train-$(ATTN)$(PARTS)$(SUFFIX)   (backend $(BACKEND), $(PRECISION), -march=$(MARCH))  " \
	    "try: build/train-$(ATTN)$(PARTS)$(SUFFIX) --help"
	@$(if $(COMM_NOTE),echo "$(COMM_NOTE)",:)
train-all: setup-build
	@$(in_turn) $(MAKE) --no-print-directory -j$(JOBS) $(patsubst %,build/train-%$(PARTS)$(SUFFIX),$(sort $(NAMES)))
tokenizer: setup-build
	@$(in_turn) $(MAKE) --no-print-directory -j$(JOBS) build/tokenizer
report: setup-build
	@$(in_turn) $(MAKE) --no-print-directory -j$(JOBS) build/report
generate: setup-build
	@$(in_turn) $(MAKE) --no-print-directory -j$(JOBS) build/generate-$(ATTN)$(PARTS)$(SUFFIX)
	@echo "built build/generate-$(ATTN)$(PARTS)$(SUFFIX)   try: build/generate-$(ATTN)$(PARTS)$(SUFFIX) runs/NAME --prompt 'Once upon a time'"
evaluate: setup-build
	@$(in_turn) $(MAKE) --no-print-directory -j$(JOBS) $(patsubst %,build/evaluate-%$(SUFFIX),$(sort $(NAMES)))
	@echo "built build/evaluate-*$(SUFFIX)   try: scripts/evaluate.sh runs/A runs/B"
exchange: setup-build
	@$(in_turn) $(MAKE) --no-print-directory -j$(JOBS) build/export build/import

# -fno-thread-jumps     in what computes: else g++ makes branches of fast_exp's limits, and of each branch a division (GELU: 3 times)
COMPUTES  := $(shell $(CXX) -fno-thread-jumps -Werror -E -x c++ - </dev/null >/dev/null 2>&1 && echo -fno-thread-jumps)
$(OBJ)/layers/%.o $(OBJ)/attention/%.o: CXXFLAGS += $(COMPUTES)
$(OBJ)/%.o: %.cpp
	@mkdir -p $(@D)
	$(call say,compile $<)$(CXX) $(CPPFLAGS) $(CXXFLAGS) -c $< -o $@
$(OBJ)/runtime/run/build_info.o: $(OBJ)/build_info.inc
$(OBJ)/runtime/run/build_info.o: CPPFLAGS += -I$(OBJ)
compile_host = $(CXX) $(filter-out -DPRECISION_% -DBLAS_% -DBACKEND_%,$(CPPFLAGS)) $(CXXFLAGS) -c $< -o $@
$(HOST)/%.o: %.cpp
	@mkdir -p $(@D)
	$(call say,compile $<)$(compile_host)
.PHONY: always
define write_unity
@mkdir -p $(@D)
@printf '#include "%s"\n' $(UNITY_$*) >$@.tmp; cmp -s $@.tmp $@ || cp $@.tmp $@; rm $@.tmp
endef
$(OBJ)/unity/%.cpp: always
	$(write_unity)
$(HOST)/unity/%.cpp: always
	$(write_unity)
.PRECIOUS: $(OBJ)/unity/%.cpp $(HOST)/unity/%.cpp
$(HOST)/unity/%.o: $(HOST)/unity/%.cpp
	$(call say,compile $(UNITY_$*))$(compile_host)
$(COMM_OBJ)/%.o: %.cpp
	@mkdir -p $(@D)
	$(call say,compile $<)$(CXX) -I. $(DEPFLAGS) $(COMM_FLAGS_$(COMM)) -MMD -MP $(CXXFLAGS) -c $< -o $@
$(OBJ)/%.cu.o: %.cu
	@mkdir -p $(@D)
	$(call say,compile $<)$(KERNEL_$(BACKEND)) -c $< -o $@

# -O1: these only call what computes, which has objects of its own, or handle text and a few thousand numbers. With -O3
# they take half as long again to compile and are no faster (docs/LOG.md).
$(OBJ)/train-%.o $(OBJ)/tools/%.o $(HOST)/tools/%.o $(HOST)/unity/%.o $(HOST)/runtime/run/%.o $(HOST)/tokenizer/command.o: \
    CXXFLAGS += -O1
$(OBJ)/train-%.o: train.cu
	$(compile_variant)
build/train-%$(SUFFIX): $(OBJ)/train-%.o $(COMMON)
	$(link)
build/tokenizer: $(OBJ)/tokenizer/main.o $(COMMON)
	$(link)
build/inspect: $(OBJ)/tools/inspect.o $(COMMON)
	$(link)
# Tools that use a model, one for each variant as the trainer.
TOOL_OBJ   = $(patsubst %.cpp,$(HOST)/%.o,$(TOOLS))
$(OBJ)/generate-%.o $(OBJ)/evaluate-%.o $(OBJ)/bench-decode-%.o: CXXFLAGS += -O1
$(OBJ)/generate-%.o: tools/generate.cpp
	$(compile_variant)
$(OBJ)/evaluate-%.o: tools/evaluate.cpp
	$(compile_variant)
build/generate-%$(SUFFIX): $(OBJ)/generate-%.o $(TOOL_OBJ) $(COMMON)
	$(link)
build/evaluate-%$(SUFFIX): $(OBJ)/evaluate-%.o $(TOOL_OBJ) $(COMMON)
	$(link)
# To and from transformers. The modeling file goes into export as one string.
build/export build/import: build/%: $(HOST)/tools/export/%.o $(TOOL_OBJ) $(COMMON)
	$(link)
$(HOST)/tools/export/export.o: $(HOST)/tools/export/modeling_qvcu.inc
$(HOST)/tools/export/export.o: CPPFLAGS += -I$(HOST)
$(HOST)/tools/export/modeling_qvcu.inc: tools/export/modeling_qvcu.py
	@mkdir -p $(@D)
	@{ printf 'R"QVCU('; cat $<; printf ')QVCU"\n'; } > $@
build/report: $(OBJ)/tools/report/report.o $(HOST)/tools/arguments.o $(REPORT) $(COMMON)
	$(link)
build/probe-data: $(HOST)/tools/probe_data.o $(COMMON)
	$(link)
build/probe-table build/claims: build/%: $(HOST)/tools/claims/results.o $(HOST)/tools/compare/settings.o $(REPORT) $(COMMON)
	$(link)
build/probe-table: $(HOST)/tools/claims/probe_table.o
build/claims: $(HOST)/tools/claims/claims.o
build/scaling: $(HOST)/tools/scaling/scaling.o $(HOST)/tools/arguments.o $(SCALING) $(REPORT) $(COMMON)
	$(link)
build/compare: $(HOST)/tools/compare/compare.o $(COMPARE) $(REPORT) $(COMMON)
	$(link)

setup-build:
	@scripts/setup.sh build
setup-data:
	@scripts/setup.sh data
setup-test:
	@scripts/setup.sh test
setup-compare:
	@scripts/setup.sh compare

# ------------------------------------------------------------------------------------------------ the main job
# All variants on the same text: VARIANTS, POS, SIZE, STEPS, SEEDS, ... as `make help` lists them. Unless PRECISION says otherwise, in
# bf16 where the processor and oneDNN multiply it: 0.62 of the time, the same losses (docs/BENCHMARKS.md).
COMPARE_IN = $(if $(filter file-cpu-native,$(origin PRECISION)-$(BACKEND)-$(MARCH)),$(if $(filter onednn auto,$(CHOSEN_BLAS)),$(if \
    $(and $(shell grep -m1 -o avx512_bf16 /proc/cpuinfo),$(call has_blas,onednn)),PRECISION=bf16)))
.PHONY: compare-built
compare: setup-compare
	@$(MAKE) --no-print-directory compare-built $(COMPARE_IN)
compare-built:
	@$(in_turn) $(MAKE) --no-print-directory -j$(JOBS) $(patsubst %,build/train-%$(PARTS)$(SUFFIX),$(sort $(NAMES)))
	@$(in_turn) $(MAKE) --no-print-directory -j$(JOBS) BACKEND=cpu PRECISION=fp32 build/tokenizer build/report build/compare
	@VARIANTS="$(VARIANTS)" SUFFIX="$(PARTS)$(SUFFIX)" scripts/compare.sh
# Probes of recall, copying, induction; verdicts on the claims; the whole study, overnight. Each continues when repeated.
.PHONY: recall claims study study-binaries
study-binaries: setup-compare
	@$(in_turn) $(MAKE) --no-print-directory -j$(JOBS) $(patsubst %,build/train-%,$(sort $(NAMES) $(CONTROLS))) \
	    build/tokenizer build/report build/compare build/probe-data build/probe-table build/claims build/scaling build/evaluate-qkv
recall claims study: study-binaries
	@scripts/$@.sh
data: setup-data
	@$(in_turn) $(MAKE) --no-print-directory -j$(JOBS) build/tokenizer
	@scripts/get_data.sh

include test/rules.mk

clean:
	rm -rf build

# (%.d: else make would look for a way to remake these lists, and compile train.cu with ATTN=qkv.d.)
%.d: ;
-include $(shell find build/obj -name '*.d' 2>/dev/null)
