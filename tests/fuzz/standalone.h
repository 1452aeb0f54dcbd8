/* A plain main() for a libFuzzer target, for machines without libFuzzer: N pseudo-random mutations of the target's own
 * seeds, the same ones every time. Build with -DTP_FUZZ_STANDALONE; the argument is N. With libFuzzer, leave it out. A slow
 * target defines FUZZ_COST before this header: it gets N / FUZZ_COST. */
#ifndef STANDALONE_H
#define STANDALONE_H
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* A broken promise must stop the fuzzer whatever the build's flags are. */
#define HOLDS(x)                                                       \
    do {                                                               \
        if (!(x)) {                                                    \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #x);    \
            abort();                                                   \
        }                                                              \
    } while (0)

#define SEED(text) {(const uint8_t *)(text), sizeof(text) - 1}
typedef struct seed {
    const uint8_t *bytes;
    size_t n;
} seed;

#ifdef TP_FUZZ_STANDALONE
#ifndef FUZZ_COST
#define FUZZ_COST 1
#endif
#define LONGEST_INPUT 600

static uint32_t random_state = 0x9e3779b9u;

static uint32_t random_below(uint32_t bound) {
    random_state ^= random_state << 13;
    random_state ^= random_state >> 17;
    random_state ^= random_state << 5;
    return random_state % bound;
}

/* Replaces, removes, doubles or inserts a few bytes, or splices in a part of another seed. */
static size_t mutate(uint8_t *input, size_t n, const seed *other) {
    size_t at = random_below((uint32_t)n + 1), run = random_below(8);
    switch (random_below(5)) {
    case 0:
        if (at < n)
            input[at] = (uint8_t)random_below(256);
        return n;
    case 1:
        if (at < n)
            input[at] ^= (uint8_t)(1u << random_below(8));
        return n;
    case 2:
        run = run > n - at ? n - at : run;
        memmove(input + at, input + at + run, n - at - run);
        return n - run;
    case 3:
        run = run > n - at ? n - at : run;
        if (n + run > LONGEST_INPUT)
            return n;
        memmove(input + at + run, input + at, n - at);
        return n + run;
    default: {
        size_t from = random_below((uint32_t)other->n + 1);
        run = random_below((uint32_t)(other->n - from) + 1);
        if (n + run > LONGEST_INPUT)
            return n;
        memmove(input + at + run, input + at, n - at);
        memcpy(input + at, other->bytes + from, run);
        return n + run;
    }
    }
}

static int run_mutations(const seed *seeds, uint32_t n_seeds, int argc, char **argv) {
    long n_inputs = argc > 1 ? strtol(argv[1], NULL, 10) : 20000;
    n_inputs /= FUZZ_COST;
    for (uint32_t i = 0; i < n_seeds; i++)
        LLVMFuzzerTestOneInput(seeds[i].bytes, seeds[i].n);
    for (long i = 0; i < n_inputs; i++) {
        uint8_t input[LONGEST_INPUT];
        const seed *from = &seeds[random_below(n_seeds)];
        size_t n = from->n;
        memcpy(input, from->bytes, n);
        for (uint32_t k = random_below(4) + 1; k != 0; k--)
            n = mutate(input, n, &seeds[random_below(n_seeds)]);
        /* A copy of just its size, so that the sanitizer sees a byte too many. */
        uint8_t *exact = malloc(n + (n == 0));
        HOLDS(exact != NULL);
        memcpy(exact, input, n);
        LLVMFuzzerTestOneInput(exact, n);
        free(exact);
    }
    return 0;
}
#define STANDALONE_MAIN(seeds) \
    int main(int argc, char **argv) { return run_mutations(seeds, sizeof(seeds) / sizeof((seeds)[0]), argc, argv); }
#else
#define STANDALONE_MAIN(seeds) \
    extern const seed *const fuzz_seeds; \
    const seed *const fuzz_seeds = seeds;
#endif
#endif
