#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Turn schema/*.json into what the control plane is made of: argument structs, the tables that
their parser and the introspection read, the table of commands, and a reference page.

usage: gen_qmp.py OUT_H OUT_C OUT_MD FILE.json...

The qmp_*.json files hold
  enums      {name, doc, values}
  structs    {name, doc, members: [row...]}, and for a flat union: on (the member that chooses),
             variants {value: type name}; parse: true where a command line is parsed into it
  alternates {name, doc, of: [type...]}
  commands   {name, doc, args: [row...] or a type name, returns: type, oob}
  events     {name, doc, data: [row...]}
A row is [key, type] or [key, type, doc]; a '?' behind the key makes it optional. Types are str,
bool, int, uint, uint32, size, number, null, any, a name of these files, or [type].

The other files tell what drivers take (gen_schema.py); their "drivers" rows (name, and perhaps the
structs node, create and amend, children, lists {key: struct or enum:NAME}) become the unions
BlockdevOptions, BlockdevCreateOptions and BlockdevAmendOptions, which the block layer parses itself.
"""
import json
import re
import sys

HEAD = '/* SPDX-License-Identifier: MIT */\n/* Made by scripts/gen_qmp.py from schema/; not edited. */\n'
BUILTIN = {'str': 'const char *', 'bool': 'bool ', 'int': 'int64_t ', 'uint': 'uint64_t ',
           'uint32': 'uint32_t ', 'size': 'uint64_t ', 'number': 'double ', 'null': 'json_t *',
           'any': 'json_t *'}
KIND = {'enum': 'QMP_KIND_ENUM', 'struct': 'QMP_KIND_STRUCT', 'options': 'QMP_KIND_OPTIONS',
        'alternate': 'QMP_KIND_ALTERNATE'}


# Types that are not parsed into structs, but whose tables are asked for.
OPTION_TYPES = ['BlockdevOptions', 'BlockdevCreateOptions', 'BlockdevAmendOptions']


def fail(where, what):
    sys.exit(f'gen_qmp: {where}: {what}')


def ident(text):
    name = re.sub(r'[^A-Za-z0-9]', '_', text)
    return name + '_' if name in ('unix', 'linux', 'default') else name  # words C has taken


def snake(name):
    """BlockdevRef -> blockdev_ref; a command's name -> block_resize."""
    return ident(re.sub(r'(?<=[a-z0-9])(?=[A-Z])', '_', name)).lower()


def quote(text):
    return json.dumps(text)


class Schema:
    def __init__(self):
        self.types = {}     # name -> {'kind', 'name', 'doc', ...}
        self.commands = []
        self.events = []
        self.drivers = []
        self.option_structs = {}
        self.option_enums = {}

    def add(self, kind, item):
        if item['name'] in self.types or item['name'] in BUILTIN:
            fail(item['name'], 'is there twice')
        self.types[item['name']] = dict(item, kind=kind)

    def load(self, path):
        with open(path, encoding='utf-8') as f:
            doc = json.load(f)
        if 'commands' in doc or 'events' in doc or 'alternates' in doc or \
                any('members' in s for s in doc.get('structs', [])):
            for kind in ('enum', 'struct', 'alternate'):
                for item in doc.get(kind + 's', []):
                    self.add(kind, item)
            self.commands += doc.get('commands', [])
            self.events += doc.get('events', [])
        else:
            self.option_structs.update({s['name']: s for s in doc.get('structs', [])})
            self.option_enums.update({e['name']: e for e in doc.get('enums', [])})
            self.drivers += doc.get('drivers', [])

    # ---- what drivers take ----

    def option_enum(self, name):
        camel = 'Option' + ''.join(w.capitalize() for w in name.split('_'))
        if camel not in self.types:
            e = self.option_enums[name]
            self.add('enum', {'name': camel, 'doc': e.get('doc', ''),
                              'values': e['values'] + list(e.get('aliases', {}))})
        return camel

    def option_kind(self, k):
        """The type by which QMP knows an option; "qmp" says so where clients know another."""
        kind, _, enum = k['type'].partition(':')
        if kind == 'enum':
            return self.option_enum(enum)
        if kind == 'uint' and k.get('max', 1 << 64) < 1 << 32:
            kind = 'uint32'
        return k.get('qmp', kind)

    def option_rows(self, name, keys):
        """Rows of flat keys; dotted ones become structs of their own."""
        rows, groups = [], {}
        for k in keys:
            first, dot, rest = k['key'].partition('.')
            if dot:
                groups.setdefault(first, []).append(dict(k, key=rest))
        for k in keys:
            if '.' in k['key']:
                continue
            kind = self.option_kind(k)
            if k['key'] in groups:  # both a value and a group: one or the other
                group = self.option_group(name, k['key'], groups.pop(k['key']))
                both = group + 'OrValue'
                self.add('alternate', {'name': both, 'doc': k.get('doc', ''), 'of': [kind, group]})
                kind = both
            rows.append([k['key'] + ('?' if k.get('optional', True) else ''), kind, k.get('doc', '')])
        for first, inner in groups.items():
            rows.append([first + '?', self.option_group(name, first, inner), ''])
        return rows

    def option_group(self, name, first, keys):
        camel = name + ''.join(w.capitalize() for w in re.split('[-_]', first))
        self.add('struct', {'name': camel, 'doc': '', 'members': self.option_rows(camel, keys)})
        return camel

    def list_row(self, name, key, of):
        """A member that is a list: of "enum:NAME", or of an option struct."""
        kind, _, enum = of.partition(':')
        if kind == 'enum':
            return [key + '?', f'[{self.option_enum(enum)}]', '']
        camel = name + ''.join(w.capitalize() for w in key.split('-'))
        self.add('struct', {'name': camel, 'doc': self.option_structs[of].get('doc', ''),
                            'members': self.option_rows(camel, self.option_structs[of]['keys'])})
        return [key + '?', f'[{camel}]', '']

    @staticmethod
    def spelled(keys):
        """Create options as QMP spells them; sizes are as unsigned as any number there."""
        return [dict(k, type='uint' if k['type'] == 'size' else k['type'], key=k['key'].replace('_', '-').replace('compat', 'version')) for k in keys]

    def driver_unions(self):
        if not self.drivers:
            return
        common = self.option_rows('BlockdevOptions', self.option_structs['node_common']['keys'])
        common = [['driver', 'BlockdevDriver', 'driver of the node']] + \
                 [r for r in common if r[0] != 'driver?']
        self.drivers.sort(key=lambda d: d['name'])
        self.add('enum', {'name': 'BlockdevDriver', 'doc': 'Drivers of this build.',
                          'values': [d['name'] for d in self.drivers]})
        create = {}
        amend = {}
        variants = {}
        for d in self.drivers:
            camel = ''.join(w.capitalize() for w in re.split('[-_]', d['name']))
            rows = [[c, 'BlockdevRefOrNull' if c == 'backing?' else 'BlockdevRef', 'node below']
                    for c in d.get('children', [])]
            if d.get('node'):
                rows += self.option_rows('BlockdevOptions' + camel, self.option_structs[d['node']]['keys'])
            rows += [self.list_row('BlockdevOptions' + camel, key, of)
                     for key, of in d.get('lists', {}).items()]
            self.add('struct', {'name': 'BlockdevOptions' + camel, 'doc': '', 'members': rows})
            variants[d['name']] = 'BlockdevOptions' + camel
            if d.get('amend'):
                keys = self.spelled(self.option_structs[d['amend']]['keys'])
                self.add('struct', {'name': 'BlockdevAmendOptions' + camel, 'doc': '',
                                    'members': self.option_rows('BlockdevAmendOptions' + camel, keys)})
                amend[d['name']] = 'BlockdevAmendOptions' + camel
            if d.get('create'):
                rows = [['file', 'BlockdevRef', 'node that holds the image']] if 'file' in d.get('children', []) \
                    else []
                rows += [['filename', 'str', 'the new file']] if not rows else []
                keys = self.spelled(self.option_structs[d['create']]['keys'])
                rows += self.option_rows('BlockdevCreateOptions' + camel, keys)
                self.add('struct', {'name': 'BlockdevCreateOptions' + camel, 'doc': '', 'members': rows})
                create[d['name']] = 'BlockdevCreateOptions' + camel
        self.add('options', {'name': 'BlockdevOptions', 'doc': 'A node and what is below it.',
                             'members': common, 'on': 'driver', 'variants': variants})
        self.add('options', {'name': 'BlockdevCreateOptions', 'doc': 'An image to create.',
                             'members': [['driver', 'BlockdevDriver', 'format or protocol']],
                             'on': 'driver', 'variants': create})
        self.add('options', {'name': 'BlockdevAmendOptions', 'doc': 'What is to change of an image.',
                             'members': [['driver', 'BlockdevDriver', 'format of the node']],
                             'on': 'driver', 'variants': amend})
        self.add('alternate', {'name': 'BlockdevRef', 'doc': 'A node by its name, or a new one.',
                               'of': ['BlockdevOptions', 'str']})
        self.add('alternate', {'name': 'BlockdevRefOrNull', 'doc': 'The same, or none.',
                               'of': ['BlockdevOptions', 'str', 'null']})

    # ---- order and use ----

    def arg_types(self):
        for c in self.commands:
            rows = c.get('args', [])
            if isinstance(rows, list):
                c['arg_type'] = 'q_' + c['name'] + '_arg' if rows else 'q_empty'
                if rows:
                    self.add('struct', {'name': c['arg_type'], 'doc': '', 'members': rows, 'args_of': c['name']})
            else:
                c['arg_type'] = rows
        for e in self.events:
            rows = e.get('data', [])
            e['arg_type'] = 'q_' + e['name'] + '_data' if rows else 'q_empty'
            if rows:
                self.add('struct', {'name': e['arg_type'], 'doc': '', 'members': rows})
        self.add('struct', {'name': 'q_empty', 'doc': 'Nothing.', 'members': []})

    def resolve(self, where, name):
        """(is a list, base name)"""
        is_list = name.startswith('[')
        base = name[1:-1] if is_list else name
        if base not in BUILTIN and base not in self.types:
            fail(where, f'unknown type {name!r}')
        return is_list, base

    def parsed_structs(self):
        """Names of the structs that arguments are parsed into, inner ones first."""
        order = []

        def visit(name):
            t = self.types.get(name)
            if not t or t['kind'] != 'struct' or name in order:
                return
            for row in t['members']:
                visit(self.resolve(name, row[1])[1])
            for v in t.get('variants', {}).values():
                visit(v)
            if name not in order:
                order.append(name)
        for c in self.commands:
            if c['arg_type'] != 'q_empty':
                visit(c['arg_type'])
        for t in list(self.types.values()):
            if t.get('parse'):
                visit(t['name'])
        return order


def is_empty(schema, row_type):
    t = schema.types.get(row_type)
    return t is not None and t['kind'] == 'struct' and not t['members'] and not t.get('variants')


def c_struct(name, schema):
    t = schema.types.get(name)
    return 'qmp_' + (snake(t['args_of']) if t and 'args_of' in t else snake(name))


def field_type(schema, where, name):
    is_list, base = schema.resolve(where, name)
    if is_list:
        return 'json_t *'
    if base in BUILTIN:
        return BUILTIN[base]
    kind = schema.types[base]['kind']
    if kind == 'enum':
        return f'enum qmp_{snake(base)} '
    return f'struct {c_struct(base, schema)} ' if kind == 'struct' else 'json_t *'


def enum_const(enum, value):
    return 'QMP_{}_{}'.format(snake(enum), re.sub('[^A-Za-z0-9]', '_', value)).upper()


def header(schema, parsed):
    out = [HEAD, '#ifndef PLATTER_SCHEMA_QMP_H\n#define PLATTER_SCHEMA_QMP_H\n',
           '#include <stdbool.h>\n#include <stdint.h>\n', '#include <jansson.h>\n', '#include "control/command.h"\n']
    used = set()
    for name in parsed:
        used.update(schema.resolve(name, r[1])[1] for r in schema.types[name]['members'])
    for t in schema.types.values():
        if t['kind'] == 'enum' and t['name'] in used:
            consts = ''.join(f'    {enum_const(t["name"], v)},\n' for v in t['values'])
            out.append(f'/* {t["doc"]} */\nenum qmp_{snake(t["name"])} {{\n{consts}}};\n')
    out.append('/* Strings and values are borrowed from the object they were parsed from. */')
    for name in parsed:
        t = schema.types[name]
        if is_empty(schema, name):
            continue
        out.append(f'struct {c_struct(name, schema)} {{')
        for row in t['members']:
            key = ident(row[0].rstrip('?'))
            if row[0].endswith('?'):
                out.append(f'    bool has_{key};')
            doc = f' /* {row[2]} */' if len(row) > 2 and row[2] else ''
            if is_empty(schema, row[1]):
                continue
            out.append(f'    {field_type(schema, name, row[1])}{key};{doc}')
        if t.get('variants'):
            out.append('    union {')
            for value, v in t['variants'].items():
                if not is_empty(schema, v):
                    out.append(f'        {field_type(schema, name, v)}{ident(value)};')
            out.append('    } u;')
        out.append('};\n')
    for name in parsed:
        if not name.startswith('q_'):
            out.append(f'extern const struct qmp_type *const qmp_{snake(name)}_type;')
    for name in OPTION_TYPES:
        if name in schema.types:
            out.append(f'extern const struct qmp_type *const qmp_{snake(name)}_type;')
    out.append('')
    out.append('/* The commands: what src/control/cmd_*.c implement. */')
    for c in schema.commands:
        out.append(f'int qmp_{snake(c["name"])}({signature(schema, c)});')
    out.append('\n#endif\n')
    return '\n'.join(out)


def signature(schema, c):
    if c['arg_type'] == 'q_empty':
        args = ''
    elif schema.types[c['arg_type']]['kind'] == 'struct':
        args = f'const struct {c_struct(c["arg_type"], schema)} *args, '
    else:
        args = 'json_t *args, '
    ret = 'json_t **ret_value, ' if 'returns' in c else ''
    return f'struct qmp_call *call, {args}{ret}Error **errp'


def ref_name(base):
    return f'&qmp_builtin_{base}' if base in BUILTIN else f'&type_{snake(base)}'


def type_tables(schema, parsed):
    out = []
    for t in schema.types.values():
        out.append(f'static const struct qmp_type type_{snake(t["name"])};')
    out.append('')
    for t in schema.types.values():
        out += type_table(schema, t, parsed)
    return out


def type_table(schema, t, parsed):
    name, low, out = t['name'], snake(t['name']), []
    fields = [f'    .name = {quote(name)},', f'    .kind = {KIND[t["kind"]]},']
    in_c = name in parsed and not is_empty(schema, name)
    struct = f'struct {c_struct(name, schema)}'
    if t['kind'] == 'enum':
        words = ''.join(f'    {quote(v)},\n' for v in t['values'])
        out.append(f'static const char *const words_{low}[] = {{\n{words}    NULL,\n}};')
        fields.append(f'    .words = words_{low},')
    if t['kind'] == 'alternate':
        rows = ''.join(f'    {{.type = {ref_name(schema.resolve(name, b)[1])}}},\n' for b in t['of'])
        out.append(f'static const struct qmp_member members_{low}[] = {{\n{rows}    {{0}},\n}};')
        fields.append(f'    .members = members_{low},')
    if t['kind'] in ('struct', 'options'):
        rows = []
        for row in t['members']:
            key, optional = row[0].rstrip('?'), row[0].endswith('?')
            is_list, base = schema.resolve(name, row[1])
            parts = [f'.key = {quote(key)}', f'.type = {ref_name(base)}']
            parts += ['.is_list = true'] if is_list else []
            parts += ['.optional = true'] if optional else []
            if in_c and not is_empty(schema, row[1]):
                parts.append(f'.at = offsetof({struct}, {ident(key)})')
                parts += [f'.has_at = offsetof({struct}, has_{ident(key)})'] if optional else []
            rows.append('    {' + ', '.join(parts) + '},\n')
        out.append(f'static const struct qmp_member members_{low}[] = {{\n{"".join(rows)}    {{0}},\n}};')
        fields.append(f'    .members = members_{low},')
        if t.get('variants'):
            rows = [f'    {{.value = {quote(value)}, .type = {ref_name(v)}}},\n'
                    for value, v in t['variants'].items()]
            out.append(f'static const struct qmp_variant variants_{low}[] = {{\n{"".join(rows)}    {{0}},\n}};')
            fields += [f'    .tag = {quote(t["on"])},', f'    .variants = variants_{low},']
            if in_c:
                fields.append(f'    .variants_at = offsetof({struct}, u),')
        if in_c:
            fields.append(f'    .bytes = sizeof({struct}),')
    out.append(f'static const struct qmp_type type_{low} = {{')
    return out + fields + ['};\n']


def command_source(schema, c):
    name = snake(c['name'])
    unused = [] if 'returns' in c else ['    (void)ret_value;']
    ret = 'ret_value, ' if 'returns' in c else ''
    out = [f'static int run_{name}(struct qmp_call *call, json_t *arguments, json_t **ret_value, Error **errp)', '{']
    t = schema.types[c['arg_type']]
    if t['kind'] == 'struct' and not is_empty(schema, t['name']):
        out += [f'    struct {c_struct(c["arg_type"], schema)} args;',
                f'    int rc = qmp_parse({ref_name(c["arg_type"])}, arguments, &args, errp);\n'] + unused
        out += [f'    return rc < 0 ? rc : qmp_{name}(call, &args, {ret}errp);']
    else:
        args = 'arguments, ' if t['kind'] == 'options' else ''
        out += [f'    int rc = qmp_check({ref_name(c["arg_type"])}, arguments, errp);\n'] + unused
        out += [f'    return rc < 0 ? rc : qmp_{name}(call, {args}{ret}errp);']
    return out + ['}\n']


def source(schema, parsed):
    out = [HEAD, '#include <stddef.h>\n', '#include "schema/qmp.h"', '#include "control/qmp_type.h"\n']
    out += type_tables(schema, parsed)
    commands = sorted(schema.commands, key=lambda c: c['name'])
    for c in commands:
        out += command_source(schema, c)
    for name in parsed + OPTION_TYPES:
        if not name.startswith('q_') and name in schema.types:
            out.append(f'const struct qmp_type *const qmp_{snake(name)}_type = {ref_name(name)};')
    out.append('\nconst struct qmp_command qmp_commands[] = {')
    for c in commands:
        is_list, base = schema.resolve(c['name'], c.get('returns', 'q_empty'))
        flags = 'QMP_ALLOW_OOB' if c.get('oob') else '0'
        out.append(f'    {{{quote(c["name"])}, {flags}, run_{snake(c["name"])}, {ref_name(c["arg_type"])}, '
                   f'{ref_name(base)}, {"true" if is_list else "false"}}},')
    out += ['    {0},', '};', f'const size_t qmp_command_count = {len(commands)};\n',
            'const struct qmp_event_type qmp_event_types[] = {']
    for e in sorted(schema.events, key=lambda e: e['name']):
        out.append(f'    {{{quote(e["name"])}, {ref_name(e["arg_type"])}}},')
    return '\n'.join(out + ['    {0},', '};', ''])


# ---- the reference page ----

def page_rows(schema, rows, level=0):
    out = []
    for row in rows:
        optional = ' (optional)' if row[0].endswith('?') else ''
        doc = f': {row[2]}' if len(row) > 2 and row[2] else ''
        out.append(f'{"  " * level}- `{row[0].rstrip("?")}` {page_type(schema, row[1])}{optional}{doc}')
    return out


def page_type(schema, name):
    is_list, base = schema.resolve('', name)
    shown = base if base in BUILTIN else f'[{base}](#{base.lower()})'
    return f'list of {shown}' if is_list else shown


def page(schema):
    out = ['# Commands and events of the control plane', '',
           'Made from `schema/`; every command, event and type, with what each member is.', '', '## Commands', '']
    for c in sorted(schema.commands, key=lambda c: c['name']):
        out += [f'### {c["name"]}', '', c['doc'] + ('\n\nAllowed out of band.' if c.get('oob') else ''), '']
        rows = c.get('args', [])
        out += page_rows(schema, rows) if isinstance(rows, list) else [f'Arguments: {page_type(schema, rows)}']
        out += ['', f'Returns {page_type(schema, c["returns"])}', ''] if 'returns' in c else ['']
    out += ['## Events', '']
    for e in sorted(schema.events, key=lambda e: e['name']):
        out += [f'### {e["name"]}', '', e['doc'], ''] + page_rows(schema, e.get('data', [])) + ['']
    out += ['## Types', '']
    for name, t in sorted(schema.types.items()):
        if name.startswith('q_'):
            continue
        out += [f'### {name}', '', t['doc'], '']
        if t['kind'] == 'enum':
            out += [', '.join(f'`{v}`' for v in t['values']), '']
        elif t['kind'] == 'alternate':
            out += ['One of ' + ', '.join(page_type(schema, b) for b in t['of']), '']
        else:
            out += page_rows(schema, t['members'])
            for value, v in t.get('variants', {}).items():
                if schema.types[v].get('members'):
                    out.append(f'- when `{t["on"]}` is `{value}`: members of {page_type(schema, v)}')
            out.append('')
    return '\n'.join(out)


def main():
    if len(sys.argv) < 5:
        sys.exit(__doc__)
    schema = Schema()
    for path in sys.argv[4:]:
        schema.load(path)
    schema.driver_unions()
    schema.arg_types()
    parsed = schema.parsed_structs()
    for path, text in ((sys.argv[1], header(schema, parsed)), (sys.argv[2], source(schema, parsed)),
                       (sys.argv[3], page(schema))):
        with open(path, 'w', encoding='utf-8') as f:
            f.write(text)


if __name__ == '__main__':
    main()
