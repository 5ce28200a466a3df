# SPDX-License-Identifier: MIT
"""Small qcow2 images written field by field from the specification, so that each can be made wrong."""
import struct
import zlib

COPIED = 1 << 63
COMPRESSED = 1 << 62
ZERO = 1


class Image:
    """Clusters: 0 header, 1 refcount table, 2 refcount block, 3 L1, 4 L2, then data. Attributes are changed
    before build(); patches [(offset, bytes)] are put over the result."""

    def __init__(self, cluster_bits=16, version=3, disk_clusters=8, extended=False, refcount_order=4):
        self.bits = cluster_bits
        self.cluster = 1 << cluster_bits
        self.version = version
        self.extended = extended
        self.entry = 16 if extended else 8
        self.order = refcount_order
        self.header = {
            'magic': 0x514649fb, 'version': version, 'backing_offset': 0, 'backing_bytes': 0,
            'cluster_bits': cluster_bits, 'size': disk_clusters * self.cluster, 'crypt': 0, 'l1_entries': 1,
            'l1_offset': 3 * self.cluster, 'reftable_offset': self.cluster, 'reftable_clusters': 1,
            'snapshots': 0, 'snapshots_offset': 0, 'incompatible': 16 if extended else 0, 'compatible': 0,
            'autoclear': 0, 'refcount_order': refcount_order, 'header_bytes': 112, 'compression': 0,
        }
        self.extensions = []  # (type, data) or raw bytes
        self.end_extensions = True
        self.backing_name = None
        self.l1 = [4 * self.cluster | COPIED]
        self.l2 = {}          # index: entry or (entry, bitmap)
        self.data = {}        # cluster: bytes
        self.next = 5
        self.refcounts = {0: 1, 1: 1, 2: 1, 3: 1, 4: 1}
        self.reftable = [2 * self.cluster]
        self.patches = []
        self.truncate = None

    def allocate(self, content=b'', count=1):
        first = self.next
        self.next += count
        for i in range(count):
            self.refcounts[first + i] = 1
        self.data[first] = content
        return first * self.cluster

    def put_data(self, index, pattern, flags=COPIED):
        host = self.allocate(bytes([pattern]) * self.cluster)
        self.l2[index] = (host | flags, 0xffffffff) if self.extended else host | flags
        return host

    def put_compressed(self, index, pattern=0x33, stream=None, sectors=None, host=None):
        if stream is None:
            packer = zlib.compressobj(9, zlib.DEFLATED, -12)
            stream = packer.compress(bytes([pattern]) * self.cluster) + packer.flush()
        if host is None:
            host = self.allocate(stream)
        if sectors is None:
            sectors = max(0, (len(stream) + 511) // 512 - 1)
        x = 62 - (self.bits - 8)
        entry = COMPRESSED | host | sectors << x
        self.l2[index] = (entry, 0) if self.extended else entry
        return host

    def add_snapshot(self, entry=None, count=1, name=b'snap', l1_offset=None, l1_entries=1, extra=None):
        """One that shares nothing: its L1 is empty."""
        if l1_offset is None:
            l1_offset = self.allocate()
        if extra is None:
            extra = struct.pack('>QQ', 0, self.header['size'])
        if entry is None:
            entry = struct.pack('>QIHHIIQII', l1_offset, l1_entries, 1, len(name), 1, 2, 3, 0, len(extra))
            entry += extra + b'1' + name
            entry += bytes(-len(entry) % 8)
        self.header['snapshots'] = count
        self.header['snapshots_offset'] = self.allocate(entry)
        return l1_offset

    def add_bitmap(self, name=b'map', granularity=16, flags=2, kind=1, table=None, table_entries=1,
                   extra=b'', count=1, directory_bytes=None, directory=None, autoclear=1):
        if table is None:
            bits = self.allocate(b'\x05')
            table = self.allocate(struct.pack('>Q', bits))
        if directory is None:
            directory = struct.pack('>QIIBBHI', table, table_entries, flags, kind, granularity, len(name),
                                    len(extra)) + extra + name
            directory += bytes(-len(directory) % 8)
        where = self.allocate(directory)
        self.header['autoclear'] |= autoclear
        self.extensions.append((0x23852875, struct.pack('>IIQQ', count, 0,
                                                        len(directory) if directory_bytes is None
                                                        else directory_bytes, where)))
        return where

    def header_blob(self):
        h = self.header
        blob = struct.pack('>IIQIIQIIQQIIQ', h['magic'], h['version'], h['backing_offset'], h['backing_bytes'],
                           h['cluster_bits'], h['size'], h['crypt'], h['l1_entries'], h['l1_offset'],
                           h['reftable_offset'], h['reftable_clusters'], h['snapshots'], h['snapshots_offset'])
        if self.version >= 3:
            blob += struct.pack('>QQQII', h['incompatible'], h['compatible'], h['autoclear'],
                                h['refcount_order'], h['header_bytes'])
            blob += bytes([h['compression']]) + bytes(7)
        for extension in self.extensions:
            if isinstance(extension, bytes):
                blob += extension
            else:
                kind, data = extension
                blob += struct.pack('>II', kind, len(data)) + data + bytes(-len(data) % 8)
        if self.end_extensions:
            blob += bytes(8)
        return blob

    def build(self):
        if self.backing_name is not None and not self.header['backing_offset']:
            self.header['backing_offset'] = len(self.header_blob())
            self.header['backing_bytes'] = len(self.backing_name)
        image = bytearray(self.next * self.cluster)

        def put(offset, content):
            end = min(len(image), offset + len(content))
            if offset < len(image):
                image[offset:end] = content[:end - offset]

        for index, content in self.data.items():
            put(index * self.cluster, content)
        put(0, self.header_blob())
        if self.backing_name is not None and self.header['backing_offset'] < self.cluster:
            put(self.header['backing_offset'], self.backing_name)
        put(self.cluster, struct.pack(f'>{len(self.reftable)}Q', *self.reftable))
        width = 1 << self.order
        for index, count in self.refcounts.items():
            if width < 8:
                at = 2 * self.cluster + index * width // 8
                image[at] |= count << (index * width % 8)
            else:
                put(2 * self.cluster + index * width // 8, count.to_bytes(width // 8, 'big'))
        put(3 * self.cluster, struct.pack(f'>{len(self.l1)}Q', *self.l1))
        for index, entry in self.l2.items():
            words = entry if isinstance(entry, tuple) else (entry,)
            put(4 * self.cluster + index * self.entry, struct.pack(f'>{len(words)}Q', *words))
        for offset, content in self.patches:
            put(offset, content)
        if self.truncate is not None:
            del image[self.truncate:]
        return bytes(image)

    def write(self, path):
        with open(path, 'wb') as f:
            f.write(self.build())
        return path
