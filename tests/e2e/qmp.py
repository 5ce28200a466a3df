# SPDX-License-Identifier: MIT
"""A daemon and clients of its monitor. The client of plain commands is socat, which we did not
write; descriptors are sent by a socket of python's."""
import json
import os
import select
import signal
import socket
import subprocess
import time

WAIT_S = 60  # for what comes at once, on a machine that does much else


def listens(path):
    """Whether a socket is there and listens: it exists a moment before. To ask by connecting would
    make a session of it."""
    with open('/proc/net/unix', encoding='utf-8') as sockets:
        return any(line.rstrip().endswith(path) and line.split()[3] == '00010000' for line in sockets)


class Daemon:
    """A daemon that listens in folder; program: its words before the options."""

    def __init__(self, folder, program, *options, monitors=1):
        self.folder = str(folder)
        self.sockets = [os.path.join(self.folder, f'qmp{i}.sock') for i in range(monitors)]
        words = list(program) + [str(o) for o in options]
        for i, path in enumerate(self.sockets):
            words += ['--chardev', f'socket,id=c{i},path={path},server=on,wait=off',
                      '--monitor', f'chardev=c{i}']
        # The reference greets twice, or not at all, who comes while it starts.
        ready = os.path.join(self.folder, 'ready')
        if os.path.realpath(program[0]) != os.path.realpath(os.environ['PLATTER_BIN']):
            words += ['--pidfile', ready]
        self.process = subprocess.Popen(words, cwd=self.folder, stdin=subprocess.DEVNULL,
                                        stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        end = time.monotonic() + WAIT_S
        while not all(listens(path) for path in self.sockets) or (ready in words and not os.path.exists(ready)):
            if self.process.poll() is not None or time.monotonic() > end:
                self.process.kill()
                raise AssertionError(self.process.communicate()[0].decode())
            time.sleep(0.01)

    def client(self, monitor=0, negotiate=True):
        return Client(self.sockets[monitor], negotiate)

    def end(self):
        """Ask it to end; its exit code, and what it printed."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            out = self.process.communicate(timeout=WAIT_S)[0]
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.communicate()
            raise
        return self.process.returncode, out.decode()

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        code, out = self.end()
        assert code == 0, out


class Session:
    """What every client does; read_line and write are its own."""
    events: list
    line = b''  # the last message, as it came

    def read(self):
        self.line = self.read_line()
        if not self.line:
            raise EOFError
        return json.loads(self.line)

    def ask(self, request):
        """The reply to a request; events that come before it are kept."""
        self.write(json.dumps(request).encode() + b'\n')
        while True:
            message = self.read()
            if 'event' not in message:
                return message
            self.events.append(message)

    def call(self, name, /, **arguments):
        """What a command returns; '_' stands for '-' in the names of members, '__' for itself."""
        reply = self.try_call(name, **arguments)
        assert 'return' in reply, f'{name} {arguments}: {reply}'
        return reply['return']

    def try_call(self, name, /, **arguments):
        spelled = {k.replace('__', '\0').replace('_', '-').replace('\0', '_'): v
                   for k, v in arguments.items()}
        return self.ask({'execute': name, 'arguments': spelled})

    def fails(self, name, text, klass='GenericError', /, **arguments):
        reply = self.try_call(name, **arguments)
        assert 'error' in reply, f'{name} {arguments}: {reply}'
        assert reply['error']['class'] == klass, reply
        assert text in reply['error']['desc'], reply

    def export_del(self, name):
        """Remove an export that its client has just left: the server may still be about to see that."""
        end = time.monotonic() + WAIT_S
        while 'error' in (reply := self.try_call('block-export-del', id=name)):
            assert 'in use' in reply['error']['desc'] and time.monotonic() < end, reply
            time.sleep(0.01)

    def event(self, name, /, **data):
        """Wait for an event; others that come before stay."""
        while True:
            for i, e in enumerate(self.events):
                if e['event'] == name and data.items() <= e.get('data', {}).items():
                    return self.events.pop(i)
            message = self.read()
            assert 'event' in message, message
            self.events.append(message)


class Client(Session):
    def __init__(self, path, negotiate=True):
        self.process = subprocess.Popen(['socat', '-', f'UNIX-CONNECT:{path}'],
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.events = []
        self.rest = b''
        self.greeting = self.read()
        if negotiate:
            self.call('qmp_capabilities')

    def read_line(self):
        while b'\n' not in self.rest:
            ready, _, _ = select.select([self.process.stdout], [], [], WAIT_S)
            assert ready, 'nothing came'
            data = os.read(self.process.stdout.fileno(), 65536)
            if not data:
                return b''
            self.rest += data
        line, self.rest = self.rest.split(b'\n', 1)
        return line

    def write(self, data):
        self.process.stdin.write(data)
        self.process.stdin.flush()

    def close(self):
        self.process.stdin.close()
        self.process.wait(WAIT_S)
        self.process.stdout.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


class FdClient(Session):
    """One that sends descriptors along."""

    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(WAIT_S)
        self.socket.connect(path)
        self.file = self.socket.makefile('rb')
        self.events = []
        self.fds = []
        self.read()
        self.call('qmp_capabilities')

    def read_line(self):
        return self.file.readline()

    def write(self, data):
        socket.send_fds(self.socket, [data], self.fds)
        self.fds = []

    def send_fd(self, fd, name, /, **arguments):
        self.fds = [fd]
        return self.try_call(name, **arguments)

    def close(self):
        self.file.close()
        self.socket.close()


class RawClient:
    """One that sends any bytes, and reads lines or to the end. Nothing is read before it is asked for."""

    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(WAIT_S)
        self.socket.connect(path)
        self.file = self.socket.makefile('rb')

    def line(self):
        return self.file.readline()

    def send(self, data):
        self.socket.sendall(data)

    def rest(self):
        """Send no more, and what comes until the end."""
        self.socket.shutdown(socket.SHUT_WR)
        return self.file.read()

    def close(self):
        self.file.close()
        self.socket.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


class Schema:
    """What query-qmp-schema returned; check() tells where a value does not fit."""

    def __init__(self, entries):
        self.types = {e['name']: e for e in entries if e['meta-type'] not in ('command', 'event')}
        self.commands = {e['name']: e for e in entries if e['meta-type'] == 'command'}
        self.events = {e['name']: e for e in entries if e['meta-type'] == 'event'}

    def check_reply(self, command, value):
        self.check(self.commands[command]['ret-type'], value, command)

    def check_event(self, event):
        data = self.events[event['event']]['arg-type']
        self.check(data, event.get('data', {}), event['event'])

    def check(self, name, value, where):
        t = self.types[name]
        getattr(self, 'check_' + t['meta-type'])(t, value, where)

    def check_builtin(self, t, value, where):
        kinds = {'string': str, 'int': int, 'number': (int, float), 'boolean': bool,
                 'null': type(None), 'value': object}
        ok = isinstance(value, kinds[t['json-type']])
        if t['json-type'] in ('int', 'number'):
            ok = ok and not isinstance(value, bool)
        assert ok, f'{where}: {value!r} is no {t["json-type"]}'

    def check_enum(self, t, value, where):
        assert value in [m['name'] for m in t['members']], f'{where}: {value!r} is not in {t["name"]}'

    def check_array(self, t, value, where):
        assert isinstance(value, list), f'{where}: {value!r} is no list'
        for i, item in enumerate(value):
            self.check(t['element-type'], item, f'{where}[{i}]')

    def check_alternate(self, t, value, where):
        for m in t['members']:
            try:
                return self.check(m['type'], value, where)
            except AssertionError:
                pass
        raise AssertionError(f'{where}: {value!r} is none of {t["name"]}')

    def check_object(self, t, value, where):
        assert isinstance(value, dict), f'{where}: {value!r} is no object'
        members = {m['name']: m for m in t['members']}
        if 'tag' in t:
            case = next(v for v in t['variants'] if v['case'] == value[t['tag']])
            members.update({m['name']: m for m in self.types[case['type']]['members']})
        for name, m in members.items():
            assert name in value or 'default' in m, f'{where}: {name} is missing'
        for name, inner in value.items():
            assert name in members, f'{where}: {name} is unexpected'
            self.check(members[name]['type'], inner, f'{where}.{name}')
