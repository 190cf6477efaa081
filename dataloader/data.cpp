// Opening a run's text; see data.h.
#include "dataloader/data.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "runtime/run/error.h"

Data data_open(const DataChoice& choice) {
    Data d;
    const std::string path = choice.tokenizer.empty() ? choice.dir + "/tokenizer.json" : choice.tokenizer;
    if (choice.tokenizer.empty() && access(path.c_str(), F_OK) != 0) {
        ensure(errno == ENOENT, "%s: %s", path.c_str(), strerror(errno));
        ensure(access(choice.dir.c_str(), F_OK) == 0,
               "%s: no such data folder; `make data` makes one and prints its name, for --data; "
               "build/tokenizer encode makes one from your text",
               choice.dir.c_str());
        fail("%s: not found, and without it the vocabulary's size is unknown; give --tokenizer FILE", path.c_str());
    }
    d.tokenizer = tokenizer_load(path);
    for (const std::string& bytes : d.tokenizer.token_bytes) d.token_bytes.push_back(float(bytes.size()));
    const std::string fingerprint = tokenizer_fingerprint(d.tokenizer);
    d.train = dataset_open(choice.dir, "train", size_t(choice.context), d.tokenizer.vocab_size(), fingerprint);
    d.val = dataset_open(choice.dir, "val", size_t(choice.context), d.tokenizer.vocab_size(), fingerprint);
    if (const size_t unknown = d.train.of_unknown_tokenizer + d.val.of_unknown_tokenizer)
        d.note = format(
            "note: %zu of %zu shards in %s do not say which tokenizer made them (they are of "
            "another program or version): make sure it was %s",
            unknown, d.train.shards.size() + d.val.shards.size(), choice.dir.c_str(), path.c_str());
    d.val_samples = int64_t(d.val.samples);
    if (choice.val_tokens > 0) d.val_samples = std::clamp<int64_t>(choice.val_tokens / choice.context, 1, d.val_samples);
    return d;
}
