# Runs bench-tokenizer, times Hugging Face's `tokenizers` on the same text, and prints the ratios. Not part of the product.
#   pip install tokenizers
#   python3 peer_tokenizer.py build/bench-tokenizer TEXT [MAX_MB]
# The peer gets its text in lines for training and in pieces of about 64 kB for encoding (encode_batch), which is how it uses
# its threads. Each peer measurement runs in a process of its own, because the number
# of its threads (RAYON_NUM_THREADS) is read once. One run each: medians of three for ours, so mind the noise.
import json, os, re, subprocess, sys, tempfile, time


def measure(text_path):
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    text = open(text_path, encoding="utf-8", errors="replace", newline="").read()
    lines = text.splitlines(keepends=True)
    pieces, piece, size = [], [], 0
    for line in lines:
        piece.append(line)
        size += len(line)
        if size >= 65536:
            pieces.append("".join(piece))
            piece, size = [], 0
    pieces.append("".join(piece))
    seconds = {}
    for vocab_size in (4096, 32000):
        t = Tokenizer(models.BPE())
        t.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        trainer = trainers.BpeTrainer(vocab_size=vocab_size, special_tokens=["<|endoftext|>"],
                                      initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False)
        start = time.time()
        t.train_from_iterator(lines, trainer)
        seconds[f"train_{vocab_size}"] = time.time() - start
        start = time.time()
        t.encode_batch_fast(pieces)
        seconds[f"encode_{vocab_size}"] = time.time() - start
    print(json.dumps(seconds))


if sys.argv[1] == "--measure":
    measure(sys.argv[2])
    sys.exit()

bench, path = sys.argv[1], sys.argv[2]
if len(sys.argv) > 3:
    cut = tempfile.NamedTemporaryFile()
    with open(path, "rb") as f:
        cut.write(f.read(int(float(sys.argv[3]) * 1e6)))
    cut.flush()
    path = cut.name
megabytes = os.path.getsize(path) / 1e6
report = subprocess.run([bench, path], capture_output=True, text=True, check=True).stdout
print(report, end="")
ours = {(name, int(threads)): float(s) for name, threads, s in re.findall(r"^(\w+) threads (\d+): ([\d.]+) s", report, re.M)}
for threads in (1, 2):
    environment = dict(os.environ, RAYON_NUM_THREADS=str(threads), TOKENIZERS_PARALLELISM="true" if threads > 1 else "false")
    result = subprocess.run([sys.executable, __file__, "--measure", path], capture_output=True, text=True, check=True, env=environment)
    for name, seconds in json.loads(result.stdout).items():
        mine = ours[name, threads]
        print(f"{name} threads {threads}: tokenizers {seconds:.2f} s ({megabytes / seconds:.1f} MB/s), ours {mine:.2f} s "
              f"({megabytes / mine:.1f} MB/s), ratio {seconds / mine:.2f}x")
