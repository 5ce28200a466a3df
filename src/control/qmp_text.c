/* SPDX-License-Identifier: MIT */
/* Arguments of a command line. Their texts become what the schema says as in the reference, which
 * reads numbers as C does. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "control/keyval.h"
#include "control/qmp_type.h"
#include "util/error.h"
#include "util/json.h"
#include "util/size.h"

static bool is_one_of(const char *text, const char *const words[4])
{
    for (int i = 0; i < 4; i++) {
        if (strcmp(text, words[i]) == 0) {
            return true;
        }
    }
    return false;
}

static json_t *bool_from_text(const char *text)
{
    static const char *const on[] = {"on", "yes", "true", "y"};
    static const char *const off[] = {"off", "no", "false", "n"};

    return is_one_of(text, on) ? json_true() : is_one_of(text, off) ? json_false() : NULL;
}

static json_t *number_from_text(enum qmp_kind kind, const char *text)
{
    json_t *made;
    uint64_t u;
    char *end = NULL;

    errno = 0;
    switch (kind) {
    case QMP_KIND_NUMBER:
        made = json_real(strtod(text, &end));
        break;
    case QMP_KIND_INT:
        made = json_integer(strtoll(text, &end, 0));
        break;
    case QMP_KIND_SIZE:
        return size_parse(size_skip_sign(text), 'b', "", &u, NULL) == 0 ? json_u64(u) : NULL;
    default:
        made = json_u64(strtoull(text, &end, 0));
        break;
    }
    if (errno != 0 || end == text || *end != '\0') {
        json_decref(made);
        return NULL;
    }
    return made;
}

int qmp_scalar_from_text(enum qmp_kind kind, const char *text, const char *name, json_t **ret,
                         Error **errp)
{
    const char *expected;

    *ret = NULL;
    switch (kind) {
    case QMP_KIND_BOOL:
        *ret = bool_from_text(text);
        expected = "'on' or 'off'";
        break;
    case QMP_KIND_INT:
    case QMP_KIND_UINT:
    case QMP_KIND_UINT32:
    case QMP_KIND_SIZE:
    case QMP_KIND_NUMBER:
        *ret = number_from_text(kind, text);
        expected = kind == QMP_KIND_NUMBER ? "number" : "integer";
        break;
    default:
        return 0;
    }
    return *ret ? 0 : error_set(errp, EINVAL, "Parameter '%s' expects %s", name, expected);
}

json_t *qmp_arguments_of(const char *text, const char *implied_key, const struct qmp_type *type,
                         Error **errp)
{
    bool is_json = *text == '{';
    json_t *arguments =
        is_json ? json_parse_text(text, strlen(text), errp) : keyval_parse(text, implied_key, errp);
    int ret = !arguments ? -EINVAL
              : is_json  ? qmp_check(type, arguments, errp)
                         : qmp_take_text(type, arguments, errp);

    if (ret < 0) {
        json_decref(arguments);
        return NULL;
    }
    return arguments;
}
