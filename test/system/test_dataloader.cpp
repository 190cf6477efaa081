// Shards and sample order: every malformed file is refused by name, every epoch is a permutation, no split of a batch changes it.
#include <doctest/doctest.h>

#include <algorithm>
#include <cstring>
#include <numeric>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "dataloader/dataloader.h"
#include "test/temp_dir.h"

static std::vector<uint32_t> counting(size_t n, uint32_t first, uint32_t vocab) {
    std::vector<uint32_t> t(n);
    for (size_t i = 0; i < n; i++) t[i] = uint32_t((first + i) % vocab);
    return t;
}

static void write(const std::string& path, const std::vector<uint32_t>& t, size_t vocab) { shard_write(path, t.data(), t.size(), vocab); }

static std::string open_error(const std::string& dir, size_t T = 4, size_t vocab = 100) {
    return error_of([&] { dataset_open(dir, "train", T, vocab); });
}

TEST_CASE("shards: 16 and 32 bit, there and back, in llm.c's layout") {
    TempDir dir;
    for (size_t vocab : {size_t(100), size_t(65536), size_t(65537), size_t(200000)}) {
        const auto tokens = counting(1001, uint32_t(vocab - 500), uint32_t(vocab));
        const std::string path = dir.path + "/x.bin";
        write(path, tokens, vocab);
        Shard s = shard_open(path);
        CHECK(s.count == 1001);
        CHECK(s.bytes_per_token == (vocab <= 65536 ? 2 : 4));
        CHECK(shard_read_all(s) == tokens);
        close(s.fd);
        const std::string bytes = slurp(path);
        int32_t header[3];
        memcpy(header, bytes.data(), sizeof header);
        CHECK(header[0] == (vocab <= 65536 ? 20240520 : 20240801));
        CHECK(header[1] == (vocab <= 65536 ? 1 : 7));
        CHECK(header[2] == 1001);
        CHECK(bytes.size() == 1024 + 1001 * size_t(s.bytes_per_token));
        CHECK_FALSE(std::filesystem::exists(path + ".tmp"));
    }
    const uint32_t tokens[] = {1, 2, 100};
    CHECK(has(error_of([&] { shard_write(dir.path + "/y.bin", tokens, 3, 100); }), "position 2"));
    CHECK(has(error_of([&] { shard_write(dir.path + "/y.bin", tokens, 0, 100); }), "no tokens"));
    CHECK_FALSE(std::filesystem::exists(dir.path + "/y.bin"));
}

TEST_CASE("shards: malformed files are refused, naming file and place") {
    TempDir dir;
    const std::string path = dir.path + "/train.bin";
    write(path, counting(64, 0, 100), 100);
    const std::string good = slurp(path);
    CHECK(open_error(dir.path) == "");
    auto with_int = [&](size_t at, int32_t value) {
        std::string bad = good;
        memcpy(bad.data() + at, &value, 4);
        return bad;
    };
    struct { std::string bytes, words; } cases[] = {
        {"", "0 bytes"}, {good.substr(0, 1023), "too short"}, {with_int(0, 12345), "magic number 12345 at byte 0"},
        {with_int(4, 2), "version 2 at byte 4"}, {with_int(0, 20240801), "version 1 at byte 4, expected 7"},
        {with_int(8, 65), "says 65 tokens, the file holds 64"}, {with_int(8, -1), "says 4294967295 tokens"},
        {with_int(12, 1), "says 4294967360 tokens"}, {good.substr(0, good.size() - 2), "the file holds 63"},
        {good.substr(0, good.size() - 1), "2-byte tokens"}, {good + "x", "2-byte tokens"},
        {with_int(8, 0).substr(0, 1024), "no tokens"}};
    for (const auto& c : cases) {
        spill(path, c.bytes);
        const std::string message = open_error(dir.path);
        CAPTURE(message);
        CHECK(has(message, path));
        CHECK(has(message, c.words));
    }
    // A token outside the vocabulary: its place is named, also when it is the last one, also in the 32-bit form.
    for (size_t vocab : {size_t(1000), size_t(100000)}) {
        auto tokens = counting(64, 0, 100);
        tokens[63] = 100;
        write(path, tokens, vocab);
        CHECK(open_error(dir.path, 4, 101) == "");
        const std::string message = open_error(dir.path, 4, 100);
        CHECK(has(message, "token 100 at position 63"));
        CHECK(has(message, vocab == 1000 ? "byte 1150" : "byte 1276"));
    }
    write(path, counting(4, 0, 100), 100);
    CHECK(has(open_error(dir.path), "4 tokens and no whole sample of 5"));
    std::filesystem::remove(path);
    CHECK(has(open_error(dir.path), "scripts/get_data.sh"));
    CHECK(has(open_error(dir.path + "/nothing"), "build/tokenizer encode"));
    std::filesystem::create_directory(path);
    CHECK(has(open_error(dir.path), "not a regular file"));
}

TEST_CASE("a bad token is found in any chunk of a large shard, the first one named") {
    TempDir dir;
    auto tokens = counting(5'000'011, 0, 100);          // 20 chunks of 512 KiB, the last one short
    for (size_t at : {tokens.size() - 1, size_t(4'500'000), size_t(262'144), size_t(262'143)}) {
        tokens[at] = 100;
        write(dir.path + "/train.bin", tokens, 200);
        CHECK(has(open_error(dir.path), "position " + std::to_string(at) + " "));
    }
}

TEST_CASE("samples: consecutive tokens within a shard, neighbours share one, partial ones dropped") {
    TempDir dir;
    write(dir.path + "/train_02.bin", counting(9, 50, 100), 100);        // 2 samples of T=4: tokens 50..58
    write(dir.path + "/train_01.bin", counting(12, 0, 100), 100);        // 2 samples, 3 tokens left over
    write(dir.path + "/train_015.bin", counting(4, 90, 100), 100);       // none
    write(dir.path + "/val_01.bin", counting(5, 0, 100), 100000);        // another split, 32 bit, exactly one
    Dataset d = dataset_open(dir.path, "train", 4, 100);
    CHECK(d.shards.size() == 3);
    CHECK(d.tokens == 25);
    REQUIRE(d.samples == 4);
    CHECK(d.first_sample == std::vector<size_t>{0, 2, 2, 4});            // by name: 01, 015, 02
    const int first[] = {0, 4, 50, 54};
    for (size_t i = 0; i < 4; i++) {
        int inputs[4], targets[4];
        dataset_read(d, i, inputs, targets);
        for (int t = 0; t < 4; t++) {
            CHECK(inputs[t] == first[i] + t);
            CHECK(targets[t] == first[i] + t + 1);
        }
    }
    int x[4];
    CHECK_THROWS_AS(dataset_read(d, 4, x, x), Error);
    const Dataset val = dataset_open(dir.path, "val", 4, 100);
    CHECK(val.samples == 1);
    int inputs[4], targets[4];
    dataset_read(val, 0, inputs, targets);
    CHECK(targets[3] == 4);
    Dataset moved = std::move(d);                                        // the files move along, and are closed once
    d = dataset_open(dir.path, "val", 4, 100);
    dataset_read(moved, 3, inputs, targets);
    CHECK(targets[3] == 58);
}

TEST_CASE("T = 1, and the longest sample that fits") {
    TempDir dir;
    write(dir.path + "/train.bin", counting(8, 0, 100), 100);
    const Dataset one = dataset_open(dir.path, "train", 1, 100);
    CHECK(one.samples == 7);
    int input, target;
    dataset_read(one, 6, &input, &target);
    CHECK(input == 6);
    CHECK(target == 7);
    CHECK(dataset_open(dir.path, "train", 7, 100).samples == 1);
    CHECK(has(open_error(dir.path, 8), "no whole sample of 9"));
}

TEST_CASE("order: every epoch is a permutation, and each has its own") {
    for (size_t n : {size_t(1), size_t(2), size_t(3), size_t(5), size_t(64), size_t(65), size_t(1000), size_t(4097)}) {
        CAPTURE(n);
        Dataset d;
        d.samples = n;
        std::vector<std::vector<size_t>> orders;
        for (uint64_t epoch = 0; epoch < 3; epoch++) {
            std::vector<size_t> order(n), sorted, all(n);
            for (size_t i = 0; i < n; i++) order[i] = dataset_shuffled(d, 1, epoch * n + i);
            sorted = order;
            std::sort(sorted.begin(), sorted.end());
            std::iota(all.begin(), all.end(), size_t(0));
            CHECK(sorted == all);
            orders.push_back(order);
        }
        if (n < 64) continue;
        CHECK(orders[0] != orders[1]);
        CHECK(orders[1] != orders[2]);
        std::vector<size_t> other_seed(n);
        for (size_t i = 0; i < n; i++) other_seed[i] = dataset_shuffled(d, 2, i);
        CHECK(other_seed != orders[0]);
    }
}

TEST_CASE("order: over many epochs every sample comes equally often at every position") {
    Dataset d;
    d.samples = 5;
    const int epochs = 5000;
    int count[5][5] = {};
    for (int e = 0; e < epochs; e++)
        for (int i = 0; i < 5; i++) count[i][dataset_shuffled(d, 9, uint64_t(e) * 5 + i)]++;
    double chi2 = 0;                         // 16 degrees of freedom: mean 16, sd 5.7
    for (auto& row : count)
        for (int c : row) chi2 += (c - epochs / 5.0) * (c - epochs / 5.0) / (epochs / 5.0);
    CHECK(chi2 < 16 + 5 * 5.7);
    // No trace of the original order either: neighbours stay neighbours as rarely as chance says (about 2 of n - 1).
    d.samples = 10000;
    int neighbours = 0;
    for (int i = 1; i < 10000; i++) neighbours += dataset_shuffled(d, 9, i) == dataset_shuffled(d, 9, i - 1) + 1;
    CHECK(neighbours < 8);
}

TEST_CASE("order: pinned, so that a change of the algorithm is seen (old runs could not be resumed)") {
    Dataset d;
    d.samples = 1000;
    std::vector<size_t> got;
    for (uint64_t c : {0, 1, 2, 999, 1000, 1001}) got.push_back(dataset_shuffled(d, 1, c));
    CHECK(got == std::vector<size_t>{552, 48, 960, 797, 488, 528});
}

TEST_CASE("batches: the split into micro-batches does not matter, across epochs too") {
    TempDir dir;
    write(dir.path + "/train.bin", counting(4 * 13 + 1, 0, 100), 100);        // 13 samples
    const Dataset d = dataset_open(dir.path, "train", 4, 100);
    const size_t B = 30;
    std::vector<int> inputs(B * 4), targets(B * 4), part_inputs(B * 4), part_targets(B * 4);
    dataset_batch(d, 3, 7, B, inputs.data(), targets.data());
    for (size_t micro : {1, 2, 3, 5, 10}) {
        for (size_t b = 0; b < B; b += micro)
            dataset_batch(d, 3, 7 + b, micro, part_inputs.data() + b * 4, part_targets.data() + b * 4);
        CHECK(part_inputs == inputs);
        CHECK(part_targets == targets);
    }
    for (size_t b = 0; b < B; b++) CHECK(inputs[b * 4] == int(4 * dataset_shuffled(d, 3, 7 + b)));
}

TEST_CASE("fingerprint: same data same value, any edit another") {
    TempDir dir;
    auto tokens = counting(3'000'000, 0, 100);
    write(dir.path + "/train_0.bin", tokens, 100);
    const std::string before = dataset_open(dir.path, "train", 4, 100).fingerprint;
    CHECK(before.size() == 32);
    CHECK(dataset_open(dir.path, "train", 8, 200).fingerprint == before);     // it is the data's, not the model's
    tokens[1'500'001] ^= 1;
    write(dir.path + "/train_0.bin", tokens, 100);
    const std::string edited = dataset_open(dir.path, "train", 4, 100).fingerprint;
    CHECK(edited != before);
    std::filesystem::rename(dir.path + "/train_0.bin", dir.path + "/train_1.bin");
    CHECK(dataset_open(dir.path, "train", 4, 100).fingerprint != edited);     // names decide the order of shards
}

TEST_CASE("shards say which tokenizer made them; another one is refused, none is noticed") {
    TempDir dir;
    const std::string mine(32, 'a'), other = std::string(31, '0') + "1", path = dir.path + "/train_0.bin";
    const auto tokens = counting(64, 0, 100);
    for (const std::string& fingerprint : {std::string(), mine, other}) {
        shard_write(path, tokens.data(), tokens.size(), 100, fingerprint);
        const Shard s = shard_open(path);
        CHECK(s.tokenizer == fingerprint);
        close(s.fd);
    }
    shard_write(path, tokens.data(), tokens.size(), 100, mine);
    CHECK(dataset_open(dir.path, "train", 4, 100, mine).of_unknown_tokenizer == 0);
    CHECK(dataset_open(dir.path, "train", 4, 100).samples > 0);                 // nothing to compare with
    const std::string message = error_of([&] { dataset_open(dir.path, "train", 4, 100, other); });
    for (const std::string& part : {path, mine, other}) CHECK(has(message, part));
    const std::string fingerprint = dataset_open(dir.path, "train", 4, 100, mine).fingerprint;
    write(path, tokens, 100);                                                  // llm.c's: zeros there
    CHECK(dataset_open(dir.path, "train", 4, 100, mine).of_unknown_tokenizer == 1);
    CHECK(dataset_open(dir.path, "train", 4, 100, mine).fingerprint == fingerprint);    // of the tokens: runs go on with either
}

TEST_CASE("data: a pipe for a shard is refused, not waited for; a folder that cannot be read is not called missing") {
    TempDir dir;
    REQUIRE(mkfifo((dir.path + "/train.bin").c_str(), 0644) == 0);
    CHECK(has(open_error(dir.path), "train.bin: is a pipe, not a regular file"));
    CHECK(has(open_error(dir.path + "/absent"), "no such data folder"));
    std::filesystem::permissions(dir.path, std::filesystem::perms::none);
    const pid_t child = fork();                                                // root may read anything: as somebody else
    if (child == 0) {
        if (geteuid() == 0 && setuid(65534) != 0) _exit(0);
        _exit(has(open_error(dir.path), "cannot be read: Permission denied") ? 0 : 1);
    }
    int status = 0;
    waitpid(child, &status, 0);
    CHECK(status == 0);
    std::filesystem::permissions(dir.path, std::filesystem::perms::owner_all);
}
