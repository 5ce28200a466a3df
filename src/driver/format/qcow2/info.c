/* SPDX-License-Identifier: MIT */
/* The facts that only a qcow2 image has, of an open node, with the names that `qemu-img info` gives
 * them. */
#include <stdio.h>

#include "util/json.h"

#include "bitmap.h"
#include "driver.h"
#include "info_int.h"

/* ---- filling JSON ---- */

struct q2_json q2_json_object(void)
{
    json_t *value = json_object();

    return (struct q2_json){.value = value, .failed = value == NULL};
}

struct q2_json q2_json_array(void)
{
    json_t *value = json_array();

    return (struct q2_json){.value = value, .failed = value == NULL};
}

void q2_json_put(struct q2_json *to, const char *key, json_t *value)
{
    if (json_object_set_new_nocheck(to->value, key, value) < 0) { /* ends value also then */
        to->failed = true;
    }
}

void q2_json_append(struct q2_json *to, json_t *value)
{
    if (json_array_append_new(to->value, value) < 0) {
        to->failed = true;
    }
}

json_t *q2_json_end(struct q2_json *from)
{
    if (from->failed) {
        json_decref(from->value);
        return NULL;
    }
    return from->value;
}

json_t *q2_json_text(const char *text, size_t bytes)
{
    size_t used = 0;
    json_t *value;
    char *escaped;

    if (utf8_valid(text, bytes)) {
        return json_stringn_nocheck(text, bytes);
    }
    escaped = malloc(bytes * 4 + 1);
    if (escaped == NULL) {
        return NULL;
    }
    for (size_t i = 0; i < bytes; i++) {
        if (text[i] & 0x80) {
            used += (size_t)snprintf(escaped + used, 5, "\\x%02x", (unsigned char)text[i]);
        } else {
            escaped[used++] = text[i];
        }
    }
    value = json_stringn_nocheck(escaped, used);
    free(escaped);
    return value;
}

/* ---- facts ---- */

static void put_bitmaps(struct q2_json *to, struct qcow2 *s)
{
    json_t *bitmaps = q2_bitmaps_info(s);

    if (bitmaps == NULL) {
        to->failed = true;
    } else if (json_array_size(bitmaps) > 0) {
        q2_json_put(to, "bitmaps", bitmaps);
    } else {
        json_decref(bitmaps);
    }
}

json_t *q2_driver_specific_info(BlockDriverState *bs)
{
    struct qcow2 *s = q2_of(bs);
    const struct q2_header *h = &s->header;
    struct q2_json data = q2_json_object();
    bool v3 = h->version >= 3;
    const char *type = h->compression_type == Q2_COMPRESSION_ZLIB ? "zlib" : "zstd";

    q2_json_put(&data, "compat", json_string(v3 ? "1.1" : "0.10"));
    q2_json_put(&data, "compression-type", json_string(type));
    if (v3) {
        q2_json_put(&data, "lazy-refcounts",
                    json_boolean((h->compatible & Q2_COMPAT_LAZY_REFCOUNTS) != 0));
        put_bitmaps(&data, s);
    }
    q2_json_put(&data, "refcount-bits", json_integer(s->geo.refcount_bits));
    if (h->crypt_method != Q2_CRYPT_NONE) {
        q2_json_put(&data, "encrypt", q2_crypt_info(s->file, h));
    }
    if (!v3) {
        return q2_json_end(&data);
    }
    if (h->data_file != NULL && s->geo.external_data) {
        q2_json_put(&data, "data-file", q2_json_text(h->data_file, strlen(h->data_file)));
    }
    if (s->geo.external_data) {
        q2_json_put(&data, "data-file-raw", json_boolean(s->geo.data_file_raw));
    }
    q2_json_put(&data, "corrupt",
                json_boolean((q2_header_incompatible(s) & Q2_INCOMPAT_CORRUPT) != 0));
    q2_json_put(&data, "extended-l2", json_boolean(s->geo.extended_l2));
    return q2_json_end(&data);
}
