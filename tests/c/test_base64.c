#include "check.h"
#include "tp_base64.h"
#include "tp_simd.h"

#define LONGEST 200

/* RFC 4648 section 10. */
static const struct {
    const char *bytes, *text;
} vectors[] = {{"", ""},           {"f", "Zg=="},         {"fo", "Zm8="},        {"foo", "Zm9v"},
               {"foob", "Zm9vYg=="}, {"fooba", "Zm9vYmE="}, {"foobar", "Zm9vYmFy"}};

static int check_vectors(void) {
    for (size_t i = 0; i < sizeof vectors / sizeof vectors[0]; i++) {
        uint8_t out[16];
        size_t n_bytes = strlen(vectors[i].bytes), n_text = strlen(vectors[i].text);
        CHECK(tp_base64_encode(out, sizeof out, (const uint8_t *)vectors[i].bytes, n_bytes) == (ptrdiff_t)n_text);
        CHECK(memcmp(out, vectors[i].text, n_text) == 0);
        CHECK(tp_base64_decode(out, sizeof out, (const uint8_t *)vectors[i].text, n_text) == (ptrdiff_t)n_bytes);
        CHECK(memcmp(out, vectors[i].bytes, n_bytes) == 0);
    }
    return 0;
}

/* Every length from and to buffers of exactly that length, which end where the sanitizer looks. */
static int check_lengths(size_t n) {
    uint8_t bytes[LONGEST], text[TP_BASE64_ENCODED_BYTES(LONGEST)], back[LONGEST];
    for (size_t i = 0; i < n; i++)
        bytes[LONGEST - n + i] = (uint8_t)(i * 151 + n);
    size_t n_text = TP_BASE64_ENCODED_BYTES(n);
    uint8_t *text_end = text + sizeof text;
    CHECK(tp_base64_encode(text_end - n_text, n_text, bytes + LONGEST - n, n) == (ptrdiff_t)n_text);
    CHECK(tp_base64_decoded_length(text_end - n_text, n_text) == (ptrdiff_t)n);
    CHECK(tp_base64_decode(back + LONGEST - n, n, text_end - n_text, n_text) == (ptrdiff_t)n);
    CHECK(memcmp(back + LONGEST - n, bytes + LONGEST - n, n) == 0);
    if (n != 0) {
        CHECK(tp_base64_encode(text, n_text - 1, bytes + LONGEST - n, n) == TP_E_ROOM);
        CHECK(tp_base64_decode(back, n - 1, text_end - n_text, n_text) == TP_E_ROOM);
    }
    CHECK(tp_base64_decode(text_end - n_text, n_text, text_end - n_text, n_text) == (ptrdiff_t)n);
    CHECK(memcmp(text_end - n_text, bytes + LONGEST - n, n) == 0);
    memcpy(text_end - n, bytes + LONGEST - n, n);
    CHECK(tp_base64_encode(text_end - n_text, n_text, text_end - n, n) == (ptrdiff_t)n_text);
    CHECK(tp_base64_decode(back, LONGEST, text_end - n_text, n_text) == (ptrdiff_t)n);
    CHECK(memcmp(back, bytes + LONGEST - n, n) == 0);
    return 0;
}

static int check_refusals(void) {
    static const char *const bad[] = {"Zg=", "Zg", "Z", "====", "Z===", "Zh==", "Zm9=", "Zg==Zg==", "Zm-v", "Zm v"};
    uint8_t out[64], text[64];
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        CHECK(tp_base64_decode(out, sizeof out, (const uint8_t *)bad[i], strlen(bad[i])) == TP_E_FORMAT);
    for (size_t at = 0; at < sizeof text; at++) {
        memset(text, 'Q', sizeof text);
        text[at] = 0x80;
        CHECK(tp_base64_decode(out, sizeof out, text, sizeof text) == TP_E_FORMAT);
    }
    return 0;
}

int main(void) {
    for (int level = 0; level <= tp_simd_level_best(); level++) {
        CHECK(tp_simd_select(level) == level);
        if (check_vectors() != 0 || check_refusals() != 0)
            return 1;
        for (size_t n = 0; n <= LONGEST; n++)
            if (check_lengths(n) != 0)
                return 1;
    }
    return 0;
}
