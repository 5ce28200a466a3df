#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Turn schema/*.json into option structs and their parsers (opts.h, opts.c).

usage: gen_schema.py OUT_H OUT_C FILE.json...

A file holds {"structs": [...], "enums": [...]}; both may be missing (and "drivers": which of them
a driver takes, for gen_qmp.py). A struct has a name, a doc
and keys; a key has key, type (str, bool, int, uint, size, enum:NAME), and perhaps doc, optional
(default true), default, min, max. An enum has a name, values, and perhaps aliases {word: value}.
"""
import json
import re
import sys

KEY = re.compile(r'^[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*$')
NAME = re.compile(r'^[a-z][a-z0-9_]*$')
FIELDS = {'struct': {'name', 'doc', 'keys'}, 'enum': {'name', 'doc', 'values', 'aliases'},
          'key': {'key', 'type', 'qmp', 'doc', 'optional', 'default', 'min', 'max'}}
C_TYPES = {'str': 'char *', 'bool': 'bool ', 'int': 'int64_t ', 'uint': 'uint64_t ',
           'size': 'uint64_t '}
RANGES = {'int': ('INT64_MIN', 'INT64_MAX'), 'uint': ('0', 'UINT64_MAX'), 'size': ('0', 'INT64_MAX')}
HEAD = '/* SPDX-License-Identifier: MIT */\n/* Made by scripts/gen_schema.py from schema/; not edited. */\n'


def fail(where, what):
    sys.exit(f'gen_schema: {where}: {what}')


def ident(text):
    word = re.sub(r'[^A-Za-z0-9]', '_', text)
    return word + '_' if word == 'errno' else word  # a macro of C


def check_fields(where, kind, item):
    unknown = set(item) - FIELDS[kind]
    if unknown:
        fail(where, f'unknown {kind} field {sorted(unknown)[0]!r}')
    name = item.get('key' if kind == 'key' else 'name', '')
    if not (KEY if kind == 'key' else NAME).match(name):
        fail(where, f'bad {kind} name {name!r}')


def load(paths):
    structs, enums = {}, {}
    for path in paths:
        with open(path, encoding='utf-8') as f:
            doc = json.load(f)
        for kind, table in (('enum', enums), ('struct', structs)):
            for item in doc.pop(kind + 's', []):
                check_fields(path, kind, item)
                if item['name'] in table:
                    fail(path, f'{kind} {item["name"]!r} is there twice')
                table[item['name']] = item
        doc.pop('drivers', None)  # for gen_qmp.py
        if doc:
            fail(path, f'unknown field {sorted(doc)[0]!r}')
    for s in structs.values():
        seen = set()
        for k in s['keys']:
            check_fields(s['name'], 'key', k)
            kind, _, enum = k['type'].partition(':')
            if (kind == 'enum' and enum not in enums) or (kind != 'enum' and kind not in C_TYPES):
                fail(s['name'], f'unknown type {k["type"]!r}')
            if ident(k['key']) in seen:
                fail(s['name'], f'key {k["key"]!r} is there twice')
            seen.add(ident(k['key']))
    return structs, enums


def enum_const(enum, value):
    return f'OPTS_{ident(enum)}_{ident(value)}'.upper()


def literal(key, value):
    kind, _, enum = key['type'].partition(':')
    if kind == 'bool':
        return 'true' if value else 'false'
    if kind == 'enum':
        return enum_const(enum, value)
    return f'INT64_C({value})' if kind == 'int' else f'UINT64_C({value})'


def c_type(key):
    kind, _, enum = key['type'].partition(':')
    return f'enum opts_{enum} ' if kind == 'enum' else C_TYPES[kind]


def header(structs, enums):
    out = [HEAD, '#ifndef PLATTER_SCHEMA_OPTS_H\n#define PLATTER_SCHEMA_OPTS_H\n',
           '#include <stdbool.h>\n#include <stdint.h>\n', '#include <platter/error.h>',
           '#include <platter/options.h>\n', '#include "util/options.h"\n',
           '/* A key of a struct as people are told about it; a NULL key ends a table. */',
           'struct opts_key {\n    const char *key;\n    const char *type;\n    const char *doc;\n};\n']
    for e in enums.values():
        consts = ''.join(f'    {enum_const(e["name"], v)},\n' for v in e['values'])
        out.append(f'enum opts_{e["name"]} {{\n{consts}}};')
        out.append('/* Spellings, for block_options_take_enum. */')
        out.append(f'extern const struct block_options_enum opts_{e["name"]}_names[];')
        out.append(f'const char *opts_{e["name"]}_str(enum opts_{e["name"]} value);\n')
    for s in structs.values():
        out.append(f'/* {s.get("doc", s["name"])} */')
        out.append(f'struct opts_{s["name"]} {{')
        for k in s['keys']:
            doc = f' /* {k["doc"]} */' if k.get('doc') else ''
            out.append(f'    bool has_{ident(k["key"])};')
            out.append(f'    {c_type(k)}{ident(k["key"])};{doc}')
        out.append('};')
        out.append('/* Take the keys of this struct out of options; others stay. 0, or -errno with')
        out.append(' * errp (then *ret is empty). */')
        out.append(f'int opts_{s["name"]}_parse(BlockOptions *options, struct opts_{s["name"]} *ret,')
        out.append('    Error **errp);')
        out.append(f'void opts_{s["name"]}_fini(struct opts_{s["name"]} *opts);')
        out.append(f'extern const struct opts_key opts_{s["name"]}_keys[];\n')
    out.append('#endif\n')
    return '\n'.join(out)


def take_call(key):
    kind, _, enum = key['type'].partition(':')
    field = ident(key['key'])
    args = ''
    if kind in RANGES:
        low, high = RANGES[kind]
        low = literal(key, key['min']) if 'min' in key else low
        high = literal(key, key['max']) if 'max' in key else high
        args = f'{low}, {high}, '
    if kind == 'enum':
        return (f'block_options_take_enum(options, "{key["key"]}", opts_{enum}_names, '
                f'&word, errp)')
    return f'block_options_take_{kind}(options, "{key["key"]}", {args}&o.{field}, errp)'


def parse_key(key):
    field = ident(key['key'])
    out = [f'    rc = {take_call(key)};', '    if (rc < 0) {', '        goto fail;', '    }']
    if not key.get('optional', True):
        out += ['    if (rc == 0) {',
                f'        rc = error_set(errp, EINVAL, "option \'{key["key"]}\' is missing");',
                '        goto fail;', '    }']
    out.append(f'    o.has_{field} = rc > 0;')
    if key['type'].startswith('enum:'):
        out += ['    if (rc > 0) {', f'        o.{field} = ({c_type(key).strip()})word;', '    }']
    if 'default' in key:
        out += ['    if (rc == 0) {', f'        o.{field} = {literal(key, key["default"])};', '    }']
    return out


def key_table(s):
    out = [f'const struct opts_key opts_{s["name"]}_keys[] = {{']
    for k in sorted(s['keys'], key=lambda k: k['key']):
        kind = k['type'].partition(':')[0]
        shown = {'enum': 'str', 'bool': 'bool (on/off)', 'int': 'num', 'uint': 'num'}.get(kind, kind)
        out.append(f'    {{"{k["key"]}", "{shown}", {json.dumps(k.get("doc", ""))}}},')
    return out + ['    {0},', '};\n']


def struct_source(s):
    name = s['name']
    strings = [ident(k['key']) for k in s['keys'] if k['type'] == 'str']
    words = any(k['type'].startswith('enum:') for k in s['keys'])
    out = [f'int opts_{name}_parse(BlockOptions *options, struct opts_{name} *ret, Error **errp)', '{',
           f'    struct opts_{name} o = {{0}};', '    int rc = 0;']
    out += ['    int word = 0;'] if words else []
    out.append('')
    for k in s['keys']:
        out += parse_key(k)
    out += ['    *ret = o;', '    return 0;']
    if s['keys']:
        out += ['fail:', f'    opts_{name}_fini(&o);', f'    *ret = (struct opts_{name}){{0}};',
                '    return rc;']
    out += ['}\n', f'void opts_{name}_fini(struct opts_{name} *opts)', '{']
    out += [f'    free(opts->{f});' for f in strings]
    out += [f'    *opts = (struct opts_{name}){{0}};', '}\n']
    return out


def enum_source(e):
    name = e['name']
    words = [(v, v) for v in e['values']] + list(e.get('aliases', {}).items())
    for word, value in words:
        if value not in e['values']:
            fail(name, f'alias {word!r} of unknown value {value!r}')
    out = [f'const struct block_options_enum opts_{name}_names[] = {{']
    out += [f'    {{"{word}", {enum_const(name, value)}}},' for word, value in words]
    out += ['    {0},', '};\n', f'const char *opts_{name}_str(enum opts_{name} value)', '{',
            f'    return opts_{name}_names[value].name;', '}\n']
    return out


def source(structs, enums):
    out = [HEAD, '#include <errno.h>\n#include <stdlib.h>\n', '#include "schema/opts.h"',
           '#include "util/error.h"', '#include "util/options.h"\n']
    for e in enums.values():
        out += enum_source(e)
    for s in structs.values():
        out += key_table(s) + struct_source(s)
    return '\n'.join(out)


def main():
    if len(sys.argv) < 4:
        sys.exit(__doc__)
    structs, enums = load(sys.argv[3:])
    for path, text in ((sys.argv[1], header(structs, enums)), (sys.argv[2], source(structs, enums))):
        with open(path, 'w', encoding='utf-8') as f:
            f.write(text)


if __name__ == '__main__':
    main()
