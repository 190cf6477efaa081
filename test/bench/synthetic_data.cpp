// A data folder without a text: token shards in llm.c's format, and a tokenizer.json of any size, for measuring speed (make gpu-check).
// Tokens are independent with p(k) about 1 / k, as words in text are: cross-entropy and the embedding's backward see frequent and rare
// ones. Nothing can be learned from them but these frequencies. The vocabulary: 256 bytes, pairs of bytes, <|endoftext|>.
// Run: synthetic-data FOLDER [vocabulary [tokens]], default GPT-2's 50257 and 4,000,000 (a tenth of them for validation).
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <filesystem>

#include "runtime/run/error.h"
#include "runtime/device/rng.h"
#include "tokenizer/tokenizer.h"

static void write_shard(const std::string& path, uint64_t stream, size_t tokens, int V) {
    std::vector<uint32_t> header(256, 0);            // as int32 in the file
    header[0] = 20240520, header[1] = 1, header[2] = uint32_t(tokens);
    std::vector<uint16_t> ids(tokens);
    for (size_t i = 0; i < tokens; i++) ids[i] = uint16_t(std::min<double>(V - 1, std::pow(double(V), philox_uniform(1, stream, i)) - 1));
    FILE* f = fopen(path.c_str(), "wb");
    ensure(f && fwrite(header.data(), 4, header.size(), f) == header.size() && fwrite(ids.data(), 2, tokens, f) == tokens && fclose(f) == 0,
           "%s: cannot be written; is there space?", path.c_str());
}

int main(int argc, char** argv) try {
    ensure_usage(argc >= 2 && argc <= 4, "usage: synthetic-data FOLDER [vocabulary [tokens]]");
    const std::string dir = argv[1];
    const int V = argc > 2 ? atoi(argv[2]) : 50257, tokens = argc > 3 ? atoi(argv[3]) : 4000000;
    ensure_usage(V >= 257 && V <= 65536, "vocabulary %d: 257 to 65536", V);
    ensure_usage(tokens >= 10000, "%d tokens: at least 10000", tokens);
    std::filesystem::create_directories(dir);
    Tokenizer t;
    for (int b = 0; b < 256; b++) t.token_bytes.push_back(std::string(1, char(b)));
    for (uint32_t pair = 0; int(t.token_bytes.size()) < V - 1; pair++) {
        t.merges.push_back({pair / 256, pair % 256});
        t.token_bytes.push_back(t.token_bytes[pair / 256] + t.token_bytes[pair % 256]);
    }
    t.special_tokens = {"<|endoftext|>"};
    t.special_ids = {uint32_t(V - 1)};
    t.token_bytes.push_back(t.special_tokens[0]);
    tokenizer_save(t, dir + "/tokenizer.json");
    write_shard(dir + "/train_000000.bin", 1, size_t(tokens), V);
    write_shard(dir + "/val_000000.bin", 2, size_t(tokens) / 10, V);
    printf("%s: %d tokens, vocabulary %d\n", dir.c_str(), tokens, V);
} catch (const Error& e) {
    fprintf(stderr, "error: %s\n", e.what());
    return e.exit_code;
} catch (const std::exception& e) {
    fprintf(stderr, "error: %s\n", e.what());
    return EXIT_FAILED;
}
