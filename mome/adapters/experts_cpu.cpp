// MoME on a CPU at inference: router, gates and the experts that each token chose, in one pass.
// Compiled and called by experts_cpu.py, which also lays the weights out as they are read here.
//
// Weights lie in chunks of 16 lanes of 4 bytes: a lane is one float or a pair of bfloat16 that
// meets a pair of the input. Down-projections and router have output units in the lanes, expert by
// expert and padded to 16, and one chunk for each word (4 bytes) of the hidden state. Up-projections
// have 16 features of the output in the lanes and one chunk for each word of the bottleneck. Where
// experts have biases, that of the up-projection is one unit more of the bottleneck, whose value is
// the expert's gate.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <utility>
#include <vector>

#if defined(__AVX512BF16__)
#include <immintrin.h>
#endif

namespace {

constexpr int LANES = 16;
constexpr int BLOCK = 48;  // tokens whose states and sums stay in the cache of one core
constexpr int TILE = 8;    // tokens that read a chunk of weights together
constexpr int SLAB = 4;    // chunks of features whose sums stay in registers

using Floats = float __attribute__((vector_size(64)));
using Words = uint32_t __attribute__((vector_size(64)));
using Ints = int32_t __attribute__((vector_size(64)));
using Halves = uint16_t __attribute__((vector_size(32)));
using Word = uint32_t __attribute__((may_alias));  // of a state of either type

struct Float {
    using Element = float;
    static Floats widen(const Element* from) {
        Floats x;
        std::memcpy(&x, from, sizeof x);
        return x;
    }
    static void narrow(Floats x, Element* to) { std::memcpy(to, &x, sizeof x); }
    static Floats add(Floats sum, Words weights, uint32_t word) {
        float x;
        std::memcpy(&x, &word, sizeof x);
        return sum + (Floats)weights * x;
    }
};

struct BFloat16 {
    using Element = uint16_t;
    static Floats widen(const Element* from) {
        Halves x;
        std::memcpy(&x, from, sizeof x);
        return (Floats)(__builtin_convertvector(x, Words) << 16);
    }
    static void narrow(Floats x, Element* to) {  // to the nearest, ties to even; a NaN stays one
        const Words bits = (Words)x;
        const Words rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
        const auto halves = __builtin_convertvector(x == x ? rounded : Words{} + 0x7fc0, Halves);
        std::memcpy(to, &halves, sizeof halves);
    }
    static Floats add(Floats sum, Words weights, uint32_t word) {
#if defined(__AVX512BF16__)
        return (Floats)_mm512_dpbf16_ps(
            (__m512)sum, (__m512bh)weights, (__m512bh)_mm512_set1_epi32(word));
#else
        float low, high;
        const uint32_t words[2] = {word << 16, word & 0xffff0000};
        std::memcpy(&low, &words[0], sizeof low);
        std::memcpy(&high, &words[1], sizeof high);
        return sum + (Floats)(weights << 16) * low + (Floats)(weights & 0xffff0000) * high;
#endif
    }
};

// exp(x) for x <= 0, to 2e-7 of itself (Cephes' polynomial).
Floats exp_of_negative(Floats x) {
    x = x < -87.0f ? Floats{} - 87.0f : x;
    const Floats shifted = x * 1.44269504f + 12582912.0f;  // 1.5 * 2^23 rounds to an integer
    const Floats power = shifted - 12582912.0f;
    x = x - power * 0.693359375f + power * 2.12194440e-4f;
    Floats y = x * 1.9875691500e-4f + 1.3981999507e-3f;
    y = y * x + 8.3334519073e-3f;
    y = y * x + 4.1665795894e-2f;
    y = y * x + 1.6666665459e-1f;
    y = y * x + 5.0000001201e-1f;
    y = y * x * x + x + 1.0f;
    return (Floats)((Ints)y + (__builtin_convertvector(power, Ints) << 23));
}

// GELU by the error function (Abramowitz and Stegun, 7.1.26: to 1.5e-7).
Floats gelu(Floats x) {
    const Floats z = (x < 0.0f ? -x : x) * 0.70710678f;
    const Floats t = 1.0f / (1.0f + 0.3275911f * z);
    Floats y = t * 1.061405429f - 1.453152027f;
    y = y * t + 1.421413741f;
    y = y * t - 0.284496736f;
    y = y * t + 0.254829592f;
    const Floats tail = y * t * exp_of_negative(-z * z) * 0.5f;  // of the normal distribution
    return x * (x < 0.0f ? tail : 1.0f - tail);
}

// sums[group][t] = 16 output units of token t: chunks of weights times the words of its state.
template <class Type, int TOKENS, int GROUPS>
void project(const Word* const* states, const Words* weights, int words,
             Floats (&sums)[GROUPS][TOKENS]) {
    // Independent sums hide the latency of an addition.
    constexpr int CHAINS = std::max(1, 16 / (TOKENS * GROUPS));
    Floats parts[CHAINS][GROUPS][TOKENS] = {};
    const auto add = [&](int word, int chain) {
        for (int group = 0; group < GROUPS; ++group)
            for (int t = 0; t < TOKENS; ++t)
                parts[chain][group][t] = Type::add(
                    parts[chain][group][t], weights[group * words + word], states[t][word]);
    };
    int word = 0;
    for (; word + CHAINS <= words; word += CHAINS)
        for (int chain = 0; chain < CHAINS; ++chain) add(word + chain, chain);
    for (; word < words; ++word) add(word, 0);
    for (int group = 0; group < GROUPS; ++group)
        for (int t = 0; t < TOKENS; ++t) {
            sums[group][t] = parts[0][group][t];
            for (int chain = 1; chain < CHAINS; ++chain) sums[group][t] += parts[chain][group][t];
        }
}

// Add an expert's output to the sums of its tokens, 64 features at a time.
template <class Type, int TOKENS>
void expand(const Word* const* inner, const Words* weights, int words, int chunks,
            Floats* const* sums) {
    for (int first = 0; first < chunks; first += SLAB) {
        Floats parts[TOKENS][SLAB];
        for (int t = 0; t < TOKENS; ++t)
            for (int chunk = 0; chunk < SLAB; ++chunk) parts[t][chunk] = sums[t][first + chunk];
        for (int word = 0; word < words; ++word, weights += SLAB)
            for (int t = 0; t < TOKENS; ++t)
                for (int chunk = 0; chunk < SLAB; ++chunk)
                    parts[t][chunk] = Type::add(parts[t][chunk], weights[chunk], inner[t][word]);
        for (int t = 0; t < TOKENS; ++t)
            for (int chunk = 0; chunk < SLAB; ++chunk) sums[t][first + chunk] = parts[t][chunk];
    }
}

}  // namespace

extern "C" {

// Sizes and weights of one MoME module; experts_cpu.py declares the same.
struct Experts {
    int32_t dim, routed, shared, bottleneck, top_k;
    int32_t renormalized;  // gates divided by their sum
    const Words *router, *down, *up;
    const Floats *router_bias, *down_bias;  // of the units in `router` and `down`; or null
};
}

namespace {

struct Choice {
    int token;
    float gate;
};

template <class Type>
class Block {
    using Element = typename Type::Element;
    static constexpr int PER_WORD = sizeof(uint32_t) / sizeof(Element);

   public:
    Block(const Experts& experts, int tokens)
        : experts_(experts),
          top_k_(experts.routed ? experts.top_k : 0),
          groups_((experts.bottleneck + LANES - 1) / LANES),
          words_(experts.dim / PER_WORD),
          units_(experts.bottleneck + (experts.down_bias ? 1 : 0)),
          inner_words_((units_ + PER_WORD - 1) / PER_WORD),
          stride_((units_ + LANES - 1) / LANES * LANES),
          // A token whose router logits are NaN counts top_k times for one expert.
          most_(tokens * std::max(1, experts.top_k)),
          choices_((experts.routed + experts.shared) * most_),
          counts_(experts.routed + experts.shared),
          wide_(TILE * experts.dim / LANES),
          logits_((tokens + LANES - 1) / LANES * experts.routed),
          best_(top_k_),
          inner_(TILE * stride_),
          sums_(static_cast<size_t>(tokens) * experts.dim / LANES) {}

    void run(const Element* hidden, const Element* base, Element* output, int tokens) {
        hidden_ = hidden;
        std::fill(counts_.begin(), counts_.end(), 0);
        if (top_k_) {
            tiles<TILE>(tokens, [&](auto count, int start) { route<count()>(start); });
            for (int start = 0; start < tokens; start += LANES)
                choose(start, std::min(LANES, tokens - start));
        }
        for (int expert = experts_.routed; expert < experts_.routed + experts_.shared; ++expert)
            for (int token = 0; token < tokens; ++token) assign(expert, {token, 1.0f});
        const int chunks = tokens * experts_.dim / LANES;
        for (int chunk = 0; chunk < chunks; ++chunk)
            sums_[chunk] = Type::widen(base + chunk * LANES);
        for (size_t expert = 0; expert < counts_.size(); ++expert)
            tiles<TILE>(counts_[expert], [&](auto count, int start) {
                apply<count()>(expert, &choices_[expert * most_ + start]);
            });
        for (int chunk = 0; chunk < chunks; ++chunk)
            Type::narrow(sums_[chunk], output + chunk * LANES);
    }

   private:
    // Call call(number of tokens, first token) for tiles of LARGEST tokens, then for smaller ones.
    template <int LARGEST, class Call>
    static void tiles(int tokens, Call call, int start = 0) {
        for (; start + LARGEST <= tokens; start += LARGEST)
            call(std::integral_constant<int, LARGEST>(), start);
        if constexpr (LARGEST > 1) tiles<LARGEST / 2>(tokens, call, start);
    }

    void assign(int expert, Choice choice) {
        choices_[expert * most_ + counts_[expert]++] = choice;
    }

    template <int TOKENS>
    void route(int start) {
        const int dim = experts_.dim;
        const Word* states[TOKENS];
        for (int t = 0; t < TOKENS; ++t) {
            Floats* wide = &wide_[t * dim / LANES];
            const Element* hidden = hidden_ + static_cast<size_t>(start + t) * dim;
            for (int i = 0; i < dim; i += LANES) wide[i / LANES] = Type::widen(hidden + i);
            states[t] = reinterpret_cast<const Word*>(wide);
        }
        int first = 0;
        for (; first + LANES < experts_.routed; first += 2 * LANES)
            score<TOKENS, 2>(states, start, first);
        if (first < experts_.routed) score<TOKENS, 1>(states, start, first);
    }

    // Router logits of some tokens and of one or two groups of 16 experts.
    template <int TOKENS, int GROUPS>
    void score(const Word* const* states, int start, int first) {
        Floats sums[GROUPS][TOKENS];
        project<Float>(states, experts_.router + static_cast<size_t>(first / LANES) * experts_.dim,
                       experts_.dim, sums);
        if (experts_.router_bias)
            for (int group = 0; group < GROUPS; ++group)
                for (Floats& sum : sums[group]) sum += experts_.router_bias[first / LANES + group];
        const int count = std::min(GROUPS * LANES, experts_.routed - first);
        Floats* logits = &logits_[start / LANES * experts_.routed + first];
        for (int t = 0; t < TOKENS; ++t)
            for (int expert = 0; expert < count; ++expert)
                logits[expert][start % LANES + t] = sums[expert / LANES][t][expert % LANES];
    }

    // Softmax and top-k of 16 tokens, one in each lane; their logits are used up.
    void choose(int start, int tokens) {
        Floats* logits = &logits_[start / LANES * experts_.routed];
        const int routed = experts_.routed;
        Floats largest = logits[0], total = {};
        for (int expert = 1; expert < routed; ++expert)
            largest = logits[expert] > largest ? logits[expert] : largest;
        for (int expert = 0; expert < routed; ++expert) {
            logits[expert] = exp_of_negative(logits[expert] - largest);
            total += logits[expert];
        }
        if (experts_.renormalized) total = Floats{};
        for (auto& [index, gate] : best_) {
            index = Ints{};
            gate = logits[0];
            for (int expert = 1; expert < routed; ++expert) {
                const Ints better = logits[expert] > gate;
                gate = better ? logits[expert] : gate;
                index = better ? Ints{} + expert : index;
            }
            for (int expert = 0; expert < routed; ++expert)
                logits[expert] = index == expert ? -1.0f : logits[expert];
            if (experts_.renormalized) total += gate;
        }
        for (int k = 0; k < top_k_; ++k) {
            const auto& [index, gate] = best_[k];
            const Floats share = gate / total;
            for (int lane = 0; lane < tokens; ++lane)
                assign(index[lane], {start + lane, share[lane]});
        }
    }

    // Add one expert's output to the sums of some tokens that chose it.
    template <int TOKENS>
    void apply(int expert, const Choice* choices) {
        const Word *states[TOKENS], *inner[TOKENS];
        Floats* sums[TOKENS];
        for (int t = 0; t < TOKENS; ++t) {
            const size_t at = static_cast<size_t>(choices[t].token) * experts_.dim;
            states[t] = reinterpret_cast<const Word*>(hidden_ + at);
            inner[t] = reinterpret_cast<const Word*>(&inner_[t * stride_]);
            sums[t] = &sums_[at / LANES];
        }
        const Words* down = experts_.down + static_cast<size_t>(expert) * groups_ * words_;
        for (int group = 0; group < groups_; ++group, down += words_) {
            Floats units[1][TOKENS];
            project<Type>(states, down, words_, units);
            for (int t = 0; t < TOKENS; ++t) {
                if (experts_.down_bias) units[0][t] += experts_.down_bias[expert * groups_ + group];
                Type::narrow(gelu(units[0][t]) * choices[t].gate,
                             &inner_[t * stride_ + group * LANES]);
            }
        }
        if (experts_.down_bias)
            for (int t = 0; t < TOKENS; ++t) {
                Element gate[LANES];
                Type::narrow(Floats{} + choices[t].gate, gate);
                inner_[t * stride_ + experts_.bottleneck] = gate[0];
            }
        const int chunks = experts_.dim / LANES;
        const Words* up = experts_.up + static_cast<size_t>(expert) * inner_words_ * chunks;
        // Four tokens at a time: their sums and those weights fill the registers.
        tiles<std::min(TOKENS, 4)>(TOKENS, [&](auto count, int start) {
            expand<Type, count()>(inner + start, up, inner_words_, chunks, sums + start);
        });
    }

    const Experts& experts_;
    const int top_k_, groups_, words_, units_, inner_words_, stride_;
    const Element* hidden_ = nullptr;
    const int most_;
    std::vector<Choice> choices_;  // of each expert, up to `most_`
    std::vector<int> counts_;
    std::vector<Floats> wide_;
    std::vector<Floats> logits_;  // of 16 tokens in the lanes, expert by expert
    std::vector<std::pair<Ints, Floats>> best_;  // index and gate of the k-th expert of 16 tokens
    std::vector<Element> inner_;
    std::vector<Floats> sums_;
};

template <class Type>
void run(const Experts& experts, const void* hidden, const void* base, void* output, int tokens,
         int threads) {
    using Element = typename Type::Element;
    if (tokens == 0) return;
    // As many blocks for each thread, of much the same size.
    const auto ceiling = [](int a, int b) { return (a + b - 1) / b; };
    const int size = ceiling(tokens, ceiling(tokens, BLOCK * threads) * threads);
    const int blocks = ceiling(tokens, size);
#pragma omp parallel num_threads(threads) if (blocks > 1)
    {
        Block<Type> block(experts, size);
#pragma omp for schedule(static) nowait
        for (int index = 0; index < blocks; ++index) {
            const int count = std::min(size, tokens - index * size);
            const size_t start = static_cast<size_t>(index) * size * experts.dim;
            block.run(static_cast<const Element*>(hidden) + start,
                      static_cast<const Element*>(base) + start,
                      static_cast<Element*>(output) + start, count);
        }
    }
}

}  // namespace

extern "C" {

// output (tokens, dim) = base + MoME(hidden), each contiguous.
void mome_float(const Experts* experts, const void* hidden, const void* base, void* output,
                int32_t tokens, int32_t threads) {
    run<Float>(*experts, hidden, base, output, tokens, threads);
}

void mome_bfloat16(const Experts* experts, const void* hidden, const void* base, void* output,
                   int32_t tokens, int32_t threads) {
    run<BFloat16>(*experts, hidden, base, output, tokens, threads);
}
}
