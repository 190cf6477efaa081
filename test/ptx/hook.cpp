// Linked into a test program of BACKEND=emu: every launch is executed by the PTX interpreter instead of the
// emulation, from the .ptx files in the folders of PTX_DIRS (separated by ':'; of kernels with one name the
// first folder's counts). A kernel that is in none of them is an error: nothing falls back to the emulation.
//   PTX_DIRS=folder[:folder]    EMU_ORDER=forward|reverse|random:SEED    PTX_ULP=2 (approximate instructions
//   off by up to 2 ulp)
//   PTX_REPORT=file    at the end, a line for each kernel in the folders: launches, instructions of warps,
//   mangled name
// g++ knows a kernel by its address and nvcc by its name: the program's own symbol table has both. In
// anonymous namespaces nvcc writes the file into the name, _GLOBAL__N__hash_file_hash, g++ _GLOBAL__N_1:
// names are compared in g++'s form.
#include <elf.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <memory>

#include "layers/cuda_common.cuh"
#include "test/ptx/ptx.h"

// Tests stop before leaks could matter, and the emulator's blocks are kept for ever.
extern "C" const char* __asan_default_options() { return "detect_leaks=0"; }

namespace {
struct Known {
    const ptx::Module* module;
    const ptx::EntryText* entry;
    std::unique_ptr<ptx::Kernel> kernel;    // parsed when it is launched first
    uint64_t launches = 0, instructions = 0;
};

std::string canonical(const std::string& name) {
    std::string result;
    size_t done = 0;
    for (size_t at = name.find("_GLOBAL__N_"); at != std::string::npos; at = name.find("_GLOBAL__N_", done)) {
        size_t digits = at;
        while (digits > done && isdigit(static_cast<unsigned char>(name[digits - 1]))) digits--;
        result += name.substr(done, digits - done) + "12_GLOBAL__N_1";
        done = at + size_t(atoi(name.c_str() + digits));
    }
    return result + name.substr(done);
}

std::map<std::string, Known> load() {
    const char* folders = getenv("PTX_DIRS");
    ensure(folders && *folders, "PTX_DIRS: name the folders of the .ptx files");
    std::map<std::string, Known> kernels;
    std::string rest = folders;
    while (!rest.empty()) {
        const std::string folder = rest.substr(0, rest.find(':'));
        rest = folder.size() < rest.size() ? rest.substr(folder.size() + 1) : "";
        std::vector<std::string> files;
        for (const auto& file : std::filesystem::recursive_directory_iterator(folder))
            if (file.path().extension() == ".ptx") files.push_back(file.path().string());
        ensure(!files.empty(), "no .ptx files in %s", folder.c_str());
        std::sort(files.begin(), files.end());
        for (const std::string& file : files) {
            const ptx::Module* module = new ptx::Module(ptx::read_module(file));    // for the program's life
            for (const ptx::EntryText& entry : module->entries)
                kernels.try_emplace(canonical(entry.name), Known{module, &entry, nullptr});
        }
    }
    return kernels;
}
std::map<std::string, Known>& kernels() {
    static std::map<std::string, Known>& k = *new std::map<std::string, Known>(load());
    return k;
}

// The program's functions by address, from its symbol table.
std::map<uintptr_t, std::string> read_symbols() {
    std::ifstream in("/proc/self/exe", std::ios::binary);
    std::string file{std::istreambuf_iterator<char>(in), {}};
    ensure(file.size() > sizeof(Elf64_Ehdr), "cannot read this program's symbols");
    uintptr_t base = 0;
    dl_iterate_phdr(
        [](dl_phdr_info* info, size_t, void* out) {
            *static_cast<uintptr_t*>(out) = info->dlpi_addr;    // the program itself comes first
            return 1;
        },
        &base);
    auto read = [&]<class T>(T& to, size_t at) { memcpy(&to, file.data() + at, sizeof to); };
    Elf64_Ehdr header;
    read(header, 0);
    std::map<uintptr_t, std::string> symbols;
    for (int s = 0; s < header.e_shnum; s++) {
        Elf64_Shdr table, names;
        read(table, header.e_shoff + size_t(s) * sizeof table);
        if (table.sh_type != SHT_SYMTAB) continue;
        read(names, header.e_shoff + table.sh_link * sizeof names);
        for (size_t at = table.sh_offset; at < table.sh_offset + table.sh_size; at += sizeof(Elf64_Sym)) {
            Elf64_Sym symbol;
            read(symbol, at);
            if (ELF64_ST_TYPE(symbol.st_info) != STT_FUNC || !symbol.st_value) continue;
            const std::string name = file.data() + names.sh_offset + symbol.st_name;
            std::string& here = symbols[base + symbol.st_value];
            if (here.empty() || name.find("_kernel") != std::string::npos) here = name;
        }
    }
    return symbols;
}

void run_ptx(const void* function, dim3 grid, dim3 threads, size_t smem_bytes, const void* const* arguments,
             const size_t* sizes, size_t count) {
    static const std::map<uintptr_t, std::string> symbols = read_symbols();
    auto symbol = symbols.find(reinterpret_cast<uintptr_t>(function));
    ensure(symbol != symbols.end(), "a kernel at %p that this program's symbols do not name", function);
    auto known = kernels().find(canonical(symbol->second));
    ensure(known != kernels().end(), "no .ptx file has the kernel %s", symbol->second.c_str());
    Known& k = known->second;
    if (!k.kernel) k.kernel = std::make_unique<ptx::Kernel>(ptx::parse_kernel(*k.module, *k.entry));
    const emu::Options& options = emu::options();
    ptx::Launch launch{{grid.x, grid.y, grid.z},
                       {threads.x, threads.y, threads.z},
                       smem_bytes,
                       std::vector<const void*>(arguments, arguments + count),
                       std::vector<size_t>(sizes, sizes + count),
                       options.order == emu::Order::reverse  ? ptx::Order::reverse
                       : options.order == emu::Order::random ? ptx::Order::random
                                                             : ptx::Order::forward,
                       options.seed};
    const ptx::Stats s = ptx::run(*k.kernel, launch);
    k.launches++;
    k.instructions += s.instructions;
    emu::Stats& all = emu::stats();
    all.ldmatrix_phases += s.ldmatrix_phases;
    all.ldmatrix_conflicts += s.ldmatrix_conflicts;
    all.access_phases += s.access_phases;
    all.access_conflicts += s.access_conflicts;
}

void report() {
    const char* file = getenv("PTX_REPORT");
    if (!file) return;
    std::ofstream out(file);
    for (const auto& [name, k] : kernels()) out << k.launches << ' ' << k.instructions << ' ' << name << '\n';
}

const bool hooked = [] {
    if (const char* ulp = getenv("PTX_ULP")) ptx::approximate_ulp = atoi(ulp);
    emu::runner = &run_ptx;
    std::atexit(report);
    return true;
}();
}    // namespace
