// ggml's attention on CPUs (ggml_flash_attn_ext) behind the line protocol of `cargo xtask bench` (docs/measuring.md).
//
//   worker --threads T
//
// Queries are f32, as in llama.cpp; keys and values are of the asked type, or q8_0 where they are cached in 8 bits; masks f16.

#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <iostream>
#include <map>
#include <memory>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

#include "ggml-backend.h"
#include "ggml-cpu.h"
#include "ggml.h"

namespace {

using Fields = std::map<std::string, std::string>;

// A head's slope is 2^(-bias · (h + 1) / heads).
constexpr float MAX_BIAS = 8.0f;
// A call that takes longer than this is not repeated to warm up.
constexpr double SLOW_SECONDS = 0.5;

struct Problem {
    long heads, kv_heads, dim, tokens, window, batch, queries;
    bool causal, alibi, cached_in_8_bits;
    float softcap;
    std::vector<long> documents;
    std::string folder, dtype;

    explicit Problem(const Fields & fields) : folder(fields.at("dir")), dtype(fields.at("dtype")) {
        auto number = [&](const char * key) {
            auto found = fields.find(key);
            return found == fields.end() ? 0.0 : std::stod(found->second);
        };
        heads = number("heads");
        kv_heads = number("kv_heads");
        dim = number("dim");
        tokens = number("tokens");
        window = number("window");
        causal = number("causal") != 0;
        alibi = number("alibi") != 0;
        softcap = number("softcap");
        // The last token of each sequence sees all that are cached.
        bool decodes = fields.count("phase") && fields.at("phase") == "decode";
        batch = decodes ? number("batch") : 1;
        queries = decodes ? 1 : tokens;
        causal = causal && !decodes;
        cached_in_8_bits = number("cache_bits") == 8;
        if (fields.count("documents")) {
            std::istringstream lengths(fields.at("documents"));
            for (std::string length; std::getline(lengths, length, ',');) documents.push_back(std::stol(length));
        }
    }

    ggml_type type() const {
        if (cached_in_8_bits) return GGML_TYPE_Q8_0;
        if (dtype == "f32") return GGML_TYPE_F32;
        if (dtype == "f16") return GGML_TYPE_F16;
        if (dtype == "bf16") return GGML_TYPE_BF16;
        throw std::runtime_error("found the type " + dtype + ", expected f32, f16 or bf16");
    }

    // [query, key]: the distance as a bias where the mask allows the pair, else minus infinity.
    std::vector<ggml_fp16_t> mask() const {
        std::vector<long> document(tokens, 0);
        long at = 0;
        for (size_t id = 0; id < documents.size(); id++)
            for (long n = 0; n < documents[id] && at < tokens; n++) document[at++] = id;
        std::vector<ggml_fp16_t> mask(tokens * tokens);
        const ggml_fp16_t never = ggml_fp32_to_fp16(-INFINITY);
        for (long q = 0; q < tokens; q++)
            for (long k = 0; k < tokens; k++) {
                bool allowed = (!causal || k <= q) && (!window || k > q - window) && document[q] == document[k];
                float bias = alibi ? float(k - q) : 0.0f;
                mask[q * tokens + k] = allowed ? ggml_fp32_to_fp16(bias) : never;
            }
        return mask;
    }
};

std::vector<float> read(const std::string & path, size_t count) {
    std::vector<float> numbers(count);
    std::ifstream file(path, std::ios::binary);
    if (!file.read(reinterpret_cast<char *>(numbers.data()), count * sizeof(float)))
        throw std::runtime_error(path + ": found fewer than " + std::to_string(count) + " numbers");
    return numbers;
}

void fill(ggml_tensor * tensor, const std::vector<float> & numbers) {
    std::vector<char> bytes(ggml_nbytes(tensor));
    if (tensor->type == GGML_TYPE_F32) {
        std::memcpy(bytes.data(), numbers.data(), bytes.size());
    } else {
        ggml_quantize_chunk(
            tensor->type, numbers.data(), bytes.data(), 0, numbers.size() / tensor->ne[0], tensor->ne[0], nullptr);
    }
    ggml_backend_tensor_set(tensor, bytes.data(), 0, bytes.size());
}

class Slot {
public:
    Slot(ggml_backend_t backend, const Problem & problem) : backend_(backend) {
        auto [heads, kv_heads, dim, tokens, queries, batch] = std::tuple(
            problem.heads, problem.kv_heads, problem.dim, problem.tokens, problem.queries, problem.batch);
        context_ = ggml_init({ ggml_tensor_overhead() * 16 + ggml_graph_overhead() + 4096, nullptr, true });
        auto * q = ggml_new_tensor_4d(context_, GGML_TYPE_F32, dim, queries, heads, batch);
        auto * k = ggml_new_tensor_4d(context_, problem.type(), dim, tokens, kv_heads, batch);
        auto * v = ggml_new_tensor_4d(context_, problem.type(), dim, tokens, kv_heads, batch);
        auto * mask = problem.causal ? ggml_new_tensor_4d(context_, GGML_TYPE_F16, tokens, tokens, 1, 1) : nullptr;
        float scale = 1.0f / std::sqrt(float(dim)), bias = problem.alibi ? MAX_BIAS : 0.0f;
        o_ = ggml_flash_attn_ext(context_, q, k, v, mask, scale, bias, problem.softcap);
        graph_ = ggml_new_graph(context_);
        ggml_build_forward_expand(graph_, o_);
        buffer_ = ggml_backend_alloc_ctx_tensors(context_, backend);
        if (!buffer_) throw std::runtime_error("no memory for the tensors");
        fill(q, read(problem.folder + "/q.f32", batch * heads * queries * dim));
        fill(k, read(problem.folder + "/k.f32", batch * kv_heads * tokens * dim));
        fill(v, read(problem.folder + "/v.f32", batch * kv_heads * tokens * dim));
        if (mask) {
            auto pairs = problem.mask();
            ggml_backend_tensor_set(mask, pairs.data(), 0, pairs.size() * sizeof(ggml_fp16_t));
        }
        seconds_ = timed(1);
        if (seconds_ < SLOW_SECONDS) seconds_ = timed(2);
    }

    ~Slot() {
        if (buffer_) ggml_backend_buffer_free(buffer_);
        ggml_free(context_);
    }

    Slot(const Slot &) = delete;
    Slot & operator=(const Slot &) = delete;

    // Seconds of a call, over as many as take `seconds` together, and their number.
    std::pair<double, long> run(double seconds) {
        // What ran in between has taken the caches.
        if (seconds_ < seconds) seconds_ = timed(1);
        long calls = std::max(1.0, std::ceil(seconds / std::max(seconds_, 1e-7)));
        seconds_ = timed(calls);
        return { seconds_, calls };
    }

    // What comes out as [sequence, token, head, channel] is written as [sequence, head, token, channel].
    void write(const std::string & path) const {
        std::vector<float> found(ggml_nelements(o_)), turned(found.size());
        ggml_backend_tensor_get(o_, found.data(), 0, found.size() * sizeof(float));
        long dim = o_->ne[0], heads = o_->ne[1], tokens = o_->ne[2], batch = o_->ne[3];
        for (long b = 0; b < batch; b++)
            for (long h = 0; h < heads; h++)
                for (long n = 0; n < tokens; n++)
                    std::memcpy(
                        &turned[((b * heads + h) * tokens + n) * dim], &found[((b * tokens + n) * heads + h) * dim],
                        dim * sizeof(float));
        std::ofstream file(path, std::ios::binary);
        if (!file.write(reinterpret_cast<const char *>(turned.data()), turned.size() * sizeof(float)))
            throw std::runtime_error(path + ": cannot be written");
    }

private:
    double timed(long calls) {
        auto start = std::chrono::steady_clock::now();
        for (long i = 0; i < calls; i++) ggml_backend_graph_compute(backend_, graph_);
        return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count() / calls;
    }

    ggml_backend_t backend_;
    ggml_context * context_ = nullptr;
    ggml_backend_buffer_t buffer_ = nullptr;
    ggml_cgraph * graph_ = nullptr;
    ggml_tensor * o_ = nullptr;
    double seconds_ = 0;
};

using Slots = std::map<std::string, std::unique_ptr<Slot>>;

std::string answer(ggml_backend_t backend, Slots & slots, const std::string & verb, const Fields & fields) {
    const std::string & slot = fields.at("slot");
    if (verb == "setup") {
        slots[slot] = std::make_unique<Slot>(backend, Problem(fields));
        return "ok\tnote=queries f32";
    }
    if (verb == "free") {
        slots.erase(slot);
        return "ok";
    }
    if (verb == "run") {
        auto [seconds, calls] = slots.at(slot)->run(std::stod(fields.at("seconds")));
        std::ostringstream line;
        line << "time\tseconds=" << std::scientific << seconds << "\tcalls=" << calls;
        return line.str();
    }
    if (verb == "output") {
        slots.at(slot)->write(fields.at("path"));
        return "ok";
    }
    throw std::runtime_error("found the verb " + verb + ", expected setup, run, output or free");
}

}  // namespace

int main(int argc, char ** argv) {
    int threads = argc == 3 && std::string(argv[1]) == "--threads" ? std::atoi(argv[2]) : 1;
    ggml_backend_t backend = ggml_backend_cpu_init();
    ggml_backend_cpu_set_n_threads(backend, threads);
    std::cout << "ready\tversion=" << ggml_version() << std::endl;
    Slots slots;
    for (std::string line; std::getline(std::cin, line);) {
        std::istringstream parts(line);
        std::string verb, part;
        std::getline(parts, verb, '\t');
        Fields fields;
        while (std::getline(parts, part, '\t')) {
            size_t equals = part.find('=');
            fields[part.substr(0, equals)] = equals == std::string::npos ? "" : part.substr(equals + 1);
        }
        try {
            std::cout << answer(backend, slots, verb, fields) << std::endl;
        } catch (const std::exception & error) {
            std::cout << "err\tmessage=" << error.what() << std::endl;
        }
    }
}
