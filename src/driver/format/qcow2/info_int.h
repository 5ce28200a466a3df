/* SPDX-License-Identifier: MIT */
/* What info.c, luks_info.c and inspect.c share. */
#ifndef PLATTER_QCOW2_INFO_INT_H
#define PLATTER_QCOW2_INFO_INT_H

#include "qcow2.h"

/* An object or a list that is being filled. A value of NULL means that memory ran out; failed
 * carries that to the end. */
struct q2_json {
    json_t *value; /* owned */
    bool failed;
};

struct q2_json q2_json_object(void);
struct q2_json q2_json_array(void);
/* value is owned. */
void q2_json_put(struct q2_json *to, const char *key, json_t *value);
void q2_json_append(struct q2_json *to, json_t *value);
/* Its value, the caller's now, or NULL where memory ran out. */
json_t *q2_json_end(struct q2_json *from);
/* A text of an image: bytes that are not UTF-8 become \xNN. */
json_t *q2_json_text(const char *text, size_t bytes);

/* ---- luks_info.c ---- */

/* How the image is encrypted, as `qemu-img info` says it: from the header of the encryption, which
 * is in file. NULL: no memory. Control call. */
json_t *q2_crypt_info(BdrvEdge *file, const struct q2_header *h);

#endif
