# SPDX-License-Identifier: MIT
"""The link named qemu-img beside the installed qemu-img: one table of command lines, each run once
by either in its own folder of equal images; what they print, the exit code and what the images hold
must be the same."""
import hashlib
import os
import re
import shutil
import struct

import pytest

from img_lines import patch
from tools_common import called, needs, run

pytestmark = needs('qcow2')
PROGRAM = 'qemu-img'

# Every line starts from the same images: see the fixture.
LINES = [
    '',
    'nosuchcommand',
    '--nosuchoption',
    'info',
    'info base.qcow2 plain.raw',
    'info missing.img',
    'info -Z base.qcow2',
    'info --nosuchoption base.qcow2',
    'info -f',
    'info base.qcow2',
    'info overlay.qcow2',
    'info plain.raw',
    'info -f raw plain.raw',
    'info -f qcow2 plain.raw',
    'info -f nosuchformat plain.raw',
    'info --backing-chain overlay.qcow2',
    'info --output=json base.qcow2',
    'info --output=json overlay.qcow2',
    'info --output=json plain.raw',
    'info --output=json --backing-chain overlay.qcow2',
    'info -U base.qcow2',
    'info --out=json --forc base.qcow2',
    'info --ba overlay.qcow2',
    'info --output=bogus base.qcow2',
    'info --image-opts=3 base.qcow2',
    'map --st=64k --m 64k base.qcow2',
    'check --form=qcow2 --out human base.qcow2',
    'check',
    'check base.qcow2 plain.raw',
    'check base.qcow2',
    'check overlay.qcow2',
    'check -q base.qcow2',
    'check missing.img',
    'check --output=json base.qcow2',
    'check -f raw plain.raw',
    'map',
    'map base.qcow2',
    'map overlay.qcow2',
    'map -f raw plain.raw',
    'map --output=json base.qcow2',
    'map --output=json overlay.qcow2',
    'map --output=json -f raw plain.raw',
    'map missing.img',
    'compare',
    'compare base.qcow2',
    'compare base.qcow2 base.qcow2',
    'compare base.qcow2 plain.raw',
    'compare plain.raw plain.raw',
    'compare overlay.qcow2 base.qcow2',
    'compare -s base.qcow2 plain.raw',
    'compare -q base.qcow2 plain.raw',
    'compare missing.img plain.raw',
    'compare -Z',
    'measure -O raw base.qcow2',
    'measure -O qcow2 base.qcow2',
    'measure -O qcow2 --size 1G',
    'measure -O file --size 1M',
    'measure -O nbd --size 1M',
    'measure -O null-co --size 1M',
    'measure --output=json -O qcow2 base.qcow2',
    'measure --output=json -O raw plain.raw',
    'create',
    'create new.raw',
    'create -f qcow2 new.qcow2',
    'create -f qcow2 new.qcow2 1M',
    'create -q -f qcow2 new.qcow2 1M',
    'create -f qcow2 -o cluster_size=4k new.qcow2 1M',
    'create -f qcow2 -o compat=0.10 new.qcow2 1M',
    'create -f qcow2 -b base.qcow2 -F qcow2 new.qcow2',
    'create -f qcow2 -o preallocation=metadata new.qcow2 1M',
    'create -f raw new.raw 1M',
    'create new.raw 1M',
    'create -f nosuchformat new.raw 1M',
    'create -f qcow2 -o help',
    'create -f qcow2 -o help new.qcow2',
    'create -f qcow2 -o ? new.qcow2',
    'create -f qcow2 -o size=1,help',
    'create -f raw -o help',
    'create -f raw -o help new.raw',
    'create -o help',
    'create -f null-co -o help',
    'create -f nosuch -o help',
    'amend -f qcow2 -o help',
    'amend -o help base.qcow2',
    'amend -f raw -o help',
    'amend -o encrypt.state=active base.qcow2',
    'amend -o encrypt.format=luks base.qcow2',
    'amend -o encryption=on base.qcow2',
    'amend -o cluster_size=4k base.qcow2',
    'convert -O qcow2 -o help',
    'convert -O qcow2 -o help base.qcow2 new.qcow2',
    'convert -O raw -o help',
    'convert -O raw -o help base.qcow2 new.raw',
    'convert -O null-co -o help',
    'measure -O qcow2 -o help',
    'create -f qcow2 -o encrypt.format=luks new.qcow2 1M',
    'measure -O qcow2 -o encryption=on --size 1M',
    'resize',
    'resize base.qcow2',
    'resize base.qcow2 2M',
    'resize base.qcow2 +1M',
    'resize plain.raw 2M',
    'resize -f raw plain.raw 2M',
    'resize -q -f raw plain.raw +64k',
    'resize -f raw --shrink plain.raw 512k',
    'resize missing.img 2M',
    'snapshot',
    'snapshot -l',
    'snapshot -l base.qcow2',
    'snapshot -l overlay.qcow2',
    'snapshot -c new base.qcow2',
    'snapshot -a first base.qcow2',
    'snapshot -d first base.qcow2',
    'bitmap --add base.qcow2 b0',
    'bitmap base.qcow2 b0 more',
    'bitmap --add base.qcow2 b0 more',
    'bitmap --remove -g 64k base.qcow2 b0 more',
    'bitmap --add base.qcow2 b0 more -x',
    'create new.raw 1M more again',
    'create new.raw 16E more',
    'create new.raw 1M more -x',
    'create -f nosuch new.raw 1M more',
    'amend -f qcow2 -o lazy_refcounts=on base.qcow2',
    'amend -o size=1KB,extended_l2=on base.qcow2',
    'amend -o extended_l2=on,size=1KB base.qcow2',
    'amend -o lazy_refcounts=on,cluster_size=4k base.qcow2',
    'amend -o backing_file=x,data_file=new.bin base.qcow2',
    'amend -o refcount_bits=3,data_file_raw=on base.qcow2',
    'amend -o refcount_bits=8,compat=v2,lazy_refcounts=on base.qcow2',
    'amend base.qcow2 plain.raw',
    'amend -f qcow2 -o help base.qcow2 plain.raw',
    'amend -o size=2M file:plain.raw',
    'resize json:{"file.filename":"plain.raw"} 2M',
    'rebase -u -b plain.raw -F raw overlay.qcow2',
    'rebase -b "" overlay.qcow2',
    'amend',
    'bench',
    'bitmap',
    'measure',
    'rebase',
    'commit',
    'commit overlay.qcow2',
    'commit -q overlay.qcow2',
    'commit missing.img',
    'convert',
    'convert plain.raw',
    'convert plain.raw new.raw',
    'convert -O qcow2 plain.raw new.qcow2',
    'convert -O raw base.qcow2 new.raw',
    'convert -p -O qcow2 base.qcow2 new.qcow2',
    'convert -p -q -O qcow2 base.qcow2 new.qcow2',
    'convert -c -O qcow2 base.qcow2 new.qcow2',
    'convert -c -O raw base.qcow2 new.raw',
    'convert -c -O qcow2 -o preallocation=metadata base.qcow2 new.qcow2',
    'convert -f raw -O nosuch plain.raw new.raw',
    'convert -O raw missing new.raw',
    'convert -O nosuch missing new.raw',
    'convert -O qcow2 base.qcow2 /nonexistent/new.qcow2',
    'convert -O qcow2 base.qcow2 .',
    'convert -O help base.qcow2 new.raw',
    'convert -O qcow2 -o nosuch=1 base.qcow2 new.qcow2',
    'convert -O qcow2 -o cluster_size=3 base.qcow2 new.qcow2',
    'convert -n -O qcow2 base.qcow2 missing.qcow2',
    'convert -n -O qcow2 -o compat=1.1 base.qcow2 overlay.qcow2',
    'convert -n -O qcow2 base.qcow2 overlay.qcow2',
    'convert -n -o help base.qcow2 new.raw',
    'convert -n -c base.qcow2 plain.raw',
    'convert -m 0 base.qcow2 new.raw',
    'convert -m 17 base.qcow2 new.raw',
    'convert -m x base.qcow2 new.raw',
    'convert -m 16 -W base.qcow2 new.raw',
    'convert -S x base.qcow2 new.raw',
    'convert -S 1000 base.qcow2 new.raw',
    'convert -S 32M base.qcow2 new.raw',
    'convert -S -1 base.qcow2 new.raw',
    'convert -S 0 base.qcow2 new.raw',
    'convert -r x base.qcow2 new.raw',
    'convert -r 1G base.qcow2 new.raw',
    'convert -t foo base.qcow2 new.raw',
    'convert -T foo base.qcow2 new.raw',
    'convert -t foo -T bar base.qcow2 new.raw',
    'convert -l first missing plain.raw new.raw',
    'convert -l nosuch base.qcow2 plain.raw new.raw',
    'convert --bitmaps missing plain.raw new.raw',
    'convert -n --bitmaps -O nosuch plain.raw overlay.qcow2',
    'convert -n --bitmaps -t foo plain.raw overlay.qcow2',
    'convert -n --bitmaps -O raw base.qcow2 plain.raw',
    'convert -l snapshot.name=first -O raw base.qcow2 new.raw',
    'convert --skip-broken-bitmaps --target-image-opts plain.raw new.raw',
    'convert --skip-broken-bitmaps -n -o size=3 plain.raw new.raw',
    'convert --skip-broken-bitmaps --salvage -C plain.raw new.raw',
    'convert -l snapshot.nosuch=first -O raw base.qcow2 new.raw',
    'convert --bitmaps -O raw plain.raw new.raw',
    'convert -c -O raw -o compression_type= plain.raw new.raw',
    'convert -O raw -o backing_file=base.qcow2 plain.raw new.raw',
    'convert -O raw -F raw plain.raw new.raw',
    'convert -n -O raw --target-image-opts missing driver=raw',
    'convert -n -O raw -t foo --target-image-opts plain.raw driver=raw',
    'rebase -u -T foo overlay.qcow2',
    'rebase --image-opts -f raw -u -T foo driver=qcow2',
    'rebase -b missing -F nosuch missing',
    'rebase -b "" -F nosuch overlay.qcow2',
    'compare --image-opts -F raw driver=nosuch driver=raw',
    'compare --image-opts -F raw driver=null-co driver=raw',
    'commit plain.raw',
    'commit --image-opts file.filename=plain.raw',
    'commit .',
    'bench -w --flush-interval 2 plain.raw',
    'bench -n -i threads -c 1 plain.raw',
    'bench -i threads -n -c 1 plain.raw',
    'bench -i foo -c 99999999999 plain.raw',
    'dd skip=9999 if=plain.raw of=/nonexistent/new.raw',
    'convert -t foo missing new.raw',
    'convert -T foo missing new.raw',
    'convert -O nosuch -t foo base.qcow2 new.raw',
    'convert -C base.qcow2 new.raw',
    'convert -C -S 4k base.qcow2 new.raw',
    'convert -C -c -O qcow2 base.qcow2 new.raw',
    'convert --salvage -C base.qcow2 new.raw',
    'convert --salvage base.qcow2 new.raw',
    'convert --target-is-zero base.qcow2 new.raw',
    'convert --target-image-opts base.qcow2 driver=raw,file.filename=new.raw',
    'convert --target-image-opts -O qcow2 -n base.qcow2 driver=qcow2,file.filename=overlay.qcow2',
    'convert --target-image-opts -n base.qcow2 driver=qcow2,file.filename=overlay.qcow2',
    'convert --target-image-opts -n -c base.qcow2 driver=raw,file.filename=plain.raw',
    'convert --image-opts -f qcow2 driver=qcow2,file.filename=base.qcow2 new.raw',
    'convert --image-opts driver=qcow2,file.filename=base.qcow2 new.raw',
    'convert -l first base.qcow2 new.raw',
    'convert -l snapshot.name=first base.qcow2 new.raw',
    'convert -l snapshot.id=1,snapshot.name=first base.qcow2 new.raw',
    'convert -l snapshot.id=2,snapshot.name=first base.qcow2 new.raw',
    'convert -l nosuch base.qcow2 new.raw',
    'convert -l snapshot.foo=x base.qcow2 new.raw',
    'convert -l first base.qcow2 plain.raw new.raw',
    'convert -B base.qcow2 overlay.qcow2 new.raw',
    'convert -B base.qcow2 -O qcow2 overlay.qcow2 new.qcow2',
    'convert -B base.qcow2 -F qcow2 -O qcow2 overlay.qcow2 new.qcow2',
    'convert -B base.qcow2 -F qcow2 -O qcow2 base.qcow2 overlay.qcow2 new.qcow2',
    'convert -F qcow2 -O qcow2 overlay.qcow2 new.qcow2',
    'convert -o backing_file=base.qcow2 -O qcow2 overlay.qcow2 new.qcow2',
    'convert -o backing_file=base.qcow2,backing_fmt=qcow2 -O qcow2 overlay.qcow2 new.qcow2',
    'convert --bitmaps -O raw base.qcow2 new.raw',
    'convert --bitmaps -O qcow2 base.qcow2 new.qcow2',
    'convert --bitmaps -O qcow2 plain.raw new.qcow2',
    'convert --bitmaps -O qcow2 base.qcow2 overlay.qcow2 new.qcow2',
    'convert -n -B base.qcow2 base.qcow2 overlay.qcow2 plain.raw',
    'convert --bitmaps -c -O raw base.qcow2 overlay.qcow2 new.raw',
    'convert --skip-broken-bitmaps -O qcow2 base.qcow2 new.qcow2',
    'convert -O qcow2 base.qcow2 plain.raw new.qcow2',
    'convert --object secret,id=s,data=x base.qcow2 new.raw',
    'convert --object foo base.qcow2 new.raw',
    'convert --object secret base.qcow2 new.raw',
    'convert --object secret,id=s,data=x,foo=1 base.qcow2 new.raw',
    'convert -z base.qcow2 new.raw',
    'convert --nosuch base.qcow2 new.raw',
    'dd',
    'dd if=plain.raw',
    'dd of=new.raw',
    'dd if=plain.raw of=new.raw',
    'dd -f raw if=plain.raw of=new.raw bs=1000 count=3',
    'dd -f raw if=plain.raw of=new.raw bs=0',
    'dd -f raw if=plain.raw of=new.raw bs=x',
    'dd -f raw if=plain.raw of=new.raw bs=3G',
    'dd -f raw if=plain.raw of=new.raw bs=2147483647 count=1',
    'dd -f raw if=plain.raw of=new.raw count=x',
    'dd -f raw if=plain.raw of=new.raw count=-1',
    'dd -f raw if=plain.raw of=new.raw skip=-1',
    'dd -f raw if=plain.raw of=new.raw skip=2048',
    'dd -f raw if=plain.raw of=new.raw skip=2049',
    'dd -f raw if=plain.raw of=new.raw skip=2047 count=3',
    'dd -f raw if=plain.raw of=new.raw count=0',
    'dd -f raw if=plain.raw of=new.raw foo=1',
    'dd -f raw if=plain.raw of=new.raw foo',
    'dd -O nosuch if=plain.raw of=new.raw',
    'dd if=missing of=new.raw',
    'dd if=base.qcow2 of=/nonexistent/new.raw',
    'dd --image-opts if=driver=qcow2,file.filename=base.qcow2 of=new.raw',
    'dd --image-opts -f raw if=driver=qcow2,file.filename=base.qcow2 of=new.raw',
    'dd -U if=base.qcow2 of=new.raw count=4 bs=64k',
    'dd --object secret,id=s,data=x if=base.qcow2 of=new.raw',
    'dd -x if=base.qcow2 of=new.raw',
    'dd -O qcow2 if=base.qcow2 of=new.qcow2 bs=100k count=3',
    'info /dev/null',
    'info --output=json /dev/zero',
    'info -f host_device /dev/full',
    'info -f host_device plain.raw',
    'info -f file /dev/null',
    'check -f raw /dev/null',
    'map --output=json -f raw /dev/null',
    'compare -f raw -F raw /dev/null plain.raw',
    'resize -f raw /dev/null 1M',
    'create -q -f qcow2 -b /dev/null -F raw new.qcow2',
    'convert -f raw -O qcow2 /dev/null new.qcow2',
    'convert -n -f raw -O raw plain.raw /dev/null',
    'dd if=/dev/zero of=new.raw bs=1k count=1',
    'dd if=plain.raw of=new.raw bs=512. count=0x1k skip=1.0',
    'dd if=plain.raw of=new.raw bs=0x1M count=0x1kk',
    'dd if=plain.raw of=new.raw bs=0x10P',
    'create new.raw 0x100k',
    'bench -w -d 4 --flush-interval=2 -f raw plain.raw',
    'bench --flush-interval=2 -f raw plain.raw',
    'snapshot -a none beside.qcow2',
    'snapshot -a none marked.qcow2',
    'snapshot -c x file:plain.raw',
    'snapshot -c x json:{"file.filename":"plain.raw"}',
    'create -f qcow2 -o data_file_raw=true -F raw new.qcow2 1M',
    'create -f qcow2 -o data_file=x -F raw new.qcow2 1M',
    'create -f qcow2 -o refcount_bits=3 -F raw new.qcow2 1M',
    'create -f qcow2 -o refcount_bits=3,preallocation=full -b base.qcow2 -F qcow2 new.qcow2 1M',
    'create -f qcow2 -o refcount_bits=3,cluster_size=4k,extended_l2=on new.qcow2 1M',
    'create -f qcow2 -o data_file_raw=on,compat=0.10,compression_type=zstd new.qcow2 1M',
    'create -f qcow2 -o compression_type=x,preallocation=x new.qcow2 1M',
    'create -f qcow2 -o preallocation=x,backing_fmt=x new.qcow2 1M',
    'create -f qcow2 -o data_file= new.qcow2 1M',
    'create -f qcow2 -o data_file=nowhere/x new.qcow2 1M',
    'create -f qcow2 -o data_file=x nowhere/new.qcow2 1M',
    'create -f qcow2 -u -b base.qcow2 new.qcow2',
    'measure -o size=-1 --size=65537',
    'measure -O qcow2 -o size=x --size=65537',
    'measure -O raw -o size=3T base.qcow2',
    'measure -O raw -o size=x base.qcow2',
    'create -f qcow2 -o cluster_size=x,cluster_size=4k new.qcow2 1M',
    'create -f qcow2 -o cluster_size=x -o cluster_size=4k new.qcow2 1M',
    'create -f qcow2 -o cluster_size=4k,nosuch=1,cluster_size=x new.qcow2 1M',
    'create -f qcow2 -o lazy_refcounts=foo,lazy_refcounts=on new.qcow2 1M',
    'create -f qcow2 -o preallocation=foo,preallocation=off new.qcow2 1M',
    'create -f raw -o size=x,size=1M new.raw',
    'convert -O qcow2 -o refcount_bits=x,refcount_bits=8 base.qcow2 new.qcow2',
    'amend -o lazy_refcounts=x,cluster_size=4k,lazy_refcounts=on base.qcow2',
    'amend -o size=x,size=2M base.qcow2',
    'measure -O qcow2 -o cluster_size=x -o cluster_size=4k --size 1M',
    'create -f qcow2 -o a..b=x new.qcow2 1M',
    'create -f qcow2 -o =x new.qcow2 1M -x',
    'create -f qcow2 -o a=1,=x',
    'create -f qcow2 -o no new.qcow2 1M',
    'create -f qcow2 -o backing_file=a,,help new.qcow2 1M',
    'create -f qcow2 -o a,,help',
    'create -f qcow2 -u -o backing_file=a,,b,backing_fmt=raw new.qcow2 1M',
    'create -f qcow2 -o cluster_size=+4k,refcount_bits=010 new.qcow2 1M',
    'create -f qcow2 -o refcount_bits=-16 new.qcow2 1M',
    'create -f qcow2 -o refcount_bits=18446744073709551616 new.qcow2 1M',
    'create -f qcow2 -o lazy_refcounts=y new.qcow2 1M',
    'create -f raw -o extent_size_hint=1M,nocow=n new.raw 1M',
    'create -f raw -o extent_size_hint=4G new.raw 1M',
    'create -q -f qcow2 -o extent_size_hint=4G new.qcow2 1M',
    'create -f qcow2 -o encryption=off new.qcow2 1M',
    'create -f raw plain.raw 7E',
    'create -f qcow2 -o preallocation=falloc,cluster_size=2M new.qcow2 7E',
    'amend -o size=0x800k base.qcow2',
    'rebase -b "" json:{"driver":"raw","file":{"driver":"blkdebug","image":{"driver":"file","filename":"plain.raw"},'
    '"inject-error":[{"event":"none","iotype":"flush","errno":5}]}}',
    'rebase -b x -F raw json:{"driver":"null-co","size":65536}',
    'bench -c 1 -f raw -i native .',
    'check -T none .',
    'convert -n -t none plain.raw .',
    'bench -c 1 -f raw -i native missing',
    'resize -f raw plain.raw 2M -x',
    'resize -f raw plain.raw --shrink',
    'resize -f raw -- plain.raw +512k',
    'resize plain.raw -f',
    'resize plain.raw 2M 3M -x 4M',
    'resize -1 plain.raw 2M',
    'resize -f raw 1G',
    'resize -f raw plain.raw +0x200k',
    'resize --preallocation=foo plain.raw x',
    'info --output=foo',
    'info --output=foo --output=json base.qcow2',
    'info --output=foo --image-opts -f raw base.qcow2',
    'check --output=foo -T foo base.qcow2',
    'check --output=foo -r foo base.qcow2',
    'map --output=foo --max-length x base.qcow2',
    'map --output=foo --object nosuch,id=a base.qcow2',
    'measure --output=foo --size 1M -x',
    'measure --output=foo --size x --object nosuch,id=a',
    'measure --size x --output=foo',
    'measure base.qcow2 plain.raw --size=x',
    'compare base.qcow2 base.qcow2 base.qcow2 -x',
    'snapshot base.qcow2 more -l -c x',
    'bench base.qcow2 more -c x',
    'commit overlay.qcow2 more -r x',
    'rebase overlay.qcow2 more -x',
    'info -Ux base.qcow2',
    'info -Uxq base.qcow2',
    'info -U base.qcow2 -xU',
    'info base.qcow2 -U -xU',
    'info -output=json base.qcow2',
    'info -Uf',
    'info json:[]',
    'info json:{"driver":"raw","size":-1,"file.filename":"plain.raw"}',
    'info json:{"file":{"driver":"blkdebug","image":{"driver":"file","filename":"plain.raw"},'
    '"inject-error":[{"event":"none","iotype":"read"}]}}',
    'resize plain.raw 7E',
    'info json:{"driver":"raw","size":1.5,"file.filename":"plain.raw"}',
    'info json:{"driver":"raw","read-only":1,"file.filename":"plain.raw"}',
    'info --image-opts driver=raw,offset=512,size=1048577,file.filename=plain.raw',
    'info --image-opts driver=raw,offset=9999999,size=1,file.filename=plain.raw',
    'info --image-opts driver=blkdebug,image.filename=plain.raw,x=1',
    'info --image-opts driver=blkverify,raw.filename=plain.raw,test.driver=raw,test.file.filename=plain.raw,x=1',
    'info -U --image-opts driver=raw,file.filename=plain.raw,force-share=off',
    'info -U --image-opts driver=raw,file.filename=plain.raw,force-share=on',
    'compare -U --image-opts file.filename=plain.raw file.filename=plain.raw,force-share=yes',
    'map json:{"driver":"qcow2","file.filename":"overlay.qcow2","backing":null}',
    'check -f qcow2 -U -r all nosuch:x',
    'check -f null-co -U -r all plain.raw',
    'info -f null-co plain.raw',
    'info -f nbd plain.raw',
    'snapshot -U -c x null-aio://x',
    'snapshot -U -c x missing',
    'convert -l first plain.raw new.raw',
    'convert -l first -f raw plain.raw new.raw',
    'convert -l first --image-opts driver=null-co new.raw',
]

# What differs on purpose, and why.
DIFFERS = {
    'info -f nosuchformat plain.raw': 'a line below the message lists the formats of this build',
    'create -f qcow2 -o encrypt.format=luks new.qcow2 1M': 'encryption is not in this build',
    'measure -O qcow2 -o encryption=on --size 1M': 'encryption is not in this build',
    'convert -t foo base.qcow2 new.raw': 'the target is made only when all options are good',
    'convert --bitmaps -O raw base.qcow2 new.raw': 'the target is made only when it can take them',
}


@pytest.fixture(scope='module')
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp('images')
    if not shutil.which(PROGRAM) or not shutil.which('qemu-io'):
        pytest.skip(f'{PROGRAM} is not installed')
    with open(folder / 'plain.raw', 'wb') as f:
        f.write(bytes(range(256)) * 256)
        f.truncate(1 << 20)
    for line in (['qemu-img', 'create', '-q', '-f', 'qcow2', 'base.qcow2', '1M'],
                 ['qemu-io', '-c', 'write -q -P 7 64k 128k', 'base.qcow2'],
                 ['qemu-img', 'snapshot', '-c', 'first', 'base.qcow2'],
                 ['qemu-img', 'create', '-q', '-f', 'qcow2', '-b', 'base.qcow2', '-F', 'qcow2',
                  'overlay.qcow2'],
                 ['qemu-io', '-c', 'write -q -P 9 256k 64k', 'overlay.qcow2'],
                 ['qemu-img', 'create', '-q', '-f', 'qcow2', '-o', 'data_file=beside.bin', 'beside.qcow2', '1M'],
                 ['qemu-img', 'create', '-q', '-f', 'qcow2', 'marked.qcow2', '1M'],
                 ['qemu-img', 'bitmap', '--add', 'marked.qcow2', 'b']):
        assert run(line, cwd=folder).returncode == 0
    return folder


@pytest.fixture(scope='module')
def link(tmp_path_factory):
    return called(tmp_path_factory.mktemp('compat'), PROGRAM)


def masked(text):
    """Sizes on disk and dates are the machine's, not the program's."""
    text = re.sub(r'(disk size: ).*', r'\1SIZE', text)
    text = re.sub(r'("actual-size": )\d+', r'\1SIZE', text)
    text = re.sub(r'("date-n?sec": )\d+', r'\1DATE', text)
    return re.sub(r'\d{4}-\d\d-\d\d \d\d:\d\d:\d\d', 'DATE', text)


def contents(folder):
    """What each disk holds, read by the reference."""
    held = {}
    for path in sorted(folder.iterdir()):
        fmt = 'raw' if path.suffix == '.raw' else 'qcow2'
        out = folder / 'content'
        done = run([PROGRAM, 'convert', '-f', fmt, '-O', 'raw', path.name, out.name], cwd=folder)
        held[path.name] = (done.stderr if done.returncode else
                           hashlib.sha256(out.read_bytes()).hexdigest())
        out.unlink(missing_ok=True)
    return held


WRITES = ('create', 'resize', 'snapshot -', 'amend', 'bitmap', 'rebase', 'commit', 'convert', 'dd')


def outcome(program, line, images, folder):
    arguments = [word.strip('"') for word in line.split()]
    shutil.copytree(images, folder)
    done = run([program, *arguments], cwd=folder)
    held = contents(folder) if line.startswith(WRITES) and '-l' not in arguments[:2] else None
    return masked(done.stdout), masked(done.stderr), done.returncode, held


@pytest.mark.parametrize('line', [line for line in LINES if line not in DIFFERS])
def test_same(line, images, link, tmp_path):
    # The name of the folder is in some answers: both run where the other did.
    ours = outcome(link, line, images, tmp_path / 'work')
    shutil.rmtree(tmp_path / 'work')
    theirs = outcome(PROGRAM, line, images, tmp_path / 'work')
    assert ours == theirs


def test_the_image_outlives_a_data_file_that_cannot_be_made(images, link, tmp_path):
    folder = tmp_path / 'work'
    shutil.copytree(images, folder)
    before = contents(folder)
    done = run([link, 'create', '-f', 'qcow2', '-o', 'data_file=nowhere/x', 'base.qcow2', '1M'], cwd=folder)
    assert done.returncode == 1 and "Could not create 'nowhere/x'" in done.stderr
    assert contents(folder) == before


@pytest.mark.parametrize('name,kept', [('new.qcow2', 'data.bin'), ('base.qcow2', 'new.bin')])
def test_what_is_not_finished_is_taken_away(name, kept, images, link, tmp_path):
    """Only files that were not there."""
    folder = tmp_path / 'work'
    shutil.copytree(images, folder)
    (folder / 'data.bin').write_bytes(b'there')
    before = {p.name for p in folder.iterdir()}
    done = run([link, 'create', '-f', 'qcow2', '-o', f'preallocation=falloc,data_file={kept}', name,
                '1P'], cwd=folder)
    assert done.returncode == 1 and 'image size is too large' in done.stderr
    assert {p.name for p in folder.iterdir()} == before


@pytest.mark.parametrize('options', ['preallocation=falloc,cluster_size=2M', 'preallocation=falloc,data_file=beside',
                                     'raw'])
def test_a_link_to_nothing_stays(options, link, tmp_path):
    """And what was made behind it, which is not looked for by its links."""
    (tmp_path / 'folder').mkdir()
    for name in ('name', 'beside'):
        (tmp_path / name).symlink_to(f'folder/{name}')
    (tmp_path / 'folder' / 'name').symlink_to(tmp_path / 'file')
    made = ['-f', 'raw'] if options == 'raw' else ['-f', 'qcow2', '-o', options]
    assert run([link, 'create', *made, 'name', '7E' if options[-1] != 'e' else '1P'], cwd=tmp_path).returncode == 1
    assert (tmp_path / 'name').is_symlink() and (tmp_path / 'beside').is_symlink()
    assert run([link, 'create', '-q', '-f', 'qcow2', 'name', '1M'], cwd=tmp_path).returncode == 0
    assert (tmp_path / 'name').is_symlink() and (tmp_path / 'file').is_file()


def test_nothing_is_written_where_nothing_can_be_compressed(images, link, tmp_path):
    """Into an image whose data lies in another file."""
    folder = tmp_path / 'work'
    shutil.copytree(images, folder)
    assert run(['qemu-io', '-c', 'write -q -P 5 0 1M', 'beside.qcow2'], cwd=folder).returncode == 0
    before = contents(folder)
    line = ['convert', '-c', '-n', '-O', 'qcow2', 'base.qcow2', 'beside.qcow2']
    ours = run([link, *line], cwd=folder)
    assert contents(folder) == before
    theirs = run([PROGRAM, *line], cwd=folder)
    assert ours.returncode == theirs.returncode == 1
    assert ours.stderr == theirs.stderr == 'qemu-img: error while writing at byte 65536: Operation not supported\n'


HINTED = [
    'check many.qcow2', 'check -q many.qcow2', 'check -r leaks many.qcow2', 'check --output=json extra.qcow2',
    'info many.qcow2', 'info extra.qcow2', 'check extra.qcow2', 'check -r all extra.qcow2', 'snapshot -l extra.qcow2',
    'bitmap --enable stale.qcow2 b', 'bitmap --add --merge b stale.qcow2 c', 'resize stale.qcow2 2M',
    'amend -o backing_file=x over.qcow2', 'amend -o backing_fmt=raw over.qcow2', 'resize over.qcow2 4q',
    'create -f qcow2 -o cluster_size=512 new.qcow2 1P', 'create -f qcow2 -o cluster_size=4q new.qcow2 1M',
    'measure -O qcow2 -o cluster_size=512 --size 1P', 'measure -O qcow2 -o cluster_size=4q --size 1M',
    'check --image-opts driver=qcow2,file.driver=blkdebug,file.image.driver=file,file.image.filename=over.qcow2,'
    'file.inject-error.0.event=none,file.inject-error.0.iotype=read,file.inject-error.0.sector=256',
]
# Of clusters whose refcount cannot be read the first is told, the number of all is counted.
AGAIN = re.compile("Can't get refcount for cluster [1-9].*\n")


@pytest.fixture(scope='module')
def faulty(images, tmp_path_factory):
    """Images with faults that the reference has a word of advice for."""
    folder = tmp_path_factory.mktemp('faulty')
    for name in ('many', 'extra', 'stale', 'over'):
        shutil.copy(images / 'base.qcow2', folder / f'{name}.qcow2')
    run([PROGRAM, 'bitmap', '--add', 'stale.qcow2', 'b'], cwd=folder)
    run([PROGRAM, 'rebase', '-u', '-b', 'extra.qcow2', '-F', 'qcow2', 'over.qcow2'], cwd=folder)
    data = (folder / 'extra.qcow2').read_bytes()
    patch(folder, 'many.qcow2', 60, struct.pack('>I', 70000))
    patch(folder, 'extra.qcow2', struct.unpack_from('>Q', data, 64)[0] + 36, struct.pack('>I', 1032))
    data = (folder / 'stale.qcow2').read_bytes()
    directory = struct.unpack_from('>Q', data, data.index(b'\x23\x85\x28\x75') + 24)[0]
    patch(folder, 'stale.qcow2', directory + 15, b'\x03')
    return folder


@pytest.mark.parametrize('line', HINTED)
def test_hints_below_an_error(line, faulty, link, tmp_path):
    ours, theirs = (outcome(program, line, faulty, tmp_path / str(program)[-12:].replace('/', '_'))[:3]
                    for program in (link, PROGRAM))
    assert theirs[2] == 0 or theirs[1]
    assert ours[::2] == theirs[::2] and ours[1] == AGAIN.sub('', theirs[1])


@pytest.mark.parametrize('option', ['encryption=on', 'encrypt.format=luks', 'encrypt.key-secret=s'])
def test_encryption_is_refused_by_its_name(option, images, link, tmp_path):
    """An image that anybody can read is no answer to a wish for a secret."""
    shutil.copytree(images, tmp_path / 'work')
    key = option.split('=', maxsplit=1)[0]
    for line in (['create', '-f', 'qcow2', '-o', option, 'new.qcow2', '1M'],
                 ['convert', '-O', 'qcow2', '-o', option, 'base.qcow2', 'new.qcow2'],
                 ['measure', '-O', 'qcow2', '-o', option, '--size', '1M']):
        done = run([link, *line], cwd=tmp_path / 'work')
        assert done.returncode == 1
        assert f"Encryption is not in this build: '{key}' cannot be honoured" in done.stderr
        assert not (tmp_path / 'work/new.qcow2').exists()
    assert run([link, 'create', '-q', '-f', 'qcow2', '-o', 'encryption=off', 'new.qcow2', '1M'],
               cwd=tmp_path / 'work').returncode == 0


@pytest.mark.parametrize('options', ['refcount_bits=8,data_file=x', 'lazy_refcounts=on,extended_l2=on',
                                     'lazy_refcounts=on,refcount_bits=8', 'compression_type=zstd',
                                     'compression_type=zstd,data_file=x'])
def test_what_an_old_level_has_not(options, link, tmp_path):
    """In the reference's words, but for the name of the option that raises the level."""
    line = ['create', '-q', '-f', 'qcow2', '-o', f'compat=0.10,{options}', 'new.qcow2', '1M']
    ours, theirs = (run([p, *line], cwd=tmp_path) for p in (link, PROGRAM))
    assert ours.stderr == theirs.stderr.replace('version=v3', 'compat=v3') != ''
    assert ours.returncode == theirs.returncode == 1


def test_map_of_layers_of_different_lengths(link, tmp_path):
    for line in (['create', '-q', '-f', 'raw', 'b0', '1M'],
                 ['create', '-q', '-f', 'qcow2', '-b', 'b0', '-F', 'raw', 'b1', '2M'],
                 ['create', '-q', '-f', 'qcow2', '-b', 'b1', '-F', 'qcow2', 'b2', '3M'],
                 ['create', '-q', '-f', 'qcow2', '-b', 'b2', '-F', 'qcow2', 'b3', '4M']):
        assert run([PROGRAM, *line], cwd=tmp_path).returncode == 0
    done = run(['qemu-io', '-c', 'write 128k 64k', '-c', 'write 1152k 64k', 'b2'], cwd=tmp_path)
    assert done.returncode == 0
    for name in ('b1', 'b2', 'b3'):
        line = ['map', '-f', 'qcow2', '--output=json', name]
        assert run([link, *line], cwd=tmp_path).stdout == run([PROGRAM, *line], cwd=tmp_path).stdout


@pytest.mark.parametrize('form', ['human', 'json'])
def test_map_where_storage_knows_more(form, link, tmp_path):
    """Holes of a data file are not told, and a null disk without zeroes decides nothing."""
    null = 'json:{"driver":"null-co","size":262144}'
    zeroes = 'json:{"driver":"null-aio","size":65536,"read-zeroes":true}'
    for line in (['-o', 'data_file=raw.bin,data_file_raw=on', 'raw', '1M'],
                 ['-o', 'data_file=meta.bin,preallocation=metadata', 'meta', '1M'],
                 ['-o', 'preallocation=metadata', 'plain', '1M'],
                 ['-u', '-b', null, '-F', 'null-co', 'over', '1M'],
                 ['-b', 'raw', '-F', 'qcow2', 'above']):
        assert run([PROGRAM, 'create', '-q', '-f', 'qcow2', *line], cwd=tmp_path).returncode == 0
    for name in ('raw', 'over'):
        assert run(['qemu-io', '-c', 'write 64k 64k', '-c', 'write -z 512k 64k', name],
                   cwd=tmp_path).returncode == 0
    for name in ('raw', 'meta', 'plain', 'over', 'above', null, zeroes,
                 f'json:{{"driver":"raw","file":{null[5:]}}}'):
        line = ['map', f'--output={form}', name]
        ours, theirs = run([link, *line], cwd=tmp_path), run([PROGRAM, *line], cwd=tmp_path)
        assert (ours.stdout, ours.stderr) == (theirs.stdout, theirs.stderr)


def test_version_names_program(link):
    done = run([link, '--version'])
    assert done.returncode == 0 and re.match(r'qemu-img version \d+\.\d+', done.stdout)


def test_images_may_name_files_elsewhere(images, link, tmp_path):
    """As with the tool whose name it carries, and unlike platter itself."""
    elsewhere = tmp_path / 'elsewhere.qcow2'
    run([PROGRAM, 'create', '-q', '-f', 'qcow2', '-b', images / 'base.qcow2', '-F', 'qcow2',
         elsewhere])
    assert run([link, 'compare', elsewhere, images / 'base.qcow2']).returncode == 0
    refused = run([os.environ['PLATTER_BIN'], 'compare', '-f', 'qcow2', '-F', 'qcow2', elsewhere,
                   images / 'base.qcow2'])
    assert refused.returncode != 0


@pytest.mark.parametrize('driver', [[], ['-f', 'raw'], ['-f', 'host_device']], ids=' '.join)
def test_pipe_is_refused(driver, link, tmp_path):
    """Without waiting for somebody at its other end, as the reference does."""
    os.mkfifo(tmp_path / 'pipe')
    done = run([link, 'info', *driver, tmp_path / 'pipe'])
    assert done.returncode == 1 and 'requires' in done.stderr


def object_lines(done):
    """The lines of an answer, without the kinds of objects that one of both alone has."""
    lines = done.stdout.splitlines()
    if lines and lines[0].startswith('List'):
        lines = [line for line in lines if line in (lines[0], '  secret', '  throttle-group')]
    return lines, done.stderr, done.returncode


@pytest.mark.parametrize('line', ['qemu-img info', 'qemu-img create -f raw', 'qemu-io', 'qemu-nbd -t',
                                  'qemu-storage-daemon'])
def test_help_of_objects(line, tmp_path):
    program, *before = line.split()
    ours = called(tmp_path, program)
    for text in ('help', '?', 'secret,help', 'throttle-group,?', 'nosuch,help', 'help,id=a',
                 'id=a,help', 'qom-type=secret,help', 'secret,a=,,,help'):
        mine, other = (object_lines(run([p, *before, '--object', text])) for p in (ours, program))
        assert mine == other, text
        assert mine[0] and mine[1:] == ('', 0)


@pytest.mark.parametrize('text', ['help=1', 'secret,x,help', 'secret,id=a,data=,,help', '{"qom-type":"help"}',
                                  'secret,id'])
def test_no_help_of_objects(text, images, link):
    """A word "help" that belongs to something else."""
    ours, theirs = (run([p, 'info', '--object', text, images / 'plain.raw']) for p in (link, PROGRAM))
    assert ours.stderr == theirs.stderr
    assert ours.returncode == theirs.returncode
