/* SPDX-License-Identifier: MIT */
/*
 * How an encrypted image is encrypted: what the LUKS header tells that the image holds ("partition
 * header" and "key slot" of the LUKS on-disk format, version 1). It is only described, so what
 * makes no sense is left out.
 */
#include <stdio.h>

#include "info_int.h"

/* The partition header; lengths and offsets in bytes, numbers big-endian, keys' places in sectors
 */
#define LUKS_BYTES 592
#define LUKS_VERSION 6
#define LUKS_CIPHER_NAME 8
#define LUKS_CIPHER_MODE 40
#define LUKS_HASH 72
#define LUKS_NAME_BYTES 32
#define LUKS_PAYLOAD 104
#define LUKS_KEY_BYTES 108
#define LUKS_KEY_ITERATIONS 164
#define LUKS_UUID 168
#define LUKS_UUID_BYTES 40
#define LUKS_SLOTS 208
#define LUKS_SLOT_BYTES 48
#define LUKS_SLOT_COUNT 8
#define LUKS_SLOT_ACTIVE UINT32_C(0x00ac71f3)
#define LUKS_SECTOR 512

static const uint8_t luks_magic[] = {'L', 'U', 'K', 'S', 0xba, 0xbe};

static json_t *name_value(const uint8_t *field, size_t bytes)
{
    return q2_json_text((const char *)field, strnlen((const char *)field, bytes));
}

/* "xts-plain64", "cbc-essiv:sha256": mode, generator of initialization vectors, its hash. */
struct mode {
    char text[LUKS_NAME_BYTES + 1]; /* the mode itself */
    const char *generator;          /* in text; NULL: none */
    const char *hash;               /* in text; NULL: none */
};

static void mode_split(const uint8_t *field, struct mode *ret)
{
    char *dash, *colon;

    *ret = (struct mode){0};
    memcpy(ret->text, field, LUKS_NAME_BYTES);
    dash = strchr(ret->text, '-');
    if (dash != NULL) {
        *dash = '\0';
        ret->generator = dash + 1;
        colon = strchr(dash + 1, ':');
        if (colon != NULL) {
            *colon = '\0';
            ret->hash = colon + 1;
        }
    }
}

static void put_cipher(struct q2_json *to, const uint8_t *luks)
{
    char name[LUKS_NAME_BYTES + 1] = "";
    char cipher[LUKS_NAME_BYTES + 16];
    uint32_t key_bytes = load_be32(luks + LUKS_KEY_BYTES);
    bool two_keys = memcmp(luks + LUKS_CIPHER_MODE, "xts", 3) == 0;

    memcpy(name, luks + LUKS_CIPHER_NAME, LUKS_NAME_BYTES);
    snprintf(cipher, sizeof(cipher), "%s-%u", name,
             key_bytes <= 1024 ? key_bytes * 8 / (two_keys ? 2 : 1) : 0);
    q2_json_put(to, "cipher-alg", q2_json_text(cipher, strlen(cipher)));
}

static json_t *slot_value(const uint8_t *slot)
{
    struct q2_json value = q2_json_object();
    bool active = load_be32(slot) == LUKS_SLOT_ACTIVE;

    q2_json_put(&value, "active", json_boolean(active));
    if (active) {
        q2_json_put(&value, "iters", json_integer(load_be32(slot + 4)));
    }
    q2_json_put(&value, "key-offset", json_integer((json_int_t)load_be32(slot + 40) * LUKS_SECTOR));
    if (active) {
        q2_json_put(&value, "stripes", json_integer(load_be32(slot + 44)));
    }
    return q2_json_end(&value);
}

static void put_luks(struct q2_json *to, const uint8_t *luks)
{
    struct q2_json slots = q2_json_array();
    struct mode mode;

    mode_split(luks + LUKS_CIPHER_MODE, &mode);
    if (mode.generator != NULL) {
        q2_json_put(to, "ivgen-alg", q2_json_text(mode.generator, strlen(mode.generator)));
    }
    if (mode.hash != NULL) {
        q2_json_put(to, "ivgen-hash-alg", q2_json_text(mode.hash, strlen(mode.hash)));
    }
    q2_json_put(to, "hash-alg", name_value(luks + LUKS_HASH, LUKS_NAME_BYTES));
    put_cipher(to, luks);
    q2_json_put(to, "uuid", name_value(luks + LUKS_UUID, LUKS_UUID_BYTES));
    q2_json_put(to, "format", json_string("luks"));
    q2_json_put(to, "cipher-mode", q2_json_text(mode.text, strlen(mode.text)));
    for (unsigned i = 0; i < LUKS_SLOT_COUNT; i++) {
        q2_json_append(&slots, slot_value(luks + LUKS_SLOTS + (size_t)i * LUKS_SLOT_BYTES));
    }
    q2_json_put(to, "slots", q2_json_end(&slots));
    q2_json_put(to, "payload-offset",
                json_integer((json_int_t)load_be32(luks + LUKS_PAYLOAD) * LUKS_SECTOR));
    q2_json_put(to, "master-key-iters", json_integer(load_be32(luks + LUKS_KEY_ITERATIONS)));
}

/* Whether there is a LUKS header that can be described. */
static bool read_luks(BdrvEdge *file, const struct q2_header *h, uint8_t *buf)
{
    int64_t file_bytes = bdrv_edge_getlength(file);

    return h->has_crypt_header && h->crypt_header_bytes >= LUKS_BYTES && file_bytes >= 0 &&
           range_inside(h->crypt_header_offset, LUKS_BYTES, (uint64_t)file_bytes) &&
           bdrv_edge_pread(file, h->crypt_header_offset, buf, LUKS_BYTES) == 0 &&
           memcmp(buf, luks_magic, sizeof(luks_magic)) == 0 && load_be16(buf + LUKS_VERSION) == 1;
}

json_t *q2_crypt_info(BdrvEdge *file, const struct q2_header *h)
{
    struct q2_json value = q2_json_object();
    uint8_t luks[LUKS_BYTES];

    if (h->crypt_method == Q2_CRYPT_AES) {
        q2_json_put(&value, "format", json_string("aes"));
        return q2_json_end(&value);
    }
    if (read_luks(file, h, luks)) {
        put_luks(&value, luks);
    } else {
        q2_json_put(&value, "format", json_string("luks"));
    }
    return q2_json_end(&value);
}
