/* SPDX-License-Identifier: MIT */
/* Loading libnbd. It is the process's, as its state is, and stays until the end. */
#include <dlfcn.h>
#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <string.h>

#include "os/nbd_library.h"
#include "util/mem.h"

#define LIBNBD_NAME "libnbd.so.0" /* the ABI that its header speaks of */

static struct libnbd functions; /* constant once load_once has run */
static bool loaded;
static pthread_once_t load_once = PTHREAD_ONCE_INIT;

static bool find(void *library, const char *name, void *ret_function)
{
    void *found = dlsym(library, name);

    memcpy(ret_function, &found, sizeof(found)); /* C knows no other way from data to function */
    return found != NULL;
}

static void load(void)
{
    void *library = dlopen(LIBNBD_NAME, RTLD_NOW | RTLD_LOCAL);
    bool all = library != NULL;

#define LIBNBD_FIND(name) all = all && find(library, "nbd_" #name, &functions.name);
    LIBNBD_FUNCTIONS(LIBNBD_FIND)
#undef LIBNBD_FIND
    if (all) {
        (void)find(library, "nbd_set_tls_hostname", &functions.set_tls_hostname);
    }
    loaded = all;
}

const struct libnbd *libnbd(void)
{
    pthread_once(&load_once, load);
    return loaded ? &functions : NULL;
}
