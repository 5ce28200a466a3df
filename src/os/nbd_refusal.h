/* SPDX-License-Identifier: MIT */
/* Why an NBD server refused an option of the negotiation, in the words that clients know. */
#ifndef PLATTER_OS_NBD_REFUSAL_H
#define PLATTER_OS_NBD_REFUSAL_H

#include <stdbool.h>

#include <platter/error.h>

struct nbd_handle;

enum nbd_refused_option {
    NBD_REFUSED_LIST = 3,
    NBD_REFUSED_INFO = 6,
    NBD_REFUSED_GO = 7,
};

/* What the server says beside a refusal of the last option. libnbd tells it as a debug message
 * only.
 */
struct nbd_hearing {
    char *text; /* owned, or NULL: nothing was said */
    bool on;
    bool enough;                   /* what it says of further options does not count */
    struct nbd_question *question; /* borrowed while it is asked, or NULL */
};

/* From a new handle on until the end of the negotiation. *hearing, zeroes now, stays where it is
 * as long as the handle; what it heard is gone then. Does nothing where the user watches libnbd's
 * debug messages (LIBNBD_DEBUG). */
void nbd_hearing_begin(struct nbd_hearing *hearing, struct nbd_handle *h);
void nbd_hearing_end(struct nbd_hearing *hearing, struct nbd_handle *h);

/* What was said, to be told below the error; nothing when nothing was. */
void nbd_hearing_tell(const struct nbd_hearing *hearing, Error **errp);

/* The last error of libnbd in this thread, where it is the refusal of an option or of TLS: -errno
 * with errp (ENOENT: there is no such export). 0: it is something else. */
int nbd_refusal_set(const struct nbd_hearing *hearing, enum nbd_refused_option option,
                    Error **errp);

/* Ask a server, in option mode, for what it says of the export that h names. 0, or -errno with
 * errp; ENOTSUP: the server does not know such questions. option: which a refusal is told of. */
int nbd_ask_info(struct nbd_handle *h, struct nbd_hearing *hearing, enum nbd_refused_option option,
                 Error **errp);

#endif
