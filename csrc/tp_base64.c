#include "tp_base64.h"
#include "tp_simd.h"

#define BLOCK_BYTES 24u
#define BLOCK_CHARACTERS 32u

#if defined(__x86_64__) && defined(__GNUC__)
#define HAVE_AVX2_BODY 1
#include <immintrin.h>
#define AVX2 __attribute__((target("avx2")))
#else
#define HAVE_AVX2_BODY 0
#endif

/* Eight six-bit values <-> 48 bits, first value highest, by halving: 24 bits in 32, 12 in 16, 6 in 8. */
static inline uint64_t spread48(uint64_t x) {
    x = (x & 0x0000000000ffffffu) | (x & 0x0000ffffff000000u) << 8;
    x = (x & 0x00000fff00000fffu) | (x & 0x00fff00000fff000u) << 4;
    return (x & 0x003f003f003f003fu) | (x & 0x0fc00fc00fc00fc0u) << 2;
}

static inline uint64_t gather48(uint64_t x) {
    x = (x & 0x003f003f003f003fu) | (x & 0x3f003f003f003f00u) >> 2;
    x = (x & 0x00000fff00000fffu) | (x & 0x0fff00000fff0000u) >> 4;
    return (x & 0x0000000000ffffffu) | (x & 0x00ffffff00000000u) >> 8;
}

/* A selection the compiler cannot mistake for a branch, so that the loops below become vectors. */
static inline uint8_t only_if(bool condition, int value) { return (uint8_t)(-(int)condition & value); }

static void encode_blocks_base(uint8_t *out, const uint8_t *in, size_t n_blocks) {
    for (; n_blocks != 0; n_blocks--, in += BLOCK_BYTES, out += BLOCK_CHARACTERS) {
        uint8_t six[BLOCK_CHARACTERS];
        for (size_t i = 0; i < 4; i++)
            tp_put64be(six + 8 * i, spread48((uint64_t)tp_get32be(in + 6 * i) << 16 | tp_get16be(in + 6 * i + 4)));
        for (size_t i = 0; i < BLOCK_CHARACTERS; i++) {
            uint8_t s = six[i];
            uint8_t steps = only_if(s > 25, 'a' - 26 - 'A');
            steps = (uint8_t)(steps + only_if(s > 51, '0' - 52 - ('a' - 26)));
            steps = (uint8_t)(steps + only_if(s > 61, '+' - 62 - ('0' - 52)));
            steps = (uint8_t)(steps + only_if(s > 62, '/' - 63 - ('+' - 62)));
            out[i] = (uint8_t)(s + 'A' + steps);
        }
    }
}

/* -> true when every character is of the alphabet */
static bool decode_blocks_base(uint8_t *out, const uint8_t *in, size_t n_blocks) {
    uint8_t bad[BLOCK_CHARACTERS] = {0};
    for (; n_blocks != 0; n_blocks--, in += BLOCK_CHARACTERS, out += BLOCK_BYTES) {
        uint8_t six[BLOCK_CHARACTERS];
        for (size_t i = 0; i < BLOCK_CHARACTERS; i++) {
            uint8_t c = in[i];
            uint8_t delta = only_if((uint8_t)(c - 'A') < 26, -'A');
            delta |= only_if((uint8_t)(c - 'a') < 26, 26 - 'a');
            delta |= only_if((uint8_t)(c - '0') < 10, 52 - '0');
            delta |= only_if(c == '+', 62 - '+');
            delta |= only_if(c == '/', 63 - '/');
            bad[i] |= only_if(delta == 0, 0xff);
            six[i] = (uint8_t)((c + delta) & 0x3f);
        }
        for (size_t i = 0; i < 4; i++) {
            uint64_t x = gather48(tp_get64be(six + 8 * i));
            tp_put32be(out + 6 * i, (uint32_t)(x >> 16));
            tp_put16be(out + 6 * i + 4, (uint16_t)x);
        }
    }
    uint8_t any = 0;
    for (size_t i = 0; i < BLOCK_CHARACTERS; i++)
        any |= bad[i];
    return any == 0;
}

#if HAVE_AVX2_BODY

static inline AVX2 __m256i all8(int x) { return _mm256_set1_epi8((char)x); }

static AVX2 void encode_blocks_avx2(uint8_t *out, const uint8_t *in, size_t n_blocks) {
    /* Each 32-bit lane becomes one group of three bytes, first byte highest. The upper half is loaded from byte 8 on
     * and picked from its byte 4, so that a block never reads beyond itself. */
    const __m256i pick = _mm256_setr_epi8(2, 1, 0, -1, 5, 4, 3, -1, 8, 7, 6, -1, 11, 10, 9, -1, /* */
                                          6, 5, 4, -1, 9, 8, 7, -1, 12, 11, 10, -1, 15, 14, 13, -1);
    for (; n_blocks != 0; n_blocks--, in += BLOCK_BYTES, out += BLOCK_CHARACTERS) {
        __m128i low = _mm_loadu_si128((const __m128i *)(const void *)in);
        __m128i high = _mm_loadu_si128((const __m128i *)(const void *)(in + 8));
        __m256i v = _mm256_shuffle_epi8(_mm256_inserti128_si256(_mm256_castsi128_si256(low), high, 1), pick);
        __m256i six = _mm256_or_si256(
            _mm256_or_si256(_mm256_srli_epi32(v, 18),
                            _mm256_and_si256(_mm256_srli_epi32(v, 4), _mm256_set1_epi32(0x3f00))),
            _mm256_or_si256(_mm256_and_si256(_mm256_slli_epi32(v, 10), _mm256_set1_epi32(0x3f0000)),
                            _mm256_and_si256(_mm256_slli_epi32(v, 24), _mm256_set1_epi32(0x3f000000))));
        __m256i c = _mm256_add_epi8(six, all8('A'));
        c = _mm256_add_epi8(c, _mm256_and_si256(_mm256_cmpgt_epi8(six, all8(25)), all8('a' - 26 - 'A')));
        c = _mm256_add_epi8(c, _mm256_and_si256(_mm256_cmpgt_epi8(six, all8(51)), all8('0' - 52 - ('a' - 26))));
        c = _mm256_add_epi8(c, _mm256_and_si256(_mm256_cmpgt_epi8(six, all8(61)), all8('+' - 62 - ('0' - 52))));
        c = _mm256_add_epi8(c, _mm256_and_si256(_mm256_cmpgt_epi8(six, all8(62)), all8('/' - 63 - ('+' - 62))));
        _mm256_storeu_si256((__m256i *)(void *)out, c);
    }
}

/* `delta` where first <= c <= last, else 0. Signed comparison: bytes from 0x80 on are negative and in no range. */
static inline AVX2 __m256i in_range(__m256i c, int first, int last, int delta) {
    __m256i inside = _mm256_and_si256(_mm256_cmpgt_epi8(c, all8(first - 1)), _mm256_cmpgt_epi8(all8(last + 1), c));
    return _mm256_and_si256(inside, all8(delta));
}

static AVX2 bool decode_blocks_avx2(uint8_t *out, const uint8_t *in, size_t n_blocks) {
    const __m256i pick = _mm256_setr_epi8(2, 1, 0, 6, 5, 4, 10, 9, 8, 14, 13, 12, -1, -1, -1, -1, /* */
                                          2, 1, 0, 6, 5, 4, 10, 9, 8, 14, 13, 12, -1, -1, -1, -1);
    const __m256i close_up = _mm256_setr_epi32(0, 1, 2, 4, 5, 6, 3, 7);
    __m256i bad = _mm256_setzero_si256();
    for (; n_blocks != 0; n_blocks--, in += BLOCK_CHARACTERS, out += BLOCK_BYTES) {
        __m256i c = _mm256_loadu_si256((const __m256i *)(const void *)in);
        __m256i delta = _mm256_or_si256(in_range(c, 'A', 'Z', -'A'), in_range(c, 'a', 'z', 26 - 'a'));
        delta = _mm256_or_si256(delta, in_range(c, '0', '9', 52 - '0'));
        delta = _mm256_or_si256(delta, _mm256_and_si256(_mm256_cmpeq_epi8(c, all8('+')), all8(62 - '+')));
        delta = _mm256_or_si256(delta, _mm256_and_si256(_mm256_cmpeq_epi8(c, all8('/')), all8(63 - '/')));
        bad = _mm256_or_si256(bad, _mm256_cmpeq_epi8(delta, _mm256_setzero_si256()));
        __m256i six = _mm256_add_epi8(c, delta);
        __m256i twelve = _mm256_maddubs_epi16(six, _mm256_set1_epi16(0x0140)); /* first * 64 + second */
        __m256i v = _mm256_madd_epi16(twelve, _mm256_set1_epi32(0x00011000)); /* first * 4096 + second */
        v = _mm256_permutevar8x32_epi32(_mm256_shuffle_epi8(v, pick), close_up);
        _mm_storeu_si128((__m128i *)(void *)out, _mm256_castsi256_si128(v));
        _mm_storel_epi64((__m128i *)(void *)(out + 16), _mm256_extracti128_si256(v, 1));
    }
    return _mm256_testz_si256(bad, bad) != 0;
}

#endif

static inline void encode_blocks(uint8_t *out, const uint8_t *in, size_t n_blocks) {
#if HAVE_AVX2_BODY
    if (tp_simd_level_in_use() >= TP_SIMD_AVX2) {
        encode_blocks_avx2(out, in, n_blocks);
        return;
    }
#endif
    encode_blocks_base(out, in, n_blocks);
}

static inline bool decode_blocks(uint8_t *out, const uint8_t *in, size_t n_blocks) {
#if HAVE_AVX2_BODY
    if (tp_simd_level_in_use() >= TP_SIMD_AVX2)
        return decode_blocks_avx2(out, in, n_blocks);
#endif
    return decode_blocks_base(out, in, n_blocks);
}

ptrdiff_t tp_base64_encode(uint8_t *out, size_t out_capacity, const uint8_t *in, size_t in_bytes) {
    size_t out_bytes = TP_BASE64_ENCODED_BYTES(in_bytes);
    if (out_bytes > out_capacity)
        return TP_E_ROOM;
    size_t n_blocks = in_bytes / BLOCK_BYTES, rest = in_bytes % BLOCK_BYTES;
    encode_blocks(out, in, n_blocks);
    if (rest != 0) {
        uint8_t padded[BLOCK_BYTES] = {0}, text[BLOCK_CHARACTERS];
        memcpy(padded, in + n_blocks * BLOCK_BYTES, rest);
        encode_blocks(text, padded, 1);
        size_t characters = TP_BASE64_ENCODED_BYTES(rest);
        if (rest % 3 != 0)
            text[characters - 1] = '=';
        if (rest % 3 == 1)
            text[characters - 2] = '=';
        memcpy(out + n_blocks * BLOCK_CHARACTERS, text, characters);
    }
    return (ptrdiff_t)out_bytes;
}

ptrdiff_t tp_base64_decoded_length(const uint8_t *in, size_t in_bytes) {
    if (in_bytes == 0)
        return 0;
    if (in_bytes % 4 != 0)
        return TP_E_FORMAT;
    size_t padding = in[in_bytes - 1] != '=' ? 0 : in[in_bytes - 2] != '=' ? 1 : 2;
    return (ptrdiff_t)(in_bytes / 4 * 3 - padding);
}

ptrdiff_t tp_base64_decode(uint8_t *out, size_t out_capacity, const uint8_t *in, size_t in_bytes) {
    ptrdiff_t length = tp_base64_decoded_length(in, in_bytes);
    if (length <= 0)
        return length;
    if ((size_t)length > out_capacity)
        return TP_E_ROOM;
    size_t padding = in_bytes / 4 * 3 - (size_t)length;
    /* A padded text keeps its last group out of the whole blocks. */
    size_t n_blocks = (in_bytes - padding) / BLOCK_CHARACTERS, rest = in_bytes - n_blocks * BLOCK_CHARACTERS;
    uint8_t text[BLOCK_CHARACTERS], bytes[BLOCK_BYTES];
    memset(text, 'A', sizeof text);
    memcpy(text, in + n_blocks * BLOCK_CHARACTERS, rest - padding);
    bool good = decode_blocks(out, in, n_blocks);
    if (rest != 0) {
        size_t wanted = rest / 4 * 3 - padding;
        good &= decode_blocks(bytes, text, 1);
        memcpy(out + n_blocks * BLOCK_BYTES, bytes, wanted);
        for (size_t i = wanted; i < BLOCK_BYTES; i++)
            good &= bytes[i] == 0;
    }
    return good ? length : TP_E_FORMAT;
}
