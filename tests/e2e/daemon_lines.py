# SPDX-License-Identifier: MIT
"""Command lines of qemu-storage-daemon, right and wrong ones. One that would go on ends at a monitor
without a chardev (END), which is told when everything before it was taken."""
import shutil
import subprocess

from tls_common import Authority

END = ' --monitor z'
NODE = '--blockdev null-co,node-name=n '
SERVED = NODE + '--nbd-server addr.type=unix,addr.path=nbd --export '
QCOW2 = '--blockdev qcow2,node-name=q,file.driver=file,file.filename=disk.qcow2'
SERVER_CREDS = '--object tls-creds-x509,id=t,dir=pki,endpoint=server'


def make(folder):
    """What the lines name."""
    (folder / 'disk.raw').write_bytes(bytes(1 << 20))
    (folder / 'odd.raw').write_bytes(bytes(1000))
    (folder / 'empty.raw').write_bytes(b'')
    (folder / 'pass').write_text('secret', encoding='ascii')
    (folder / 'dir').mkdir()
    subprocess.run(['qemu-img', 'create', '-q', '-f', 'qcow2', folder / 'disk.qcow2', '1M'], check=True)
    ca = Authority(folder / 'ca')
    ca.issue(folder / 'pki', 'server', 'cn = localhost\ndns_name = localhost\ntls_www_server')
    (folder / 'pki/keys.psk').write_text('alice:00112233445566778899aabbccddeeff\n', encoding='ascii')
    shutil.rmtree(folder / 'ca')


# By what they are about; one of each line of text.
LINES = {
    'words': '''
--nosuch
--daemonize=x
--daemonize=
--daemoniz --nosuch
--dEND
--pid
--pidfil=
--pidfile
--pidfile=END
-x
--help=x
--version=x
-
--
-- foo
foo
foo bar
operand
foo --nosuch
--blockdev foo bar
--b null-co
--bl null-co
--c foo
--e foo
--m z
--n x
--o iothread
--pid=xEND
--blockdev
--chardev
--export
--monitor
--nbd-server
--object
--trace
-T
''',
    'nodes': '''
--blockdev=
--blockdev ''
--blockdev driver=null-co
--blockdev foo,node-name=n
--blockdev null-co,node-name=
--blockdev null-co,node-name=n,node-name=mEND
--blockdev null-co,node-name=n --blockdev null-co,node-name=n
--blockdev null-co,node-name=#n
--blockdev null-co,node-name=1n
--blockdev null-co,node-name=n,size=foo
--blockdev null-co,node-name=n,size=
--blockdev null-co,node-name=n,size=1.5
--blockdev null-co,node-name=n,size=+1END
--blockdev null-co,node-name=n,size=0x10END
--blockdev null-co,node-name=n,size=99999999999999999999
--blockdev null-co,node-name=n,size=1,size=x
--blockdev null-co,node-name=n,size=x,size=1END
--blockdev null-co,node-name=n,latency-ns=x
--blockdev null-co,node-name=n,latency-ns=18446744073709551616
--blockdev null-co,node-name=n,nosuch=1
--blockdev null-co,node-name=n,read-zeroes=maybe
--blockdev null-co,node-name=n,read-zeroes=yesEND
--blockdev null-co,node-name=n,read-zeroes=nEND
--blockdev null-co,node-name=n,read-zeroes=
--blockdev null-co,node-name=n,read-only=on,auto-read-only=onEND
--blockdev null-co,node-name=n,discard=foo
--blockdev null-co,node-name=n,discard=
--blockdev null-co,node-name=n,detect-zeroes=foo
--blockdev null-co,node-name=n,detect-zeroes=unmap
--blockdev null-co,node-name=n,cache=on
--blockdev null-co,node-name=n,cache.foo=on
--blockdev null-co,node-name=n,cache.direct=1
--blockdev null-co,node-name=n,cache.direct=on,cache.no-flush=offEND
--blockdev null-co,node-name=n,force-share=on
--blockdev null-co,node-name=n,force-share=on,read-only=onEND
--blockdev null-co,node-name=n,latency-ns=5END
--blockdev null-aio,node-name=nEND
--blockdev node-name=n
--blockdev null-co=x,node-name=n
--blockdev driver=null-co,driver=file,node-name=n
--blockdev file,node-name=n
--blockdev file,node-name=n,filename=
--blockdev file,node-name=n,filename=nosuch
--blockdev file,node-name=n,filename=dir
--blockdev file,node-name=n,filename=disk.rawEND
--blockdev file,node-name=n,filename=disk.raw,aio=foo
--blockdev file,node-name=n,filename=disk.raw,aio=native
--blockdev file,node-name=n,filename=disk.raw,locking=foo
--blockdev file,node-name=n,filename=disk.raw,locking=on --blockdev file,node-name=m,filename=disk.rawEND
--blockdev file,node-name=n,filename=disk.raw,locking=off --blockdev file,node-name=m,filename=disk.rawEND
--blockdev host_device,node-name=n,filename=disk.raw
--blockdev host_device,node-name=n,filename=/dev/nullEND
--blockdev file,node-name=n,filename=disk.raw --blockdev raw,node-name=r,file=nEND
--blockdev raw,node-name=r,file=n --blockdev file,node-name=n,filename=disk.raw
--blockdev raw,node-name=r,file.driver=file,file.filename=disk.rawEND
--blockdev raw,node-name=r,file.driver=file,file.filename=disk.raw,offset=1END
--blockdev raw,node-name=r,file.driver=file,file.filename=disk.raw,size=2097152
--blockdev raw,node-name=r,file.driver=file,file.filename=disk.raw,offset=2097152
--blockdev raw,node-name=r,file.driver=file
--blockdev raw,node-name=r,file.filename=x
--blockdev raw,node-name=r
--blockdev raw,node-name=r,file=
--blockdev raw,node-name=n,file.driver=null-co,file.x=1
--blockdev raw,node-name=n,file.driver=nosuch
--blockdev raw,node-name=n,file.0=nosuch
--blockdev raw,node-name=n,file.driver=null-co,file.size=x
--blockdev raw,node-name=n,file.driver=null-co,file.read-zeroes=x
--blockdev raw,node-name=n,file.driver=null-co,file.discard=x
--blockdev raw,node-name=n,file.driver=raw,file.file.driver=null-co,file.file.x=1
QCOW2END
--blockdev qcow2,node-name=q,file.driver=file,file.filename=disk.raw
--blockdev qcow2,node-name=q,file.driver=file,file.filename=empty.raw
QCOW2,lazy-refcounts=maybe
QCOW2,overlap-check=foo
QCOW2,overlap-check=noneEND
QCOW2,overlap-check.template=allEND
QCOW2,overlap-check.template=foo
QCOW2,overlap-check.main-header=foo
QCOW2,l2-cache-entry-size=1
QCOW2,refcount-cache-size=x
QCOW2,backing=nosuch
QCOW2,data-file.driver=file,data-file.filename=odd.raw
--blockdev throttle,node-name=t,throttle-group=g,file.driver=null-co
--object throttle-group,id=g --blockdev throttle,node-name=t,throttle-group=g,file.driver=null-coEND
--blockdev throttle,node-name=t,file.driver=null-co
--blockdev copy-on-read,node-name=t,file.driver=null-coEND
--blockdev copy-on-read,node-name=n,file=nosuch
--blockdev blkdebug,node-name=t,image.driver=null-coEND
--blockdev blkdebug,node-name=n,image=nosuch
--blockdev blkdebug,node-name=n,image.driver=null-co,inject-error.0.event=read_aio,inject-error.0.errno=x
--blockdev blkdebug,node-name=n,image.driver=null-co,inject-error.0.event=read_aio,inject-error.0.once=onEND
--blockdev blkdebug,node-name=n,image.driver=null-co,inject-error.0.event=read_aio,inject-error.0.iotype=foo
--blockdev blkdebug,node-name=n,image.driver=null-co,set-state.0.event=read_aio
--blockdev blkdebug,node-name=n,image.driver=null-co,config=nosuch
--blockdev blkdebug,node-name=n,image.driver=null-co,align=3
--blockdev blkverify,node-name=t,test.driver=null-co
--blockdev blkverify,node-name=n,test=nosuch,raw=nosuch
--blockdev nbd,node-name=n,server=nosuch
--blockdev nbd,node-name=n,server.type=foo
--blockdev nbd,node-name=n,server.type=unix,server.path=nosuch
--blockdev nbd,node-name=n,server.type=inet,server.host=127.0.0.1,server.port=1
--blockdev nbd,node-name=n,server.type=unix,server.path=nosuch,tls-creds=x
--blockdev nbd,node-name=n,server.type=unix,server.path=nosuch,export=aaaa,reconnect-delay=x
''',
    'keys': '''
--blockdev =
--blockdev ,
--blockdev null-co,,node-name=n
--blockdev driver
--blockdev null-co,node-name
--blockdev null-co,node-name=n,END
--blockdev null-co,node-name=n,read-only
--blockdev null-co,node-name=n,read-only=
--blockdev null-co,node-name=n,.=x
--blockdev null-co,node-name=n,.a=1
--blockdev null-co,node-name=n,a.=1
--blockdev null-co,node-name=n,a..b=x
--blockdev null-co,node-name=n,cache.0=x
--blockdev null-co,node-name=n,cache.direct=on,cache=x
--blockdev null-co,node-name=n,cache=x,cache.direct=on
--blockdev null-co,node-name=n,x.0=1,x.y=2
--blockdev null-co,node-name=n,x.1=1
--blockdev null-co,node-name=n,x.0=1,x.2=1
--blockdev null-co,node-name=n,x.00=1
--blockdev null-co,node-name=n,x.0=1,x.0=2
--blockdev null-co,node-name=n,x.0.y=1,x.0.y.z=3
--blockdev null-co,node-name=n,x.0.0=1,x.0.1=2
--blockdev null-co,node-name=n,x.999999999999999999999=1
--blockdev null-co,node-name=n,0=1
--blockdev null-co,node-name=n,1a=1
--blockdev null-co,node-name=n,a.1a=1
--blockdev null-co,node-name=n,-a=1
--blockdev null-co,node-name=n,_a=1
--blockdev null-co,node-name=n,a_b=1
--blockdev null-co,node-name=n,__x-y.com_abc=1
--blockdev null-co,node-name=n,__x-y.com=1
--blockdev null-co,node-name=n,__x_1=1
--blockdev null-co,node-name=n,a!=1
--blockdev null-co,node-name=n,a=x=y
--blockdev null-co,node-name=n,LONG=1
--blockdev null-co,node-name=n,LONGx=1
--blockdev null-co,node-name=n,b.LONGx=1
--blockdev null-co,node-name=a,,b
--blockdev help
--blockdev '?'
--blockdev null-co,help
--blockdev help,node-name=n
--blockdev help=x
--blockdev driver=help
--blockdev null-co,node-name=n,helpx
--blockdev null-co,node-name=n,help=1
--blockdev null-co,node-name=n,?=1
--blockdev {}
--blockdev '[]'
--blockdev json:{}
--blockdev ' {"driver":"null-co"}'
--blockdev '{"driver":"null-co"}'
--blockdev '{"driver":"null-co","node-name":"n"}'END
--blockdev "{'driver':'null-co','node-name':'n'}"END
--blockdev '{"driver":"null-co","node-name":"n","size":"1M"}'
--blockdev '{"driver":"null-co","node-name":"n","size":1.5}'
--blockdev '{"driver":"null-co","node-name":5}'
--blockdev '{"driver":"null-co","node-name":"n","x":1}'
--blockdev '{"driver":"null-co","node-name":"n","read-only":"on"}'
--blockdev '{"driver":"null-co","node-name":"n","cache":{"direct":1}}'
--blockdev '{"driver":"null-co","node-name":"n","discard":1}'
--blockdev '{"driver":null}'
--blockdev '{"driver":"foo","node-name":"n"}'
--blockdev '{"driver":"raw","node-name":"n","file":{"driver":"null-co","x":1}}'
--blockdev '{"driver":"raw","node-name":"n","file":5}'
--blockdev '{"driver":"raw","node-name":"n","file":null}'
--blockdev '{"driver":"qcow2","node-name":"q","file":{"driver":"file","filename":"disk.qcow2"},"backing":null}'END
''',
    'monitors': '''
--chardev ''
--chardev foo
--chardev foo,id=c
--chardev null
--chardev vc,id=c
--chardev id=c
--chardev id=1
--chardev backend=socket
--chardev stdio,id=
--chardev stdio,id=1c
--chardev stdio,id=cEND
--chardev stdio,id=c,signal=offEND
--chardev stdio,id=c,signal=maybe
--chardev stdio,id=c --chardev stdio,id=d
--chardev stdio,id=c --monitor c,mode=readline
--chardev stdio,id=c --monitor c,mode=foo
--chardev stdio,id=c --monitor c,pretty=maybe
--chardev stdio,id=c --monitor c,foo=1
--chardev stdio,id=c --monitor c,pretty
--monitor ''
--monitor id=x
--monitor c
--monitor c,mode=control
--monitor help
--monitor c,help
--chardev socket,id=c,path=sock
--chardev socket,id=c,path=nosuch/sock,server=on
--chardev socket,id=c,path=sock,server=on,wait=offEND
--chardev socket,id=c,path=sock,server=maybe
--chardev socket,id=c,path=sock,wait=on
--chardev socket,id=c,path=sock,server=on,reconnect=1
--chardev socket,id=c,path=sock,host=h
--chardev socket,id=c,host=127.0.0.1
--chardev socket,id=c,host=127.0.0.1,port=1
--chardev socket,id=c,host=127.0.0.1,port=0,server=on,wait=offEND
--chardev socket,id=c,host=127.0.0.1,port=x,server=on,wait=off
--chardev socket,id=c,fd=99
--chardev socket,id=c,fd=0,server=on,wait=off
--chardev socket,id=c,fd=x
--chardev socket,id=c,fd=99,path=x
--daemonize --chardev stdio,id=c
''',
    'servers': '''
--nbd-server ''
--nbd-server addr.type=unix
--nbd-server addr.type=foo
--nbd-server addr.path=x
--nbd-server addr=x
--nbd-server addr.type=unix,addr.path=nbdEND
--nbd-server addr.type=unix,addr.path=nosuch/nbd
--nbd-server addr.type=unix,addr.path=nbd --nbd-server addr.type=unix,addr.path=nbd2
--nbd-server addr.type=unix,addr.path=nbd,foo=1
--nbd-server addr.type=unix,addr.path=nbd,addr.foo=1
--nbd-server addr.type=unix,addr.path=nbd,max-connections=0END
--nbd-server addr.type=unix,addr.path=nbd,max-connections=x
--nbd-server addr.type=unix,addr.path=nbd,max-connections=-1
--nbd-server addr.type=unix,addr.path=nbd,max-connections=4294967296
--nbd-server addr.type=unix,addr.path=nbd,max-connections=3END
--nbd-server addr.type=unix,addr.path=nbd,tls-creds=t
--nbd-server addr.type=inet,addr.host=127.0.0.1
--nbd-server addr.type=inet,addr.host=127.0.0.1,addr.port=x
--nbd-server addr.type=inet,addr.host=127.0.0.1,addr.port=1,addr.to=foo
--nbd-server addr.type=inet,addr.host=127.0.0.1,addr.port=1,addr.ipv6=maybe
--nbd-server addr.type=fd
--nbd-server addr.type=fd,addr.str=99
--nbd-server addr.type=fd,addr.str=0
--nbd-server '{"addr":{"type":"unix","path":"nbd"}}'END
--nbd-server '{"addr":{"type":"unix","data":{"path":"nbd"}}}'
--nbd-server '{"addr":5}'
--nbd-server '{}'
--nbd-server help
--export ''
--export foo
--export help
--export foo,id=e,node-name=n
--export nbd
--export nbd,id=e
--export nbd,id=e,node-name=n
--export nbd,node-name=n
--export type=nbd,id=1e,node-name=n
--export nbd,id=e,node-name=n --blockdev null-co,node-name=n
NODE--export nbd,id=e,node-name=n
SERVEDnbd,id=e,node-name=nEND
SERVEDnbd,id=e,node-name=m
SERVEDnbd,id=1e,node-name=n
SERVEDnbd,id=,node-name=n
SERVEDnbd,id=e,node-name=n --export nbd,id=e,node-name=n
SERVEDnbd,id=e,node-name=n --export nbd,id=f,node-name=n
SERVEDnbd,id=e,node-name=n --export nbd,id=f,node-name=n,name=f,writable=onEND
SERVEDnbd,id=e,node-name=n,writable=maybe
SERVEDnbd,id=e,node-name=n,foo=1
SERVEDnbd,id=e,node-name=n,bitmap=b
SERVEDnbd,id=e,node-name=n,bitmaps=b
SERVEDnbd,id=e,node-name=n,bitmaps.0=b
SERVEDnbd,id=e,node-name=n,bitmaps.1=b
SERVEDnbd,id=e,node-name=n,bitmaps.x=b
SERVEDnbd,id=e,node-name=n,iothread=i
SERVEDnbd,id=e,node-name=n,writethrough=onEND
SERVEDnbd,id=e,node-name=n,writethrough=maybe
SERVEDnbd,id=e,node-name=n,allocation-depth=on,description=dEND
SERVED'{"type":"nbd","id":"e","node-name":"n"}'END
SERVED'{"type":"nbd","id":"e","node-name":5}'
--object iothread,id=i SERVEDnbd,id=e,node-name=n,iothread=i,fixed-iothread=onEND
--blockdev null-co,node-name=n,read-only=on --nbd-server addr.type=unix,addr.path=nbd --export nbd,id=e,node-name=n,writable=on
--nbd-server addr.type=unix,addr.path=nbd,tls-creds=t --object tls-creds-anon,id=t,endpoint=server
--object tls-creds-anon,id=t,endpoint=server --nbd-server addr.type=unix,addr.path=nbd,tls-creds=tEND
--object tls-creds-anon,id=t,endpoint=client --nbd-server addr.type=unix,addr.path=nbd,tls-creds=t
--object iothread,id=t --nbd-server addr.type=unix,addr.path=nbd,tls-creds=t
CREDS --object authz-simple,id=a,identity=x --nbd-server addr.type=unix,addr.path=nbd,tls-creds=t,tls-authz=aEND
''',
    'objects': '''
--object ''
--object secret,help
--object iothread,help
--object throttle-group,help
--object tls-creds-x509,help
--object tls-creds-psk,help
--object tls-creds-anon,help
--object authz-list,help
--object authz-simple,help
--object secret,id=s,help
--object qom-type=help
--object iothread
--object id=x
--object iothread,id=
--object iothread,id=1x
--object iothread,id=a,,b
--object iothread,id=i --object iothread,id=i
--object iothread,id=i --object secret,id=i,data=x
--object iothread,id=i,foo=1
--object iothread,id=i,poll-max-ns=x
--object iothread,id=i,poll-max-ns=-1
--object iothread,id=i,poll-max-ns=1000,poll-grow=2,poll-shrink=2,aio-max-batch=1END
--object iothread,id=i,aio-max-batch=-1
--object iothread,id=i,thread-pool-min=5,thread-pool-max=3
--object iothread,id=i,thread-pool-max=0
--object secret,id=s
--object secret,id=s,data=xEND
--object secret,id=s,data=END
--object secret,id=s,data=x,file=pass
--object secret,id=s,file=passEND
--object secret,id=s,data=x,format=foo
--object secret,id=s,data=eA==,format=base64END
--object secret,id=s,data=???,format=base64
--object secret,id=s,file=nosuch
--object secret,id=s,file=dir
--object secret,id=s,data=x,keyid=k
--object secret,id=s,data=x,iv=iEND
--object secret,id=k,data=KEY,format=base64 --object secret,id=s,data=x,keyid=k
--object secret,id=k,data=KEY,format=base64 --object secret,id=s,data=x,keyid=k,iv=AAAA
--object throttle-group,id=t,limits.bps-total=-1
--object iothread,help=x
--object throttle-group,id=tEND
--object throttle-group,id=t,limits.iops-total=10END
--object throttle-group,id=t,limits.iops-total=x
--object throttle-group,id=t,limits.foo=x
--object throttle-group,id=t,limits.iops-total=10,limits.iops-read=10
--object throttle-group,id=t,limits.iops-total=10,limits.iops-total-max=5
--object throttle-group,id=t,limits.iops-total-max=5
--object throttle-group,id=t,limits.iops-total=10,limits.iops-total-max=20,limits.iops-total-max-length=0
--object throttle-group,id=t,limits.iops-total-max-length=10
--object throttle-group,id=t,limits=5
--object throttle-group,id=t,limits.iops-size=5END
--object throttle-group,id=t,x-iops-total=10END
--object throttle-group,id=t,x-iops-total=-10
--object throttle-group,id=t,x-iops-total-max-length=0
--object tls-creds-x509,id=t
--object tls-creds-x509,id=t,dir=nosuch
--object tls-creds-x509,id=t,dir=nosuch,endpoint=server
--object tls-creds-x509,id=t,dir=empty.raw,endpoint=server
CREDSEND
--object tls-creds-x509,id=t,dir=pki,endpoint=clientEND
--object tls-creds-x509,id=t,dir=pki,endpoint=foo
CREDS,verify-peer=maybe
CREDS,sanity-check=noEND
CREDS,passwordid=s
--object tls-creds-psk,id=t
--object tls-creds-psk,id=t,dir=pki,endpoint=serverEND
--object tls-creds-psk,id=t,dir=pki,endpoint=client,username=aliceEND
--object tls-creds-psk,id=t,dir=pki,endpoint=client,username=bob
--object tls-creds-psk,id=t,dir=nosuch,endpoint=server
--object tls-creds-anon,id=t,endpoint=serverEND
--object tls-creds-anon,id=t,dir=nosuch,endpoint=serverEND
--object authz-list,id=aEND
--object authz-list,id=a,policy=foo
--object authz-list,id=a,policy=deny,rules.0.match=x,rules.0.policy=allowEND
--object authz-list,id=a,policy=deny,rules.0.match=x
--object authz-list,id=a,policy=deny,rules.0.match=x,rules.0.policy=allow,rules.0.format=foo
--object authz-list,id=a,policy=deny,rules=x
--object authz-simple,id=a
--object authz-simple,id=a,identity=xEND
--object authz-simple,id=a,identity=x,foo=y
--object nosuch,id=x
--object '{"qom-type":"iothread","id":"i"}'END
--object '{"qom-type":"iothread"}'
--object '{"qom-type":5,"id":"i"}'
--object '{"qom-type":"iothread","id":"i","poll-max-ns":"5"}'
--object qom-type=iothread,id=iEND
--object iothread,id=i,END
--object=iothread,id=iEND
--obj iothread
''',
    'process': '''
--trace events=nosuch
--trace ''END
--trace enable=nbd_*END
--pidfile nosuch/pid
--pidfile dir
--pidfile pidEND
--daemonize --pidfile nosuch/pid
--daemonizeEND
--daemonize foo
--daemonize --blockdev driver=null-co
--monitor z --blockdev null-co
--blockdev null-coEND
''',
}

# What differs on purpose, and why.
DIFFERS = {
    '--help': 'the help is of the options that are here',
    '-V': 'the version is ours',
    'foo --help': 'the same as --help; both print it, whatever else stands there',
    '--blockdev null-co,node-name=n,size=1MEND': 'a suffix may stand behind every number',
    '--blockdev null-co,node-name=n,latency-ns=-1': 'what is wrong with the number is told',
    '--blockdev null-co,node-name=nLONGEND': 'names may be longer',
    '--blockdev raw,node-name=r,file=r': 'a node that would be its own child is told as that',
    "--blockdev '{'": 'the place in the JSON is told, too',
    'QCOW2,backing=END': 'the empty name is no old spelling of null',
    'QCOW2,encrypt.format=luks': 'this build has no LUKS, so no such option',
    'QCOW2,cache-clean-interval=99999999999': 'the limit is told',
    '--blockdev luks,node-name=n,file.driver=null-co': 'a driver that is not here',
    '--blockdev file,node-name=n,filename=disk.raw,drop-cache=offEND': 'an option of migration: not here',
    '--blockdev nbd,node-name=n': 'other spellings of the address are known too, so the schema does not ask for this one',
    '--blockdev nbd,node-name=n,server.type=unix': 'the same',
    '--blockdev nbd,node-name=n,server.type=fd,server.str=99': 'a kind of address that is not here',
    '--blockdev nbd,node-name=n,server.type=inet,server.host=127.0.0.1,server.port=x': 'the words are those of libnbd',
    '--blockdev nbd,node-name=n,server.type=unix,server.path=nosuch,tls-hostname=h': 'told before anything is connected',
    '--blockdev blkdebug,node-name=n,image.driver=null-co,inject-error.0.event=foo': 'events are no list of the schema',
    '--blockdev blkdebug,node-name=n,image.driver=null-co,take-child-perms.0=foo': 'an element has its place for a name, '
                                                                                   "not 'null'",
    '--blockdev copy-on-read,node-name=n,file.driver=null-co,bottom=nosuch': 'where it was looked for is told',
    '--chardev null,id=cEND': 'a monitor speaks over a socket or the standard streams: other kinds are not here',
    '--chardev file,id=c,path=outEND': 'the same',
    '--chardev help': 'the same',
    '--chardev stdio,id=c --monitor cEND': 'a monitor greets when it is made, not when all else is',
    '--chardev socket,id=c': 'what is missing is told',
    '--chardev socket,id=c,path=': 'an empty path is told as that',
    '--chardev socket,id=c,path=sock,server,nowaitEND': 'the short words are taken without a warning',
    '--chardev socket,id=c,path=sock,reconnect=x': 'a number is checked as everywhere else',
    '--chardev socket,id=c,path=sock,server=on,wait=off,telnet=onEND': 'not here: refused, not passed over',
    "--chardev '{}'": 'JSON is taken here too',
    '--nbd-server addr.type=unix,addr.path=END': 'an empty path is told as that',
    '--nbd-server addr.type=unix,addr.path=nbd,tls-authz=tEND': 'rules need TLS, or they would let everybody in',
    '--nbd-server addr.type=inet,addr.host=203.0.113.1,addr.port=10809': 'the address is told',
    '--nbd-server addr.type=fd,addr.str=x': 'descriptors have names here too',
    'CREDS --nbd-server addr.type=unix,addr.path=nbd,tls-creds=t,tls-authz=nosuchEND': 'rules must be there',
    'NODE--export vhost-user-blk,id=e,node-name=n': 'NBD is what is exported: other types are not here',
    'NODE--export fuse,id=e,node-name=n': 'the same',
    'NODE--export vduse-blk,id=e,node-name=n': 'the same',
    '--object help': 'the objects that are here',
    '--object rng-random,id=r': 'a type that is not here, whatever others exist',
    'CREDS,priority=fooEND': 'a bad priority is told when it is named, not by each handshake',
    '--trace help': 'the trace points are ours',
    '--trace fooEND': 'told as by the other programs, without the option in front',
    '--trace foo=bar': 'the same',
    '--trace file=nosuch/xEND': 'the same',
}


def spelled(line):
    """With the short words of the tables written out."""
    for word, text in (('LONG', 'a' * 127), ('SERVED', SERVED), ('NODE', NODE), ('QCOW2', QCOW2), ('CREDS', SERVER_CREDS),
                       ('KEY', 'A' * 43 + '='), ('END', END)):
        line = line.replace(word, text)
    return line
