# SPDX-License-Identifier: MIT
"""Command lines of qemu-img that differ on purpose beside those of img_table.py, by reason."""

OVERLAY = 'driver=qcow2,file.filename=overlay.qcow2'
COPYING = 'driver=copy-on-read,file.driver=qcow2,file.file.filename=overlay.qcow2'
LIMITED = 'driver=throttle,throttle-group=g,file.driver=qcow2,file.file.filename=overlay.qcow2'
GROUP = '--object throttle-group,id=g --image-opts'
FAULTY = 'driver=blkdebug,image.driver=qcow2,image.file.filename=overlay.qcow2'
INSIDE = 'driver=raw,file.driver=qcow2,file.file.filename=overlay.qcow2'
PLAIN = '"file.filename":"plain.raw"'

BY_REASON = {
    'that nobody writes without locks is told before a node is looked for': [
        f'snapshot --image-opts {action} -U base.qcow2' for action in ('-c x', '-d x', '-a first')],
    'options of a backing file are no fault where it is not looked at': [
        *(f'info --image-opts {OVERLAY},backing{more}' for more in ('=x', '.driver=raw', '.nosuch=1', '.file.nosuch=1')),
        f'bitmap --add --image-opts {OVERLAY},backing=x b', f'bitmap --add --image-opts {OVERLAY},backing.nosuch=1 b',
        f'check --image-opts {OVERLAY},backing=x', f'check --image-opts {OVERLAY},backing.nosuch=1',
        f'snapshot -c s --image-opts {OVERLAY},backing=x', f'snapshot -c s --image-opts {OVERLAY},backing.nosuch=1'],
    'an empty name of a backing file is none, which needs no warning': [
        *(f'{command} --image-opts {OVERLAY},backing=' for command in ('info', 'map', 'check', 'commit')),
        'info json:{"driver":"qcow2","backing":"","file.filename":"overlay.qcow2"}'],
    'raw has no backing file to be left out': ['info --image-opts driver=raw,file.filename=plain.raw,backing='],
    'a disk that is not to be written is read through a filter that would copy': [
        *(f'{command} --image-opts {COPYING}' for command in ('info', 'map', 'check', 'measure -O raw', 'snapshot -l')),
        f'compare --image-opts {COPYING} {OVERLAY}', f'convert --image-opts {COPYING} new.raw'],
    'nobody else changes an image below a filter that copies': [
        f'commit --image-opts {COPYING}', f'check -r all --image-opts {COPYING}', f'snapshot -a x --image-opts {COPYING}'],
    'a check goes through filters': [f'check {GROUP} {LIMITED}', f'check -r all {GROUP} {LIMITED}', f'check --image-opts {FAULTY}'],
    'the chain goes on below a filter': [f'info --backing-chain {GROUP} {LIMITED}', f'info --backing-chain --image-opts {FAULTY}'],
    'a name is beside the file that is below, whatever is between': [
        f'rebase -b plain.raw -F raw {GROUP} {LIMITED}', f'rebase -b plain.raw -F raw --image-opts {FAULTY}'],
    'raw shows all of what is in the format below, which is not its own': [
        f'map --image-opts {INSIDE}', f'map --output=json --image-opts {INSIDE}', f'snapshot -c x --image-opts {INSIDE}',
        f'snapshot -a x --image-opts {INSIDE}'],
    'a size that is none is an error of the disk, and ends no program by a signal': [
        f'info {disk}' for value in ('"x"', '-1', '1.5', '"18446744073709551616"') for disk in (
            f'json:{{"driver":"null-co","size":{value}}}', f'json:{{"driver":"raw","file":{{"driver":"null-co","size":{value}}}}}')],
    'a size beyond 2^63 is refused': ['info --image-opts driver=null-co,size=8E', 'info --image-opts driver=null-co,size=9E'],
    'the order of rules comes of how often the reference copies its options': [
        'info json:{"driver":"raw","file":{"driver":"blkdebug","inject-error.1.event":"none","inject-error.0.event":"none",'
        '"image.filename":"plain.raw"}}',
        'info --image-opts driver=blkdebug,image.filename=plain.raw,inject-error.0.event=none,inject-error.1.event=none'],
    'a value of the wrong type is told as that, and none is passed over': [
        'info json:{"driver":"raw","file":1}', 'info json:{"driver":"raw","file":true}',
        *(f'info json:{{"driver":{value},{PLAIN}}}' for value in ('1', 'true', 'null')),
        *(f'info json:{{"driver":"raw","{key}":{value},{PLAIN}}}'
          for key, value in (('offset', 'null'), ('offset', '1e3'), ('offset', '99999999999999999999'), ('read-only', 'null'),
                             ('node-name', '1'), ('node-name', 'null'), ('discard', '1'), ('discard', 'true'),
                             ('detect-zeroes', '1'))),
        'info json:{"driver":"qcow2","overlap-check":1,"file.filename":"base.qcow2"}',
        'info json:{"driver":"qcow2","overlap-check":{"template":1},"file.filename":"base.qcow2"}',
        'info json:{"driver":"qcow2","backing":1,"file.filename":"overlay.qcow2"}',
        *(f'info json:{{"driver":"raw","file":{{"driver":"file","filename":"plain.raw","{key}":{value}}}}}'
          for key, value in (('locking', '1'), ('aio', '1'), ('aio', 'null')))],
    'an object or a list without members is no option': [
        *(f'info json:{{"driver":"raw","file":{value}}}' for value in ('[]', '{}')),
        *(f'info json:{{"driver":"qcow2","backing":{value},"file.filename":"overlay.qcow2"}}' for value in ('[]', '{}')),
        *(f'info json:{{"driver":"raw","x":{value},{PLAIN}}}' for value in ('[]', '{}'))],
    'one option with two values is refused, whichever way they are spelled': [
        f'info json:{{"driver":"raw","file":{{"driver":"file","filename":"plain.raw"}},"file.driver":"{driver}"}}'
        for driver in ('file', 'null-co')] + [
        f'info json:{{"driver":"raw","file.driver":"{driver}","file":{{"driver":"file","filename":"plain.raw"}}}}'
        for driver in ('file', 'null-co')] + [
        f'info json:{{"driver":"raw","file":"x","file.driver":"file",{PLAIN}}}',
        'info json:{"driver":"blkdebug","image.filename":"plain.raw","inject-error":[{"event":"none"}],'
        '"inject-error.0.event":"none"}'],
    'ours says which rule it is': [
        f'info json:{{"driver":"blkdebug","image.filename":"plain.raw","inject-error":{value}}}' for value in ('[1]', '[[1]]', '[null]')],
    'what is no name of an option is told as that': [
        *(f'info json:{{"driver":"raw","{key}":1,{PLAIN}}}' for key in ('', '.x', 'file.')),
        'info json:{"driver":"raw","file":{"":1,"filename":"plain.raw"}}'],
    'ours says at which byte': ['info json:', f'info json:{{"driver":"raw","driver":"qcow2",{PLAIN}}}', f'info json:{{"driver":"raw",{PLAIN}}}x'],
    'the last -l counts': ['convert -l snapshot.id=1 -l x base.qcow2 new.raw', 'measure -l snapshot.id=1 -l x base.qcow2'],
    'a bitmap that does not fit is told before a table that cannot be made': ['resize marked.qcow2 1E', 'amend -o size=1E marked.qcow2'],
}
DIFFERS = {line: reason for reason, lines in BY_REASON.items() for line in lines}
