# Encoding beside tiktoken and Hugging Face's `tokenizers`: the same text, the same vocabulary, one thread and
# all; as a call of the library (text in memory to ids in memory) and as whole processes (start, load the
# vocabulary, read the text, encode, write the ids). Prints a table.
# Not part of the product.
#   pip install tiktoken tokenizers numpy
#   python3 test/bench/peer_tokenizer.py build/bench-tokenizer build/tokenizer TEXT TOKENIZER.json [MAX_MB]
# Seconds of the clock and of the processor: on a machine that does other work only the latter mean something.
# `tokenizers` gets its text in pieces of 64 KiB in one batch, which is how it uses threads; tiktoken with all
# threads likewise. Every measurement is a process of its own, once.
import json, os, re, subprocess, sys, tempfile, time


def byte_alphabet():
    kept = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [b for b in range(256) if b not in kept]
    return {chr(b): b for b in kept} | {chr(0x100 + i): b for i, b in enumerate(others)}


def load(name, path):
    if name == "tokenizers":
        from tokenizers import Tokenizer

        return Tokenizer.from_file(path)
    import tiktoken

    alphabet, root = byte_alphabet(), json.load(open(path, encoding="utf-8"))
    special = {t["content"]: t["id"] for t in root["added_tokens"]}
    ranks = {bytes(alphabet[c] for c in token): id for token, id in root["model"]["vocab"].items() if token not in special}
    pattern = r"""'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s"""       # tiktoken's own for GPT-2
    return tiktoken.Encoding("peer", pat_str=pattern, mergeable_ranks=ranks, special_tokens=special)


def pieces(text):
    return [text[at : at + 65536] for at in range(0, len(text), 65536)]


def encode(name, tokenizer, text, threads):
    if name == "tokenizers":
        return [id for e in tokenizer.encode_batch_fast(pieces(text)) for id in e.ids]
    if threads == 1:
        return tokenizer.encode_ordinary(text)
    return [id for ids in tokenizer.encode_ordinary_batch(pieces(text), num_threads=threads) for id in ids]


def measure(name, path, text_path, threads, whole):
    started, cpu = time.time(), sum(os.times()[:2])
    tokenizer = load(name, path)
    text = open(text_path, encoding="utf-8", newline="").read()
    if not whole:
        started, cpu = time.time(), sum(os.times()[:2])
    ids = encode(name, tokenizer, text, threads)
    if whole:
        import numpy

        numpy.array(ids, dtype=numpy.uint32 if max(ids) > 65535 else numpy.uint16).tofile(os.devnull)
    print(json.dumps({"seconds": time.time() - started, "cpu": sum(os.times()[:2]) - cpu, "tokens": len(ids)}))


def timed(command, **options):           # seconds, processor seconds of the child, its output
    before, started = os.times(), time.time()
    output = subprocess.run(command, capture_output=True, text=True, check=True, **options).stdout
    after = os.times()
    return time.time() - started, after[2] + after[3] - before[2] - before[3], output


if sys.argv[1] == "--measure":
    measure(sys.argv[2], sys.argv[3], sys.argv[4], int(sys.argv[5]), False)
    sys.exit()
if sys.argv[1] == "--whole":
    measure(sys.argv[2], sys.argv[3], sys.argv[4], int(sys.argv[5]), True)
    sys.exit()

bench, program, source, path = sys.argv[1:5]
limit = int(float(sys.argv[5]) * 1e6) if len(sys.argv) > 5 else -1
folder = tempfile.TemporaryDirectory()
text_path = os.path.join(folder.name, "text.txt")
with open(source, "rb") as f, open(text_path, "w", encoding="utf-8", newline="") as out:
    out.write(f.read(limit).decode("utf-8", errors="ignore"))            # peers take valid UTF-8 only
megabytes = os.path.getsize(text_path) / 1e6
report = subprocess.run([bench, text_path, path], capture_output=True, text=True, check=True).stdout
measured = re.findall(r"^encode_given threads (\d+): ([\d.]+) s, ([\d.]+) cpu s,.* (\d+) tokens", report, re.M)
ours = {int(n): (float(s), float(c), int(k)) for n, s, c, k in measured}
print(f"{source}: {megabytes:.1f} MB, {path}\n")
print("| what | threads | program | seconds | MB/s | cpu seconds | MB per cpu second "
      "| ours: times faster by the clock, by cpu | tokens |\n|---|---:|---|---:|---:|---:|---:|---:|---:|")


def row(what, threads, name, seconds, cpu, tokens, best):
    print(f"| {what} | {threads} | {name} | {seconds:.2f} | {megabytes / seconds:.1f} | {cpu:.2f} | {megabytes / cpu:.1f} | "
          f"{seconds / best[0]:.1f}, {cpu / best[1]:.1f} | {tokens} |", flush=True)


for threads in ours:
    environment = dict(os.environ, RAYON_NUM_THREADS=str(threads),
                       TOKENIZERS_PARALLELISM="true" if threads > 1 else "false", OMP_NUM_THREADS=str(threads))
    row("call", threads, "qv.cu", *ours[threads], ours[threads])
    for name in ("tiktoken", "tokenizers"):
        m = json.loads(timed([sys.executable, __file__, "--measure", name, path, text_path, str(threads)], env=environment)[2])
        row("call", threads, name, m["seconds"], m["cpu"], m["tokens"], ours[threads])
    out = os.path.join(folder.name, "shards")
    seconds, cpu, output = timed([program, "encode", "--threads", str(threads), "--tokenizer", path, "--val-fraction",
                                  "0", "--overwrite", "--out", out, text_path], env=environment)
    mine = (seconds, cpu, int(re.search(r"(\d+) tokens", output)[1]))
    row("process", threads, "qv.cu", *mine, mine)
    for name in ("tiktoken", "tokenizers"):
        seconds, cpu, output = timed([sys.executable, __file__, "--whole", name, path, text_path, str(threads)], env=environment)
        row("process", threads, name, seconds, cpu, json.loads(output)["tokens"], mine)
