# SPDX-License-Identifier: MIT
"""What tests look at in the bytes of a qcow2 image, independent of the code under test."""
import struct

OFFSET = 0x00fffffffffffe00
COPIED = 1 << 63
COMPRESSED = 1 << 62


class Image:
    """An image read whole. Small ones only."""

    def __init__(self, path):
        self.bytes = bytearray(path.read_bytes())
        self.version, = self.at('>I', 4)
        self.cluster_bits, = self.at('>I', 20)
        self.cluster = 1 << self.cluster_bits
        self.size, = self.at('>Q', 24)
        self.l1_entries, self.l1_offset = self.at('>IQ', 36)
        self.reftable_offset, self.reftable_clusters = self.at('>QI', 48)
        self.snapshot_count, self.snapshots_offset = self.at('>IQ', 60)
        self.incompatible = self.compatible = self.autoclear = 0
        self.refcount_order = 4
        if self.version >= 3:
            self.incompatible, self.compatible, self.autoclear = self.at('>QQQ', 72)
            self.refcount_order, = self.at('>I', 96)

    def at(self, fmt, offset):
        return struct.unpack_from(fmt, self.bytes, offset)

    def snapshots(self):
        """(offset in the file, its fixed fields) of each entry."""
        at = self.snapshots_offset
        for _ in range(self.snapshot_count):
            fields = self.at('>QIHHIIQII', at)
            yield at, fields
            at += 40 + fields[8] + fields[2] + fields[3]
            at = (at + 7) & ~7

    def without_dates(self):
        copy = bytearray(self.bytes)
        for at, _ in self.snapshots():
            copy[at + 16:at + 24] = bytes(8)
        return bytes(copy)

    def without_free(self):
        """Zeroes where a cluster is free: nobody reads what it held."""
        copy = bytearray(self.without_dates())
        for i in range(len(copy) // self.cluster):
            if self.refcount(i) == 0:
                copy[i * self.cluster:(i + 1) * self.cluster] = bytes(self.cluster)
        return bytes(copy)

    def refcount(self, cluster):
        bits = 1 << self.refcount_order
        per_block = self.cluster * 8 // bits
        index = cluster // per_block
        if index >= self.reftable_clusters * self.cluster // 8:
            return 0
        block, = self.at('>Q', self.reftable_offset + index * 8)
        if block == 0:
            return 0
        at = cluster % per_block * bits
        if bits < 8:
            return self.bytes[block + at // 8] >> at % 8 & ((1 << bits) - 1)
        return int.from_bytes(self.bytes[block + at // 8:block + (at + bits) // 8], 'big')


def differing(one, other, free=True):
    """Offsets of the first few bytes in which two images differ, but for dates, and what is in free
    clusters when that does not count."""
    images = Image(one), Image(other)
    a, b = [image.without_dates() for image in images]
    if a != b and not free:
        a, b = [image.without_free() for image in images]
    if a == b:
        return []
    found = [hex(i) for i, (x, y) in enumerate(zip(a, b)) if x != y][:8]
    return found if len(a) == len(b) else [f'{len(a):#x} and {len(b):#x} bytes', *found]
