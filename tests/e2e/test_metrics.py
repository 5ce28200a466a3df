# SPDX-License-Identifier: MIT
"""--metrics of platter serve and platter daemon: what Prometheus scrapes."""
import http.client
import os
import re
import shutil
import signal
import socket
import subprocess
from contextlib import contextmanager

import pytest

from tools_common import guessing, needs, platter

SAMPLE = re.compile(r'([a-z_]+)(?:\{((?:[a-z_]+="(?:[^"\\]|\\.)*",?)*)\})? (-?[0-9.]+|\+Inf)')


def ask(path, request):
    """All that comes back for these bytes."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(60)
        client.connect(str(path))
        client.sendall(request)
        answer = b''
        while more := client.recv(65536):
            answer += more
    return answer


def scrape(path):
    head, body = ask(path, b'GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n').split(b'\r\n\r\n', 1)
    assert head.startswith(b'HTTP/1.1 200 OK\r\n')
    assert b'Content-Type: text/plain; version=0.0.4' in head
    assert f'Content-Length: {len(body)}\r\n'.encode() in head + b'\r\n'
    samples = {}
    for line in body.decode().splitlines():
        if not line.startswith('# '):
            name, labels, value = SAMPLE.fullmatch(line).groups()
            assert (name, labels) not in samples
            samples[name, labels] = value
    return samples


@contextmanager
def running(*arguments, cwd):
    with subprocess.Popen([os.environ['PLATTER_BIN'], *guessing(*arguments)], cwd=cwd, text=True,
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        try:
            yield process
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) == 0, process.stderr.read()
        finally:
            if process.poll() is None:
                process.kill()


@pytest.fixture(name='folder')
def folder_fixture(tmp_path, monkeypatch):
    (tmp_path / 'd.raw').write_bytes(bytes(1 << 20))
    monkeypatch.chdir(tmp_path)  # short socket names
    return tmp_path


@contextmanager
def serving(folder, metrics='unix:m'):
    with running('serve', '-f', 'raw', '-k', 'nbd', '--metrics', metrics, 'd.raw', cwd=folder) as process:
        assert process.stdout.readline().startswith('nbd+unix:'), process.stderr.read()
        yield process


@needs('nbd')
def test_serve(folder):
    with serving(folder):
        before = scrape('m')
        assert before['platter_nbd_requests_total', 'type="write"'] == '0'
        assert before['platter_node_size_bytes', next(
            labels for name, labels in before if name == 'platter_node_size_bytes')] == str(1 << 20)
        done = platter('io', '-f', 'raw', '-c', 'write 0 64k', '-c', 'read 0 4k', '-c', 'read 4k 4k',
                       'nbd+unix:///?socket=nbd')
        assert done.returncode == 0, done.stderr
        after = scrape('m')
        assert after['platter_nbd_requests_total', 'type="write"'] == '1'
        assert after['platter_nbd_bytes_total', 'type="write"'] == '65536'
        assert int(after['platter_nbd_requests_total', 'type="read"']) >= 2
        assert int(after['platter_nbd_connections_total', None]) == 1
        of_export = 'export="",type="write"'
        assert before['platter_export_operations_total', of_export] == '0'
        assert after['platter_export_operations_total', of_export] == '1'
        assert after['platter_export_bytes_total', of_export] == '65536'
        assert after['platter_export_in_flight', of_export] == '0'
        times = [(float(re.search('le="(.*)"', labels).group(1)), int(value))
                 for (name, labels), value in after.items()
                 if name == 'platter_export_request_duration_seconds_bucket' and of_export in labels]
        assert times == sorted(times) and times[-1] == (float('inf'), 1) and len(times) == 50
        assert after['platter_export_request_duration_seconds_count', of_export] == '1'
        assert (after['platter_export_request_duration_seconds_sum', of_export] ==
                after['platter_export_time_seconds_total', of_export])
        assert not any('_duration_' in name for name, _ in before)
        assert os.stat('m').st_mode & 0o777 == 0o600
    assert not os.path.exists('m')


def test_loopback(folder):
    with serving(folder, '127.0.0.1:0') as process:
        where = process.stderr.readline().strip()
        port = re.fullmatch(r'metrics: http://127\.0\.0\.1:(\d+)/metrics', where).group(1)
        for _ in range(20):  # one after the other, more than are served at a time
            client = http.client.HTTPConnection('127.0.0.1', int(port), timeout=60)
            client.request('GET', '/metrics')
            answer = client.getresponse()
            assert answer.status == 200 and b'platter_build_info' in answer.read()
            client.close()


def test_daemon_tells_where(folder):
    with running('daemon', '--metrics', '127.0.0.1:0', cwd=folder) as process:
        assert re.fullmatch(r'metrics: http://127\.0\.0\.1:[1-9]\d*/metrics\n', process.stderr.readline())


def test_what_is_refused(folder):
    with serving(folder):
        for request, status in [(b'GET / HTTP/1.1\r\n\r\n', 404), (b'GET /metricsx HTTP/1.1\r\n\r\n', 404),
                                (b'POST /metrics HTTP/1.1\r\n\r\n', 405), (b'GET /metrics\r\n\r\n', 400),
                                (b'\0\0\r\n\r\n' * 1000, 431), (b'\n\n', 400), (b'x' * 4096, 431),
                                (b'GET /metrics HTTP/1.0\n\n', 200), (b'GET /metrics?a=b HTTP/1.1\r\n\r\n', 200)]:
            assert ask('m', request[:4096]).startswith(f'HTTP/1.1 {status} '.encode()), request
        head = ask('m', b'HEAD /metrics HTTP/1.1\r\n\r\n')
        assert head.startswith(b'HTTP/1.1 200') and head.endswith(b'\r\n\r\n')


def test_clients_that_mean_no_good(folder):
    """Silent ones up to the limit do not keep the server from ending; one that goes makes room."""
    with serving(folder):
        silent = [socket.socket(socket.AF_UNIX) for _ in range(8)]
        for client in silent:
            client.connect('m')
            client.sendall(b'GET /met')
        silent[0].close()
        assert ('platter_nbd_connections', None) in scrape('m')
        ask('m', b'GET /metrics HTTP/1.1\r\n\r\n')
    for client in silent[1:]:
        client.close()


def test_daemon(folder):
    with running('daemon', '--blockdev', 'driver=file,filename=d.raw,node-name=disk', '--metrics', 'unix:m',
                 '--pidfile', 'pid', '--chardev', 'socket,id=c,path=qmp,server=on', '--monitor', 'c',
                 cwd=folder):
        with socket.socket(socket.AF_UNIX) as waits:  # the daemon begins when it has its client
            waits.settimeout(60)
            for _ in range(3000):
                try:
                    waits.connect('qmp')
                    break
                except (FileNotFoundError, ConnectionRefusedError):
                    subprocess.run(['true'], check=True)
            waits.recv(1000)
            samples = scrape('m')
    assert samples['platter_node_info', 'node="disk",driver="file",read_only="false"'] == '1'
    assert not any(name.startswith('platter_nbd') for name, _ in samples)


def test_readme(folder):
    """The recipe as it is written."""
    with open(os.path.join(os.path.dirname(__file__), '../../README.md'), encoding='utf-8') as f:
        part = f.read().split('**Watch a server.**')[1].split('\n**')[0]
    server, client = re.findall(r'^    (\S.*)$', part, re.M)
    (folder / 'd.raw').rename(folder / 'disk.raw')
    with running(*server.split()[1:], cwd=folder) as process:
        assert process.stdout.readline().startswith('nbd+unix:')
        if shutil.which('curl'):
            done = subprocess.run(client.split(), cwd=folder, capture_output=True, text=True, timeout=60, check=False)
            assert done.returncode == 0 and 'platter_build_info' in done.stdout, done.stderr


@pytest.mark.parametrize('address, message', [
    ('nowhere', "'nowhere' is no address of metrics"),
    (':1', "':1' is no address of metrics"),
    ('127.0.0.1:99999', "port '99999' is out of range: it must be 0 to 65535"),
    ('127.0.0.1:http', "port 'http' is not a number"),
])
def test_addresses_that_are_none(folder, address, message):
    for command in ['serve -f raw -k nbd d.raw', 'daemon']:
        done = platter(*command.split(), '--metrics', address, cwd=folder)
        assert done.returncode == 2
        assert f'--metrics {address}: {message}' in done.stderr


@pytest.mark.parametrize('address, message', [
    ('0.0.0.0:0', 'no loopback address'),
    ('203.0.113.1:99', 'no loopback address'),
    ('unix:no/where', 'No such file or directory'),
])
def test_addresses(folder, address, message):
    done = platter('serve', '-f', 'raw', '-k', 'nbd', '--metrics', address, 'd.raw', cwd=folder)
    assert done.returncode == 1
    assert message in done.stderr
