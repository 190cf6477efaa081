// Hostile input to the real programs, by kind, and how it ended: the table in docs/RELIABILITY.md is its output.
//   build/hostile [FOLDER_OF_PROGRAMS [COUNT [WORD]]]      default: build 5
// COUNT: random changes of each file and place; 40 for the long form, 0: a quarter of what 1 would try, for
// the suite. WORD: only kinds with it in their name.
// Exit code 1 when anything ended badly (hostile.h says what that is). Not for the parsers alone: those are fuzzed (run.sh).
#include "test/fuzz/hostile.h"

#include "dataloader/dataloader.h"
#include "runtime/run/safetensors.h"
#include "tokenizer/tokenizer.h"

using namespace hostile;

// ---- what the programs are given: a small data folder, a run with a checkpoint

static std::string text() {
    std::string s;
    for (int i = 0; i < 600; i++) s += format("Line %d of it's text, %d times \xc3\xa9 over.\n", i, i * i % 97);
    return s;
}

static std::vector<std::string> tiny(const Trial& t, const std::string& data, const std::string& run) {
    return {t.build + "/train-qkv", "--layers", "1", "--width", "16", "--heads", "1", "--context", "16",
            "--batch-tokens", "32", "--micro-batch", "2", "--val-tokens", "64", "--threads", "1", "--quiet", "--data",
            data, "--runs-dir", t.work + "/runs", "--run", run};
}
static std::vector<std::string> with(std::vector<std::string> command, const std::vector<std::string>& more) {
    command.insert(command.end(), more.begin(), more.end());
    return command;
}

static void prepare(Trial& t) {
    file_write(t.work + "/text.txt", text());
    for (const auto& command :
         {std::vector<std::string>{t.build + "/tokenizer", "train", "--vocab-size", "280", "--threads", "1", "--out",
                                   t.work + "/t.json", t.work + "/text.txt"},
          {t.build + "/tokenizer", "encode", "--threads", "1", "--tokenizer", t.work + "/t.json", "--out",
           t.work + "/data", t.work + "/text.txt"},
          with(tiny(t, t.work + "/data", "whole"), {"--steps", "4", "--stop-at", "2"})}) {
        const Ending e = run(t, command);
        const int code = WIFEXITED(e.status) ? WEXITSTATUS(e.status) : -1;
        ensure(code == 0 || code == 75, "%s: exit code %d: %s", command[0].c_str(), code, e.error.c_str());
    }
}

static std::string copy_of(const Trial& t, const std::string& folder, const std::string& name) {
    const std::string to = t.work + "/" + name;
    fs::remove_all(to);
    fs::copy(t.work + "/" + folder, to, fs::copy_options::recursive);
    fs::remove(to + "/lock");
    return to;
}

// A run "again" that is a copy of the whole one; `change` spoils it, then it is resumed.
static void resume(Trial& t, const std::string& what, const std::function<void(const std::string&)>& change) {
    const std::string folder = copy_of(t, "runs/whole", "runs/again");
    change(folder);
    attempt(t, what, with(tiny(t, t.work + "/data", "again"), {"--steps", "4", "--resume"}));
    fs::remove_all(folder);
}

static const char* CHECKPOINT = "/checkpoints/step-00000002";

// Rewrites a file of the checkpoint and the manifest after it, so that all checksums are right.
static void reseal(const std::string& run, const std::string& name, const std::string& content) {
    const std::string dir = run + CHECKPOINT, path = dir + "/manifest.json";
    file_write(dir + "/" + name, content);
    json manifest = json::parse(file_read(path, 1 << 20));
    manifest.erase("manifest");
    manifest["files"][name]["bytes"] = content.size();
    manifest["files"][name]["xxh3_128"] = hash_hex(content);
    manifest["manifest"] = hash_hex(manifest.dump());
    file_write(path, manifest.dump(1));
}

// ---- the kinds

static void try_json_file(Trial& t, const std::string& original,
                          const std::function<void(const std::string&, const std::string&)>& use, int per_place) {
    const json j = json::parse(original);
    each_change(j, [&](const std::string& what, const json& changed) { use(what, changed.dump(1)); }, per_place);
    for (int i = 0; i < 4 * t.count; i++) use("damaged", damaged(original));
    for (const char* other : {"", "null", "[]", "{}", "3", "\"x\"", "\xff\xfe", "{\"a\":1e999}"}) use(other, other);
    use("deep", std::string(100000, '['));
}

static void try_tokenizers(Trial& t) {
    const std::string original = file_read(t.work + "/data/tokenizer.json", 1 << 20);
    const std::string data = copy_of(t, "data", "spoilt");
    json small = json::parse(original);                                   // the places of a few entries stand for all
    json few = small;
    for (auto& [token, id] : small["model"]["vocab"].items())
        if (id.get<int>() > 3 && id.get<int>() < 278) few["model"]["vocab"].erase(token);
    few["model"]["merges"] = json::array({small["model"]["merges"][0]});
    auto use = [&](const std::string& what, const std::string& content) {
        file_write(data + "/tokenizer.json", content);
        attempt(t, what, with(tiny(t, data, "tokenizer"), {"--steps", "1", "--dry-run"}));
    };
    each_change(few, [&](const std::string& what, const json& changed) {
        json whole = changed;                                             // put the other entries back where the change left room for them
        if (whole.is_object() && whole.contains("model") && whole["model"].is_object() &&
            whole["model"].contains("vocab") && whole["model"]["vocab"].is_object())
            for (const auto& [token, id] : small["model"]["vocab"].items())
                if (id.get<int>() > 3 && id.get<int>() < 278) whole["model"]["vocab"][token] = id;
        use(what, whole.dump());
    }, t.count);
    for (int i = 0; i < 10 * t.count; i++) use("damaged", damaged(original));
}

static void try_shards(Trial& t) {
    const std::string data = copy_of(t, "data", "spoilt"), path = data + "/train_000000.bin", original = file_read(path, 1 << 20);
    auto use = [&](const std::string& what, const std::string& content) {
        file_write(path, content);
        attempt(t, what, with(tiny(t, data, "shard"), {"--steps", "1", "--dry-run"}));
    };
    for (int field = 0; field < 10; field++)
        for (int32_t value : {0, 1, -1, 7, 20240520, 20240801, INT32_MAX, INT32_MIN, 1 << 16}) {
            std::string changed = original;
            memcpy(changed.data() + 4 * field, &value, 4);
            use(format("header[%d] = %d", field, value), changed);
        }
    for (size_t bytes : {0, 1, 4, 1023, 1024, 1025, 1026, 1040, 1058}) use(format("cut after %zu bytes", bytes), original.substr(0, bytes));
    for (int i = 0; i < 4 * t.count; i++) use("damaged", damaged(original));
}

static void try_configs(Trial& t) {
    const std::string path = t.work + "/config.json";
    const json options = json::parse(file_read(t.work + "/runs/whole/config.json", 1 << 20))["options"];
    try_json_file(t, options.dump(1), [&](const std::string& what, const std::string& content) {
        file_write(path, content);
        attempt(t, what, with(tiny(t, t.work + "/data", "config"), {"--steps", "1", "--dry-run", "--config", path}));
    }, t.count);
}

static void try_states(Trial& t) {
    try_json_file(
        t, file_read(t.work + "/runs/whole" + CHECKPOINT + "/state.json", 1 << 20),
        [&](const std::string& what, const std::string& content) {
            resume(t, what, [&](const std::string& run) { reseal(run, "state.json", content); });
        },
        t.count);
    t.must_refuse = true;
    for (const char* key : {"step", "samples", "seconds", "skipped", "not_finite_in_a_row", "spike_window", "run"})
        for (const json& value : {json(nullptr), json(-1), json("x"), json(1e30), json(INT64_MIN)}) {
            if (key == std::string("seconds") && value == 1e30) continue;
            json state = json::parse(file_read(t.work + "/runs/whole" + CHECKPOINT + "/state.json", 1 << 20));
            state[key] = value;
            resume(t, std::string(key) + " = " + value.dump(), [&](const std::string& run) { reseal(run, "state.json", state.dump()); });
        }
    t.must_refuse = false;
}

static void try_run_configs(Trial& t) {
    try_json_file(t, file_read(t.work + "/runs/whole/config.json", 1 << 20), [&](const std::string& what, const std::string& content) {
        resume(t, what, [&](const std::string& run) { file_write(run + "/config.json", content); });
    }, std::max(1, t.count / 4));
}

static void try_manifests(Trial& t) {
    const std::string original = file_read(t.work + "/runs/whole" + CHECKPOINT + "/manifest.json", 1 << 20);
    try_json_file(t, original, [&](const std::string& what, const std::string& content) {
        resume(t, what, [&](const std::string& run) {
            json j = json::parse(content, nullptr, false);
            if (j.is_object() && j.contains("manifest")) {                // its own checksum right
                j.erase("manifest");
                j["manifest"] = hash_hex(j.dump());
            }
            file_write(run + CHECKPOINT + "/manifest.json", j.is_object() ? j.dump() : content);
        });
    }, std::max(1, t.count / 4));
}

// The header of model.safetensors changed, all checksums right.
static void try_safetensors(Trial& t) {
    const std::string original = file_read(t.work + "/runs/whole" + CHECKPOINT + "/model.safetensors", 1 << 24);
    uint64_t length;
    memcpy(&length, original.data(), 8);
    const std::string header = original.substr(8, length), data = original.substr(8 + length);
    auto use = [&](const std::string& what, const std::string& changed, const std::string& bytes) {
        const uint64_t n = changed.size();
        resume(t, what, [&](const std::string& run) {
            reseal(run, "model.safetensors", std::string(reinterpret_cast<const char*>(&n), 8) + changed + bytes);
        });
    };
    const json j = json::parse(header);
    each_change(j, [&](const std::string& what, const json& changed) { use(what, changed.dump(), data); }, std::max(1, t.count / 4));
    t.must_refuse = true;
    for (const char* dtype : {"I32", "U32", "BF16", "F64", "I8"}) {
        json changed = j;
        for (auto& [name, tensor] : changed.items()) if (name != "__metadata__") tensor["dtype"] = dtype;
        use(std::string("all ") + dtype, changed.dump(), data);
    }
    json extra = j;
    extra["extra"] = {{"dtype", "F32"}, {"shape", {1}}, {"data_offsets", {data.size(), data.size() + 4}}};
    use("an extra tensor", extra.dump(), data + "abcd");
    t.must_refuse = false;
    for (int i = 0; i < 4 * t.count; i++) use("damaged header", damaged(header), data);
}

static void try_logs(Trial& t) {
    for (const char* name : {"/metrics.jsonl", "/metrics.csv", "/checkpoints/latest", "/saved", "/val_sequences.f32", "/samples.txt"})
        for (int i = 0; i < t.count; i++)
            resume(t, name, [&](const std::string& run) {
                file_write(run + name, damaged(fs::exists(run + name) ? file_read(run + name, 1 << 20)
                                                                      : "=== step 1, 99 bytes ===\n"));
            });
}

static void try_things(Trial& t) {
    for (const Thing& thing : things()) {
        for (const char* name : {"tokenizer.json", "train_000000.bin", "val_000000.bin"}) {
            const std::string data = copy_of(t, "data", "spoilt");
            fs::remove(data + "/" + name);
            thing.make(data + "/" + name);
            attempt(t, std::string(thing.name) + " for " + name, with(tiny(t, data, "thing"), {"--steps", "1", "--dry-run"}));
        }
        for (const char* name : {"config.json", "metrics.jsonl", "metrics.csv", "samples.txt", "saved", "checkpoints",
                                 "checkpoints/latest", "checkpoints/latest.tmp", "checkpoints/step-00000002",
                                 "checkpoints/step-00000003", "checkpoints/step-00000004.tmp",
                                 "checkpoints/step-00000002/manifest.json", "checkpoints/step-00000002/state.json",
                                 "checkpoints/step-00000002/model.safetensors", "val_sequences.f32.tmp", "lock"})
            resume(t, std::string(thing.name) + " for " + name, [&](const std::string& run) {
                fs::remove_all(run + "/" + name);
                thing.make(run + "/" + name);
            });
        const std::string path = t.work + "/thing";
        fs::remove_all(path);
        thing.make(path);
        attempt(t, std::string(thing.name) + " for a text",
                {t.build + "/tokenizer", "train", "--vocab-size", "300", "--overwrite", "--out", t.work + "/thing.json",
                 path});
        attempt(t, std::string(thing.name) + " for an output",
                {t.build + "/tokenizer", "train", "--vocab-size", "300", "--overwrite", "--out", path,
                 t.work + "/text.txt"});
        fs::remove_all(path);
        thing.make(path);
        attempt(t, std::string(thing.name) + " for --config", with(tiny(t, t.work + "/data", "thing"), {"--dry-run", "--config", path}));
        attempt(t, std::string(thing.name) + " for --runs-dir",
                with(tiny(t, t.work + "/data", "thing"), {"--steps", "1", "--runs-dir", path}));
        attempt(t, std::string(thing.name) + " for --data", with(tiny(t, path, "thing"), {"--dry-run"}));
        fs::remove_all(path);
        fs::remove_all(t.work + "/runs/thing");
    }
}

static void try_options(Trial& t) {
    const json options = json::parse(file_read(t.work + "/runs/whole/config.json", 1 << 20))["options"];
    const std::vector<std::string> values = {
        "",   "x",        "-1",      "0",  "1e400", "nan", "-inf", "99999999999999999999", "1e15", "999999999999999",
        "3x", "\xff\xfe", "--steps", "\n", "0x10",  "1.5"};
    for (const auto& [key, value] : options.items()) {
        std::string name = "--" + key;
        std::replace(name.begin(), name.end(), '_', '-');
        for (int k = 0; k < std::min<int>(t.count, int(values.size())); k++) {
            const std::string& odd = values[t.count >= int(values.size()) ? size_t(k) : random_number(values.size())];
            // large values are allowed, and take their time
            if (name == "--sample-tokens" || name == "--threads") continue;
            attempt(t, name + " " + odd, with(tiny(t, t.work + "/data", "option"), {"--dry-run", name, odd}));
        }
        attempt(t, name + "=", with(tiny(t, t.work + "/data", "option"), {"--dry-run", name + "="}));
        attempt(t, name + " without a value", with(tiny(t, t.work + "/data", "option"), {"--dry-run", name}));
        std::string typo = name;
        typo[2 + random_number(typo.size() - 2)] = 'q';
        attempt(t, typo, with(tiny(t, t.work + "/data", "option"), {"--dry-run", typo, "1"}));
    }
    const std::vector<std::string> names = {
        "-x", "--resume", "..",          ".",   "a/b",     "a\nb",    "\x1b[31mred", "a\tb", std::string(300, 'n'),
        " ",  "\xff",     "caf\xc3\xa9", "a b", "con\x7f", "'quoted'"};
    for (const std::string& name : names)
        attempt(t, "--run " + name,
                with(tiny(t, t.work + "/data", "x"), {"--steps", "1", "--overwrite", "--run=" + name}));
}

static void try_texts(Trial& t) {
    const std::string path = t.work + "/odd.txt", out = t.work + "/odd";
    std::vector<std::string> texts = {"", "\n", std::string(1, '\0'), std::string(1 << 16, ' '),
                                      std::string(1 << 16, 'x'), "\xff\xfe\xfd", "<|endoftext|>", "a",
                                      std::string(1 << 16, '\x80')};
    for (int i = 0; i < 4 * t.count; i++) {
        std::string random;
        for (uint64_t n = random_number(4000); n > 0; n--) random += char(random_number(256));
        texts.push_back(i % 2 ? random : damaged(text()));
    }
    for (const std::string& content : texts) {
        file_write(path, content);
        const std::string what = format("a text of %zu bytes", content.size());
        attempt(t, what, {t.build + "/tokenizer", "train", "--vocab-size", "300", "--overwrite", "--out", t.work + "/odd.json", path});
        attempt(t, what, {t.build + "/tokenizer", "encode", "--tokenizer", t.work + "/t.json", "--overwrite", "--out", out, path});
        attempt(t, what + " on standard input",
                {t.build + "/tokenizer", "encode", "--tokenizer", t.work + "/t.json", "--overwrite", "--out", out, "-"},
                [&] { open_for_child(path, O_RDONLY, 0); });
    }
    for (const char* word : {"", "-1", "99999999999", "x", "3 4", "280", "nothing.bin", "\xff"})
        attempt(t, std::string("decode ") + word, {t.build + "/tokenizer", "decode", "--tokenizer", t.work + "/t.json", "--", word});
}

static void try_surroundings(Trial& t) {
    const auto train = with(tiny(t, t.work + "/data", "around"), {"--steps", "1", "--overwrite"});
    for (const char* name : {"OMP_NUM_THREADS", "OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "QV_SCALE_GRADIENT", "QV_CRASH_AT",
                             "LC_ALL", "TZ", "HOME"})
        for (const char* value : {"", "x", "-1", "99999999999999999999", "0", "\xff"})
            attempt(t, std::string(name) + "=" + value, train, [&] { setenv(name, value, 1); });
    for (int fd : {0, 1}) attempt(t, format("file descriptor %d closed", fd), train, [fd] { close(fd); });
    attempt(t, "standard output full", train, [] { open_for_child("/dev/full", O_WRONLY, 1); });
    attempt(t, "no environment", train, [] { clearenv(); });
}

int main(int argc, char** argv) {
    setvbuf(stdout, nullptr, _IOLBF, 0);
    Trial t;
    t.build = fs::absolute(argc > 1 ? argv[1] : "build");
    const int count = argc > 2 ? atoi(argv[2]) : 5;
    t.count = std::max(1, count);
    t.sampled = count == 0;
    t.work = (fs::is_directory("/dev/shm") ? "/dev/shm" : "/tmp") + format("/qv-hostile-%d", int(getpid()));
    fs::create_directory(t.work);
    try {
        prepare(t);
        const std::pair<const char*, void (*)(Trial&)> kinds[] = {
            {"tokenizer.json, changed", try_tokenizers},
            {"shards, changed", try_shards},
            {"--config files", try_configs},
            {"a run's config.json", try_run_configs},
            {"state.json, checksums right", try_states},
            {"manifest.json", try_manifests},
            {"safetensors, checksums right", try_safetensors},
            {"logs of a resumed run", try_logs},
            {"pipes, folders, links, devices for files", try_things},
            {"options and run names", try_options},
            {"texts and ids", try_texts},
            {"environment and descriptors", try_surroundings}};
        for (const auto& [kind, function] : kinds) {
            if (argc > 3 && !std::strstr(kind, argv[3])) continue;
            t.rows.push_back({kind});
            function(t);
        }
    } catch (const std::exception& e) {
        fprintf(stderr, "error: %s\n", error_text(e).c_str());
        fs::remove_all(t.work);
        return EXIT_FAILED;
    }
    fs::remove_all(t.work);
    Row all{"all"};
    printf("\n| kind | tried | refused in one line | accepted | bad |\n|---|---:|---:|---:|---:|\n");
    for (const Row& r : t.rows) {
        printf("| %s | %d | %d | %d | %d |\n", r.kind.c_str(), r.tried, r.refused, r.accepted, r.bad);
        all.tried += r.tried;
        all.refused += r.refused;
        all.accepted += r.accepted;
        all.bad += r.bad;
    }
    printf("| **%s** | %d | %d | %d | %d |\n", all.kind.c_str(), all.tried, all.refused, all.accepted, all.bad);
    return all.bad > 0 ? EXIT_FAILED : EXIT_DONE;
}
