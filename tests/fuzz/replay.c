/* SPDX-License-Identifier: MIT */
/* Runs the inputs named on the command line, files or folders of them, through a fuzz target: the
 * corpus as an ordinary test of every build. */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fuzz.h"

#define INPUT_MAX (1024 * 1024)

static unsigned runs;

static int replay_file(const char *path)
{
    FILE *file = fopen(path, "rb");
    uint8_t *data = malloc(INPUT_MAX);
    size_t bytes;
    uint8_t *exact;

    FUZZ_CHECK(data != NULL);
    if (file == NULL) {
        fprintf(stderr, "cannot open %s\n", path);
        free(data);
        return 1;
    }
    bytes = fread(data, 1, INPUT_MAX, file);
    fclose(file);
    exact = malloc(bytes > 0 ? bytes : 1); /* a sanitizer sees a read behind it */
    FUZZ_CHECK(exact != NULL);
    memcpy(exact, data, bytes);
    free(data);
    LLVMFuzzerTestOneInput(exact, bytes);
    free(exact);
    runs++;
    return 0;
}

static int replay(const char *path)
{
    struct dirent **names;
    int n = scandir(path, &names, NULL, alphasort);
    int failed = 0;

    if (n < 0) {
        return replay_file(path);
    }
    for (int i = 0; i < n; i++) {
        char *full = NULL;

        if (names[i]->d_name[0] != '.') {
            FUZZ_CHECK(asprintf(&full, "%s/%s", path, names[i]->d_name) > 0);
            failed |= replay_file(full);
            free(full);
        }
        free(names[i]);
    }
    free(names);
    return failed;
}

int main(int argc, char **argv)
{
    int failed = 0;

    LLVMFuzzerInitialize(&argc, &argv);
    for (int i = 1; i < argc; i++) {
        failed |= replay(argv[i]);
    }
    printf("%u inputs\n", runs);
    return failed || runs == 0;
}
